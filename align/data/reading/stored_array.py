"""An array whose numbers are still in the file it came from: shape and type are known, the rest is mapped on demand."""

from __future__ import annotations

import codecs
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from align.errors import UserError
from align.files import atomic_path
from align.files.checksums import append_checksum

_AT_ONCE = 1 << 30  # bytes the system is asked to copy
PIECE = 1 << 20  # bytes read at once; larger pieces are slower, since each is new memory


@dataclass(frozen=True)
class Payload:
    """``length`` bytes at ``offset``. ``text``: UTF-8 text in which every character stands for one byte (latin-1)."""

    path: Path
    offset: int
    length: int
    text: bool = False

    def pieces(self) -> Iterator[bytes]:
        """The bytes, `PIECE` of the file at a time."""
        decoder = codecs.getincrementaldecoder("utf-8")() if self.text else None
        with self.path.open("rb") as file:
            file.seek(self.offset)
            left = self.length
            while left:
                raw = file.read(min(PIECE // 4 if self.text else PIECE, left))
                if not raw:
                    raise UserError(f"{str(self.path)!r} ends too early; fetch or write it again")
                left -= len(raw)
                try:
                    yield raw if decoder is None else decoder.decode(raw, final=not left).encode("latin-1")
                except UnicodeError as error:
                    raise UserError(f"{str(self.path)!r} is damaged ({error}); fetch or write it again") from error

    def copy_to(self, target: BinaryIO) -> None:
        """Append the bytes to a file; where the system can copy them itself, they never pass through this process."""
        target.flush()
        done = 0
        with self.path.open("rb") as file:
            while done < self.length and hasattr(os, "copy_file_range"):
                try:
                    moved = os.copy_file_range(
                        file.fileno(), target.fileno(), min(self.length - done, _AT_ONCE), self.offset + done
                    )
                except OSError:  # another kind of file system
                    break
                if not moved:
                    break
                done += moved
        target.seek(0, os.SEEK_END)
        rest = Payload(self.path, self.offset + done, self.length - done)
        target.writelines(rest.pieces())


class StoredArray:
    """Numbers of ``shape`` and ``dtype`` in ``payload``: bytes, a `Payload`, or a list (texts and other objects)."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] | None = None
        self.dtype = np.dtype("uint8")
        self.fortran = False
        self.payload: Any = b""

    @classmethod
    def of(cls, shape: Any, dtype: np.dtype, fortran: bool, payload: Any) -> StoredArray:
        """An array of known facts; raises ValueError when they do not fit together."""
        stored = cls()
        stored.set_state((1, shape, dtype, fortran, payload))
        return stored

    def set_state(self, state: Any) -> None:
        """What numpy writes: (version, shape, dtype, fortran order, data)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("an array of an unknown form")
        _, shape, dtype, fortran, payload = state
        n = _count(shape)
        if not isinstance(dtype, np.dtype) or dtype.kind not in "biufcOSU" or not dtype.itemsize:
            raise ValueError("an array of an unknown form")
        payload = payload.encode("latin-1") if isinstance(payload, str) else payload
        if dtype.kind == "O":
            if not isinstance(payload, list) or len(payload) != n:
                raise ValueError("an array of objects without as many objects")
        elif not isinstance(payload, bytes | Payload):
            raise ValueError("an array without data")
        else:
            size, wanted = payload.length if isinstance(payload, Payload) else len(payload), n * dtype.itemsize
            most = 2 * wanted if isinstance(payload, Payload) and payload.text else wanted
            if not wanted <= size <= most:
                raise ValueError(f"{size} bytes for an array of {wanted}")
        self.shape, self.dtype, self.fortran, self.payload = shape, dtype, bool(fortran), payload

    def tensor(self, offset: Any, size: Any, stride: Any) -> StoredArray:
        """A contiguous torch tensor on this storage."""
        n = _count(size)
        if type(offset) is not int or not isinstance(stride, tuple) or len(stride) != len(size):
            raise ValueError("a tensor of an unknown form")
        if self.shape is None or len(self.shape) != 1 or self.dtype.kind == "O":
            raise ValueError("a tensor without a storage")
        step = 1
        expected: list[int] = []
        for length in reversed(size):
            expected.insert(0, step)
            step *= max(length, 1)
        if any(stride[k] != expected[k] for k, length in enumerate(size) if length > 1 and n):
            raise ValueError("a tensor that is not contiguous; store it with .contiguous()")
        if offset < 0 or offset + n > self.shape[0]:
            raise ValueError("a tensor beyond its storage")
        item = self.dtype.itemsize
        if isinstance(self.payload, bytes):
            payload: Any = self.payload[offset * item : (offset + n) * item]
        elif self.payload.text:
            raise ValueError("a tensor in a text")
        else:
            payload = Payload(self.payload.path, self.payload.offset + offset * item, n * item)
        return StoredArray.of(size, self.dtype, False, payload)

    def require_complete(self) -> None:
        """Raise ValueError for an array that never got its data, or whose list of objects was changed since."""
        if self.shape is None:
            raise ValueError("an array without data")
        if isinstance(self.payload, list) and len(self.payload) != math.prod(self.shape):
            raise ValueError("an array of objects without as many objects")

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers."""
        return math.prod(self.shape or ()) * self.dtype.itemsize

    def open(self) -> np.ndarray:
        """The array: mapped from the file (read-only) where its bytes lie there as they are, else read."""
        assert self.shape is not None
        order: Any = "F" if self.fortran else "C"
        if not math.prod(self.shape):
            return np.empty(self.shape, self.dtype, order)
        if isinstance(self.payload, list):
            out = np.empty(len(self.payload), dtype=object)
            for i, item in enumerate(self.payload):  # one by one: numpy would look into lists
                out[i] = item
            return out.reshape(self.shape)  # objects are listed row by row, whatever the order in memory was
        if isinstance(self.payload, Payload) and not self.payload.text:
            found: np.ndarray = np.memmap(self.payload.path, self.dtype, "r", self.payload.offset, self.shape, order)
        else:
            found = np.frombuffer(self._raw(), self.dtype).reshape(self.shape, order=order)
        if self.dtype.kind == "U":
            _require_text(found)
        return found

    def _raw(self) -> bytes | bytearray:
        """The bytes in memory, read a piece at a time."""
        if isinstance(self.payload, bytes):
            return self.payload
        raw, at = bytearray(self.nbytes), 0
        for piece in self._checked_pieces():
            raw[at : at + len(piece)] = piece
            at += len(piece)
        return raw

    def save(self, path: Path, of: str) -> None:
        """Copy to a ``.npy`` file with a checksum, a piece at a time; the file is whole or absent.

        ``of``: what `align.files.checksums.require_npy` is to be asked for.
        """
        if isinstance(self.payload, list):
            raise UserError(f"objects cannot be stored in {str(path)!r}")
        header = {"descr": self.dtype.str, "fortran_order": self.fortran, "shape": self.shape}
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_2_0(file, header)
            if isinstance(self.payload, Payload) and not self.payload.text:
                self.payload.copy_to(file)
            else:
                file.writelines(self._checked_pieces())
            file.close()
            append_checksum(temporary, of)

    def _checked_pieces(self) -> Iterator[bytes]:
        pieces = [self.payload] if isinstance(self.payload, bytes) else self.payload.pieces()
        left = self.nbytes
        for piece in pieces:
            left -= len(piece)
            if left < 0:
                break
            yield piece
        if left:
            raise UserError(f"an array in {str(self.payload.path)!r} has another number of bytes than its shape says")


def _count(shape: Any) -> int:
    """Number of items; raises ValueError for a shape that no array can have."""
    if not isinstance(shape, tuple) or len(shape) > 16 or not all(type(n) is int and 0 <= n < 1 << 48 for n in shape):
        raise ValueError("an array of an impossible shape")
    if math.prod(n for n in shape if n) >= 1 << 48:
        raise ValueError("an array of an impossible size")
    return math.prod(shape)


def _require_text(array: np.ndarray) -> None:
    """Raise `UserError` for numbers that are no characters; numpy fails on them in ways of its own."""
    flat = np.ascontiguousarray(array).reshape(-1)
    codes = flat.view(np.dtype("u4").newbyteorder(array.dtype.byteorder))
    if int(codes.max()) > 0x10FFFF or bool(((codes >= 0xD800) & (codes < 0xE000)).any()):
        raise UserError("an array of texts holds what is no text: the file is damaged; fetch or write it again")
