"""Files that are either whole or absent (written under a temporary name, then renamed), and locks between processes."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import Damaged, UserError
from align.files.checksums import KEY, of_tensors, require_made_for, require_tensors, sealed, unsealed
from align.files.strays import beside, remove_strays, temporary_name, tidy
from align.files.streams import is_stream, written_through

if TYPE_CHECKING:
    from filelock import BaseFileLock

logger = logging.getLogger(__name__)
_SHORT = re.compile(r"^\d+ requested and \d+ written$")
LARGEST_TEXT = 2**28  # bytes of a JSON or CSV file that is read at once


@contextmanager
def locked(lock: str | Path, doing: str, wait: float | None = 0, keep: bool = True) -> Iterator[None]:
    """Keep every other process out while the block runs; ``lock`` is a file made for this alone.

    To guard a folder, lock a file in it. The same thread may take the same lock again inside the block.

    Stale locks: a lock file that merely exists blocks nobody. The lock belongs to a process, and the system frees it
    when that process ends, however it ends. A disk without such locks (some network drives) gets a file that names
    process, container and computer instead: it is taken over once that process is gone from them; one left elsewhere
    stays, and the message says which file to delete. What killed processes left half-written in the folder of the lock
    is removed (`align.files.strays`).

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
    make_folder(lock.parent)
    try:
        _acquire(handle, doing, wait)
    except TimeoutError:  # filelock's
        raise UserError(
            f"another process is {doing}; wait for it and try again (if there is none on any computer, delete "
            f"{str(lock)!r})"
        ) from None
    except OSError as error:
        reason = f"{error.strerror or error}; it needs the lock {lock.name!r} there"
        raise UserError(f"cannot write into {str(lock.parent)!r}: {reason}") from error
    remove_strays(lock.parent)
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
        with written_through(path) as temporary:
            yield temporary
        return
    if not path.name or path.is_dir():
        raise UserError(f"{str(path)!r} is a folder; pass the name of a file to write")
    make_folder(path.parent)
    tidy(path.parent)
    temporary = temporary_name(path, path.suffix)
    try:
        with naming(path):
            yield temporary
            if flush:
                _flush(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, replaces: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """A new folder beside ``path``; takes its place on success, removed on failure.

    Files in it are flushed one by one by whoever writes them. Two processes with one ``path`` need a lock.

    What stands at ``path`` by then is nobody's to delete: it stays, the new folder is kept under another name, and
    `UserError` says both. Only an old folder for which ``replaces`` holds, looked at when all is made, goes.
    """
    path = Path(path)
    make_folder(path.parent)
    tidy(path.parent)
    temporary = temporary_name(path)
    try:
        with naming(path):
            temporary.mkdir()
            yield temporary
            _put(temporary, path, replaces)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put(temporary: Path, path: Path, replaces: Callable[[Path], bool] | None) -> None:
    """Give a folder its name, unless something stands there that is not to be replaced."""
    if replaces is not None and path.is_dir() and not path.is_symlink() and replaces(path):
        old = temporary_name(path)
        path.rename(old)
        shutil.rmtree(old, ignore_errors=True)
    try:
        if not os.path.lexists(path):
            temporary.rename(path)
            return
    except OSError as error:
        if not os.path.lexists(path):
            raise
        logger.debug("%s", error)
    kept = path.with_name(f"{beside(path, 'new').name[1:]}-{secrets.token_hex(4)}")
    temporary.rename(kept)
    raise UserError(
        f"{str(path)!r} is there already, made by somebody else, and stays as it is; what was made now is "
        f"{str(kept)!r}: rename or remove one of them"
    )


def make_folder(path: Path) -> None:
    """The folder and those above it, where absent; raises `UserError` where a file is in the way or it may not be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        here = next((place for place in (path, *path.parents) if os.path.lexists(place)), path)
        raise UserError(
            f"{str(here)!r} {no_folder(here)}, and files are to be written into {str(path)!r}; move it away or name "
            "another place"
        ) from error
    except OSError as error:
        raise UserError(f"cannot make the folder {str(path)!r}: {error.strerror or error}") from error


def no_folder(path: Path) -> str:
    """What is wrong with a path that is no folder: "is a file", "is a link that leads nowhere"."""
    return "is a link that leads nowhere" if path.is_symlink() and not path.exists() else "is a file, no folder"


def _flush(path: Path) -> None:
    """Wait until the bytes of a file are on the disk; a disk that cannot say so is believed."""
    with path.open("r+b") as file, suppress(OSError):
        os.fsync(file.fileno())


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
        number = errno.ENOSPC if _SHORT.search(str(error)) else error.errno or errno.EIO  # so numpy says it
        reason = os.strerror(number) if number == errno.ENOSPC else error.strerror or str(error)
        raise OSError(number, reason, str(path)) from error
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
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            return "is no file but a folder"
        return "is no file"
    except PermissionError:
        return "cannot be read: a folder above it may not be entered"
    except (OSError, ValueError):
        return "does not exist"


def unreadable(path: str | Path, error: OSError) -> str:
    """One line for a file that cannot be opened: missing, a folder, or what the system says."""
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        return f"{str(path)!r} {no_file(path)}"
    return f"{str(path)!r} cannot be read: {error.strerror or error}"


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
        raise UserError(unreadable(path, error)) from error


def require_openable(path: str | Path) -> None:
    """Raise `UserError` with the system's own reason where a file cannot be opened; safetensors calls each missing.

    A pipe or device, which would be waited for, is no file.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise UserError(f"{str(path)!r} {no_file(path)}")
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise UserError(unreadable(path, error)) from error


def save_tensors(path: str | Path, tensors: dict[str, Any], metadata: dict[str, str] | None = None) -> None:
    """Write torch tensors as safetensors with text metadata and a checksum of all of it, atomically."""
    from safetensors.torch import save_file

    held = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    told = {name: value for name, value in (metadata or {}).items() if name != KEY}
    with atomic_path(path) as temporary, _room(temporary) as folder:
        save_file(held, folder / "x", {**told, KEY: of_tensors(held, told)})
        _sort_metadata(folder / "x")
        os.replace(folder / "x", temporary)


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file in the order of their names: the library has them in any, so that equal
    content would make files of other bytes."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(size)
        if len(text) == size:
            file.seek(8)
            file.write(text)


@contextmanager
def _room(path: Path) -> Iterator[Path]:
    """A folder for writers that make files of their own beside their target (safetensors from 0.8 on), which nobody
    would find after a kill; `remove_strays` removes the folder with them."""
    folder = temporary_name(path.with_name("x"))
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_tensors(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Torch tensors and metadata of a safetensors file.

    Raises `UserError` when it is missing, `Damaged` when it is truncated or foreign, or when its content is not what
    `save_tensors` wrote. Files of others, which have no checksum of ours, are read as they are.
    """
    from safetensors import SafetensorError, safe_open

    require_openable(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if os.name == "nt":  # a tensor may still be a view of the file, and Windows replaces no file that is mapped
                tensors = {name: tensor.clone() for name, tensor in tensors.items()}
            metadata = dict(file.metadata() or {})
    except (SafetensorError, UnicodeDecodeError) as error:
        raise Damaged(f"{str(path)!r} is not a whole safetensors file: {error}") from error
    require_tensors(path, tensors, metadata)
    metadata.pop(KEY, None)
    return tensors, metadata


def read_made_for(path: str | Path, key: str) -> dict[str, Any]:
    """The tensors of a cache that was made for ``key`` (`align.files.checksums.MADE_FOR` of its metadata).

    Raises as `read_tensors`, and `Damaged` for a file of another key.
    """
    tensors, metadata = read_tensors(path)
    require_made_for(path, metadata, key)
    return tensors
