"""Outputs that are no files: pipes, devices, and the streams of this process under a name such as /dev/stdout."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from align.errors import Unread


def is_stream(path: Path) -> bool:
    """Whether ``path`` is a pipe, device or socket, or the name of an open file (/dev/stdout): written to as it is."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    folder = path.absolute().parent
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or folder == Path("/dev") or folder.name == "fd"


def is_standard_output(path: Path) -> bool:
    """Whether what is written to ``path`` comes out where this process prints."""
    return is_stream(path) and _is_descriptor(1, path)


@contextmanager
def written_through(path: Path) -> Iterator[Path]:
    """A temporary file elsewhere; on success its bytes are written to ``path``, which stays what it is.

    Raises `Unread` when whoever reads a pipe leaves it.
    """
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / f"written{path.suffix}"
        yield temporary
        left = memoryview(temporary.read_bytes())
        sys.stdout.flush()
        try:
            out = _opened(path)
            try:
                while left:
                    left = left[os.write(out, left) :]
            finally:
                os.close(out)
        except BrokenPipeError as error:
            raise Unread(error.errno, error.strerror, str(path)) from error
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error


def _opened(path: Path) -> int:
    """A descriptor to write to; that of standard output or error where ``path`` is one of them, to go on behind it."""
    for number in (1, 2):
        if _is_descriptor(number, path):
            return os.dup(number)
    return os.open(path, os.O_WRONLY | os.O_APPEND)


def _is_descriptor(number: int, path: Path) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(number), path.stat())
    return False
