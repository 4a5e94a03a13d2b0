"""Many pictures in a folder or a zip, read one at a time: none is held in memory."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from align.data.reading.archives import checked_zip
from align.data.reading.safe_load import IMAGE_FORMATS, as_seen
from align.errors import UserError

_SUFFIXES = (".jpg", ".jpeg", ".png")


class PictureFiles:
    """The ``.jpg`` and ``.png`` files of a folder and its subfolders, or of a zip.

    ``names``: paths inside, sorted. ``option``: what a message calls the place. Raises `UserError` where ``path`` is
    neither, for a zip that `align.data.reading.archives` refuses, and for a picture that cannot be read.
    """

    def __init__(self, path: Path, option: str = "") -> None:
        self.path, self._archive = path, None
        if path.is_dir():
            files = [p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES]
            self.names = tuple(file.relative_to(path).as_posix() for file in sorted(files))
            return
        if not zipfile.is_zipfile(path):
            raise UserError(f"{option}{str(path)!r} is neither a folder nor a zip file of pictures")
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"archive {str(path)!r} is truncated or corrupt ({error}); fetch it again") from error
        self._members = checked_zip(self._archive, path)
        self.names = tuple(sorted(name for name in self._members if name.lower().endswith(_SUFFIXES)))

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """(name, uint8 (H, W, 3)) of every picture, in order."""
        return ((name, self.load(i)) for i, name in enumerate(self.names))

    def load(self, row: int) -> np.ndarray:
        """Picture ``row``, uint8 (H, W, 3)."""
        data = self._data(row)
        try:
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
                return as_seen(image, self._where(row))
        except UserError:
            raise
        except Exception as error:  # pillow raises whatever it likes on broken bytes
            raise UserError(f"{self._where(row)} is not a readable picture: {error}") from error

    def digest(self, row: int) -> bytes:
        """SHA-256 of the file of picture ``row``; nothing is decoded."""
        return hashlib.sha256(self._data(row)).digest()

    def _data(self, row: int) -> bytes:
        name = self.names[row]
        try:
            return (self.path / name).read_bytes() if self._archive is None else self._archive.read(self._members[name])
        except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
            raise UserError(f"{self._where(row)} cannot be read ({error})") from error

    def _where(self, row: int) -> str:
        return str(self.path / self.names[row]) if self._archive is None else f"{self.path}:{self.names[row]}"
