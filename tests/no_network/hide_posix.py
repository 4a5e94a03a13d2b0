"""Takes from Python what Windows lacks, so that a suite on Linux shows what would fail there.

The standard library and most packages keep what they need: they ask for the system's name, and would take other ways
on Windows. filelock loses `fcntl`, so that locks are those of a disk without any.
"""

import builtins
import multiprocessing
import os
import warnings
from collections.abc import Mapping
from typing import Any

FLAG = "RECON_TESTS_HIDE_POSIX"  # in the environment of processes that hide it too
MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "pty")
FROM = ("align", "recon", "tests", "filelock", "__main__")  # who does without


def hide() -> None:
    """Hide `MODULES` from the packages in `FROM`, `os.fork` and `os.sched_getaffinity` from all; spawn processes."""
    os.environ[FLAG] = "1"
    for name in ("fork", "forkpty", "sched_getaffinity"):
        if hasattr(os, name):
            delattr(os, name)
    multiprocessing.set_start_method("spawn", force=True)
    warnings.filterwarnings("ignore", "only soft file lock is available")  # filelock's; that is what is tried here
    original = builtins.__import__

    def guarded(name: str, globals: Mapping[str, Any] | None = None, *args: Any, **kwargs: Any) -> Any:
        if name in MODULES and str((globals or {}).get("__name__")).partition(".")[0] in FROM:
            raise ModuleNotFoundError(f"No module named {name!r} (hidden by the suite)", name=name)
        return original(name, globals, *args, **kwargs)

    # the name under which pickle finds it, which the attacks on the pickle reader need
    guarded.__module__, guarded.__name__, guarded.__qualname__ = "builtins", "__import__", "__import__"
    builtins.__import__ = guarded
