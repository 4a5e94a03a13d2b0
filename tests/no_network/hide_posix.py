"""Takes from Python what Windows lacks, so that a suite on Linux shows what would fail there.

The standard library keeps what it needs: it asks for the system's name, and would be another one on Windows.
"""

import builtins
import multiprocessing
import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FLAG = "RECON_TESTS_HIDE_POSIX"  # in the environment of processes that hide it too
MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "pty")
_STANDARD = Path(sysconfig.get_paths()["stdlib"])


def hide() -> None:
    """Hide `MODULES` from all but the standard library, `os.fork` and `os.sched_getaffinity`; processes are spawned."""
    os.environ[FLAG] = "1"
    for name in ("fork", "forkpty", "sched_getaffinity"):
        if hasattr(os, name):
            delattr(os, name)
    multiprocessing.set_start_method("spawn", force=True)
    original = builtins.__import__

    def guarded(name: str, globals: Mapping[str, Any] | None = None, *args: Any, **kwargs: Any) -> Any:
        if name in MODULES and not _is_standard((globals or {}).get("__file__")):
            raise ModuleNotFoundError(f"No module named {name!r} (hidden by the suite)", name=name)
        return original(name, globals, *args, **kwargs)

    builtins.__import__ = guarded


def _is_standard(file: str | None) -> bool:
    """Whether a module's file is one of Python's own; code without a file (typed in, or of a test) is not."""
    return file is not None and _STANDARD in Path(file).parents and "site-packages" not in Path(file).parts
