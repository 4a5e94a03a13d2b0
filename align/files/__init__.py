"""Files that are either whole or absent (written under a temporary name, then renamed), and locks between processes."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import platform
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import Damaged, UserError
from align.files.checksums import KEY, of_tensors, require_tensors, sealed, unsealed

if TYPE_CHECKING:
    from filelock import BaseFileLock

logger = logging.getLogger(__name__)
LARGEST_TEXT = 2**28  # bytes of a JSON or CSV file that is read at once

_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
_STEM = 40  # characters of a name that its temporary name or its lock shows: four bytes each are 160
_STRAY = re.compile(r"\.tmp-([0-9a-f]{6})-(\d+)-[0-9a-f]{8}(\.[^.]*)?$")
_tidied: set[str] = set()  # folders that this process has written to


@contextmanager
def locked(lock: str | Path, doing: str, wait: float | None = 0, keep: bool = True) -> Iterator[None]:
    """Keep every other process out while the block runs; ``lock`` is a file made for this alone.

    To guard a folder, lock a file in it. The same thread may take the same lock again inside the block.

    Stale locks: a lock file that merely exists blocks nobody. The lock belongs to a process, and the system frees it
    when that process ends, however it ends. A disk without such locks (some network drives) gets a file that names
    process and computer instead: it is taken over once that process is gone from this computer; one left by another
    computer stays, and the message says which file to delete. What killed processes left half-written in the folder of
    the lock is removed.

    Parameters
    ----------
    lock
        The lock file; its folder is made where absent.
    doing
        What the holder does, for the message: "fetching 'x.zip'".
    wait
        Seconds to wait for the other process; 0: none, None: as long as it takes (said once in the log).
    keep
        Whether the lock file may stay behind; without, the last one to leave deletes it.

    Raises
    ------
    UserError
        Another process still holds the lock after ``wait`` seconds, or the lock file cannot be made.
    """
    from filelock import FileLock

    lock = Path(lock).absolute()
    handle = FileLock(lock, is_singleton=True)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        _acquire(handle, doing, wait)
        remove_strays(lock.parent)
    except OSError as error:  # filelock's Timeout among them
        if isinstance(error, TimeoutError):
            raise UserError(
                f"another process is {doing}; wait for it and try again (if there is none on any computer, delete "
                f"{str(lock)!r})"
            ) from None
        raise UserError(f"cannot make the lock {str(lock)!r}: {error.strerror or error}") from error
    try:
        yield
    finally:
        if not keep and handle.lock_counter == 1:
            with suppress(OSError):  # Windows deletes it below; elsewhere whoever waits sees that it is gone
                lock.unlink()
        handle.release()


def remove_unheld(lock: str | Path) -> None:
    """Remove the lock file that a killed process left; one that is held stays."""
    if Path(lock).exists():
        with suppress(UserError), locked(lock, "looking after a lock", keep=False):
            pass


def _acquire(handle: BaseFileLock, doing: str, wait: float | None) -> None:
    """Raises filelock's ``Timeout``, a `TimeoutError`, after ``wait`` seconds."""
    try:
        handle.acquire(timeout=0)
    except TimeoutError:
        if wait == 0:
            raise
        logger.info("waiting: another process is %s", doing)
        handle.acquire(timeout=-1 if wait is None else wait)


