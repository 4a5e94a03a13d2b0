"""The disk's side of a download: the bytes so far, what they belong to, and room for the rest.

While a file is under way it is called ``NAME.part``; ``NAME.part.json`` beside it holds the address, the validator
(what If-Range takes) and the length of the file its bytes are of, and ``NAME.part.lock`` keeps other processes out.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from align.errors import UserError
from align.files import locked, read_json, write_json

PIECE = 1 << 20  # bytes read and written at once
RESERVE = 64 << 20  # bytes of a disk that are left free


class Part:
    """The bytes so far. ``kept``: how many of an earlier call are still among them.

    ``checked``: whether a checksum will tell if bytes of two versions got mixed; without one, and without a validator,
    bytes of an earlier call are dropped.
    """

    def __init__(self, url: str, path: Path, file: io.FileIO, checked: bool) -> None:
        self.url, self.path, self.file = url, path, file
        self.note = path.with_name(f"{path.name}.json")
        self.validator: str | None = None
        self.total: int | None = None
        self.kept = self.size
        if self.size:
            self._recall(checked)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return os.fstat(self.file.fileno()).st_size

    @property
    def whole(self) -> bool:
        """Whether the length is known and reached."""
        return self.total is not None and self.size == self.total

    def restart(self) -> None:
        """Forget the bytes."""
        self.file.truncate(0)
        self.validator = self.total = None
        self.kept = 0

    def belongs(self, validator: str | None, total: int | None) -> None:
        """Note what the bytes that follow are of. Raises `UserError` when the disk is full."""
        self.validator, self.total = validator, total
        with self._room():
            write_json(self.note, {"url": self.url, "validator": validator, "total": total})

    def append(self, piece: bytes) -> None:
        """Write all of ``piece``; raises `UserError` when the disk is full, with the bytes before it kept."""
        with self._room():
            write(self.file, piece)

    def remove(self) -> None:
        """Delete bytes and note; the file is closed first, as Windows wants it."""
        self.file.close()
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def become(self, target: Path) -> None:
        """Give the bytes their name, once they are safe on the disk; the file is closed first, as Windows wants it."""
        with self._room():
            os.fsync(self.file.fileno())
        self.file.close()
        os.replace(self.path, target)
        self.note.unlink(missing_ok=True)

    def _recall(self, checked: bool) -> None:
        """Take up what an earlier call noted."""
        try:
            note = read_json(self.note)
        except UserError:
            note = None
        if not isinstance(note, dict) or note.get("url") != self.url:
            self.restart()
            return
        validator, total = note.get("validator"), note.get("total")
        self.validator = validator if isinstance(validator, str) else None
        self.total = total if isinstance(total, int) else None
        if not (self.validator or checked) or (self.total is not None and self.size > self.total):
            self.restart()

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            left = f", {human(self.total - self.size)} are missing" if self.total else ""
            raise UserError(
                f"the disk of {str(self.path)!r} is full: {human(self.size)} are kept{left}; free some and run the "
                "same command again"
            ) from error


def write(file: io.FileIO, piece: bytes) -> None:
    """All of ``piece``, in as many writes as the system needs."""
    view = memoryview(piece)
    while view:
        view = view[file.write(view) :]


@contextmanager
def open_part(path: Path) -> Iterator[io.FileIO]:
    """The part, created where absent, for this process alone; raises `UserError` while another one holds it."""
    lock = path.with_name(f"{path.name}.lock")
    with locked(lock, f"fetching {str(path)!r}", keep=False), path.open("a+b", buffering=0) as file:
        yield file


def hash_file(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk that holds ``folder`` or, while it does not exist, its nearest parent."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_space(needed: int, folder: Path) -> None:
    """Raise `UserError` when fewer than ``needed`` bytes and `RESERVE` are free where ``folder`` lies."""
    free = free_bytes(folder)
    if needed > 0 and needed + RESERVE > free:
        raise UserError(
            f"{str(folder)!r} needs {human(needed)} more, its disk has {human(free)} free; free some or give another "
            "folder"
        )


def human(size: float) -> str:
    """8.34 GB; powers of 1000, as the hosts write sizes."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