@contextmanager
def atomic_path(path: str | Path, flush: bool = True) -> Iterator[Path]:
    """A temporary path beside ``path`` (same suffix); renamed to ``path`` on success, removed on failure.

    No other process and no other thread is given the same one. With ``flush`` the bytes are on the disk before the file
    has its name, so that a power cut leaves the old file or the new one; without, it may leave an empty one (measured:
    3 to 5 ms a file; left out for pictures, which are drawn again). What killed processes left half-written in the
    folder goes when this process first writes there.
    """
    path = Path(path)
    if is_stream(path):
        with _written_through(path) as temporary:
            yield temporary
        return
    if not path.name or path.is_dir():
        raise UserError(f"{str(path)!r} is a folder; pass the name of a file to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    _tidy(path.parent)
    temporary = beside(path, f"tmp-{_HOST}-{os.getpid()}-{secrets.token_hex(4)}", path.suffix)
    try:
        with naming(path):
            yield temporary
            if flush:
                _flush(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A new folder beside ``path``; takes its place on success (an old folder goes), removed on failure.

    Files in it are flushed one by one by whoever writes them. Two processes with one ``path`` need a lock.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _tidy(path.parent)
    temporary = beside(path, f"tmp-{_HOST}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        temporary.mkdir()
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def beside(path: Path, kind: str, suffix: str = "") -> Path:
    """A hidden name in the same folder that no file system finds too long, whatever the length of ``path``'s own."""
    stem = path.name.removesuffix(suffix) if suffix else path.name
    if len(stem) > _STEM:
        stem = f"{stem[:_STEM]}~{hashlib.sha256(stem.encode(errors='surrogateescape')).hexdigest()[:8]}"
    return path.with_name(f".{stem}.{kind}{suffix if len(suffix) <= _STEM else ''}")


def _tidy(folder: Path) -> None:
    """`remove_strays`, once for each folder: a folder of many pictures is not searched for every one of them."""
    key = str(folder.absolute())
    if key not in _tidied:
        _tidied.add(key)
        remove_strays(folder)


def remove_strays(folder: str | Path) -> None:
    """Remove the temporary files and folders that processes of this computer left in ``folder`` when they were killed.

    Those of processes that live, and of other computers, stay.
    """
    for found in Path(folder).glob(".*.tmp-*"):
        match = _STRAY.search(found.name)
        if match and match[1] == _HOST and not _alive(int(match[2])):
            if found.is_dir() and not found.is_symlink():
                shutil.rmtree(found, ignore_errors=True)
            else:
                with suppress(OSError):
                    found.unlink()


def _alive(pid: int) -> bool:
    if os.name == "nt":  # where asking a process would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _flush(path: Path) -> None:
    """Wait until the bytes of a file are on the disk; a disk that cannot say so is believed."""
    with path.open("r+b") as file, suppress(OSError):
        os.fsync(file.fileno())


def is_stream(path: Path) -> bool:
    """Whether ``path`` is a pipe, device or socket, or the name of an open file (/dev/stdout): written to as it is."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    folder = path.absolute().parent
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or folder == Path("/dev") or folder.name == "fd"


@contextmanager
def _written_through(path: Path) -> Iterator[Path]:
    """A temporary file elsewhere; on success its bytes are written to ``path``, which stays what it is."""
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / f"written{path.suffix}"
        yield temporary
        left = memoryview(temporary.read_bytes())
        sys.stdout.flush()
        with naming(path):
            out = _opened(path)
            try:
                while left:
                    left = left[os.write(out, left) :]
            finally:
                os.close(out)


def _opened(path: Path) -> int:
    """A descriptor to write to; that of standard output or error where ``path`` is one of them, to go on behind it."""
    for number in (1, 2):
        with suppress(OSError):
            if os.path.samestat(os.fstat(number), path.stat()):
                return os.dup(number)
    return os.open(path, os.O_WRONLY | os.O_APPEND)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the system that is raised in the block (disk full, no permission) name ``path``."""
    try:
        yield
    except (UserError, BrokenPipeError):
        raise
    except OSError as error:
        if error.filename is not None and ".tmp-" not in str(error.filename):
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    except Exception as error:
        from safetensors import SafetensorError

        if not isinstance(error, SafetensorError):
            raise
        raise OSError(errno.EIO, str(error), str(path)) from error


def write_atomic(path: str | Path, content: str | bytes, flush: bool = True) -> None:
    """Write text (UTF-8) or bytes whole or not at all; ``flush``: see `atomic_path`."""
    data = content.encode() if isinstance(content, str) else content
    with atomic_path(path, flush) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | Path, value: Any, flush: bool = True) -> None:
    """Write indented JSON; NaN and infinity are refused, since no other reader takes them."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n", flush)


def write_sealed(path: str | Path, value: dict[str, Any], flush: bool = True) -> None:
    """`write_json` with its checksum among the entries, which `read_json` compares and leaves out."""
    write_json(path, sealed(value), flush)


def read_json(path: str | Path, shape: Any = object, finite: bool = True) -> Any:
    """Read JSON of a ``shape`` (see `align.files.json_text.parse_json`, also for ``finite``), without its checksum.

    Raises `UserError` when the file is missing, no file, too large or of another shape; `Damaged` when it is no JSON,
    too deep, or not what was sealed.
    """
    from align.files.json_text import parse_json, require

    text = text_of(path)
    try:
        content = unsealed(path, parse_json(text, repr(str(path)), finite=finite))
    except UserError as error:
        raise Damaged(str(error)) from error
    require(content, shape, repr(str(path)))
    return content


def no_file(path: str | Path) -> str:
    """What is wrong with a path that is no regular file: "does not exist", "is no file but a folder", "is no file"."""
    path = Path(path)
    if path.is_dir():
        return "is no file but a folder"
    return "is no file" if path.exists() else "does not exist"


def text_of(path: str | Path, largest: int = LARGEST_TEXT) -> str:
    """The text of a UTF-8 file (a mark at its start is dropped), of at most ``largest`` bytes, with its line ends.

    Raises `UserError` when it is missing, no regular file (a pipe would be waited for) or larger, `Damaged` when it is
    no text.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise UserError(f"{str(path)!r} {no_file(path)}")
        if path.stat().st_size > largest:
            raise UserError(f"{str(path)!r} has {path.stat().st_size:,} bytes; at most {largest:,} are read")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Damaged(f"{str(path)!r} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error


def save_tensors(path: str | Path, tensors: dict[str, Any], metadata: dict[str, str] | None = None) -> None:
    """Write torch tensors as safetensors with text metadata and a checksum of all of it, atomically."""
    from safetensors.torch import save_file

    held = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    told = {name: value for name, value in (metadata or {}).items() if name != KEY}
    with atomic_path(path) as temporary:
        save_file(held, temporary, {**told, KEY: of_tensors(held, told)})


def read_tensors(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Torch tensors and metadata of a safetensors file.

    Raises `UserError` when it is missing, `Damaged` when it is truncated or foreign, or when its content is not what
    `save_tensors` wrote. Files of others, which have no checksum of ours, are read as they are.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if os.name == "nt":  # a tensor may still be a view of the file, and Windows replaces no file that is mapped
                tensors = {name: tensor.clone() for name, tensor in tensors.items()}
            metadata = dict(file.metadata() or {})
    except FileNotFoundError as error:
        raise UserError(f"{str(path)!r} does not exist") from error
    except (SafetensorError, UnicodeDecodeError) as error:
        raise Damaged(f"{str(path)!r} is not a whole safetensors file: {error}") from error
    require_tensors(path, tensors, metadata)
    metadata.pop(KEY, None)
    return tensors, metadata
