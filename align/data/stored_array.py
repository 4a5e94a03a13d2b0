"""An array whose numbers are still in the file it came from: shape and type are known, the rest is mapped on demand."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.errors import UserError

PIECE = 1 << 24  # bytes read at once


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
                raw = file.read(min(PIECE, left))
                if not raw:
                    raise UserError(f"{str(self.path)!r} ends too early; fetch or write it again")
                left -= len(raw)
                try:
                    yield raw if decoder is None else decoder.decode(raw, final=not left).encode("latin-1")
                except UnicodeError as error:
                    raise UserError(f"{str(self.path)!r} is damaged ({error}); fetch or write it again") from error


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
        if not isinstance(shape, tuple) or not all(type(n) is int and 0 <= n < 1 << 48 for n in shape):
            raise ValueError(f"an array of shape {shape!r}")
        if len(shape) > 16 or not isinstance(dtype, np.dtype):
            raise ValueError("an array of an unknown form")
        n = math.prod(shape)
        if dtype.kind == "O":
            if not isinstance(payload, list) or len(payload) != n:
                raise ValueError("an array of objects without as many objects")
        elif isinstance(payload, str):
            payload = payload.encode("latin-1")
        if isinstance(payload, bytes) or (isinstance(payload, Payload) and not payload.text):
            size = len(payload) if isinstance(payload, bytes) else payload.length
            if size != n * dtype.itemsize:
                raise ValueError(f"{size} bytes for an array of {n * dtype.itemsize}")
        elif isinstance(payload, Payload) and not n * dtype.itemsize <= payload.length <= 2 * n * dtype.itemsize:
            raise ValueError(f"{payload.length} bytes of text for an array of {n * dtype.itemsize}")
        elif not isinstance(payload, Payload | list):
            raise ValueError("an array without data")
        self.shape, self.dtype, self.fortran, self.payload = shape, dtype, bool(fortran), payload

    def tensor(self, offset: Any, size: Any, stride: Any) -> StoredArray:
        """A contiguous torch tensor on this storage."""
        if type(offset) is not int or not isinstance(size, tuple) or not isinstance(stride, tuple):
            raise ValueError("a tensor of an unknown form")
        expected, step = [], 1
        for n in reversed(size):
            expected.append(step)
            step *= n
        axes = [k for k, n in enumerate(size) if n != 1]
        if any(stride[k] != tuple(reversed(expected))[k] for k in axes):
            raise ValueError("a tensor that is not contiguous; store it with .contiguous()")
        assert self.shape is not None
        if offset < 0 or offset + math.prod(size) > self.shape[0]:
            raise ValueError("a tensor beyond its storage")
        item, n = self.dtype.itemsize, math.prod(size)
        if isinstance(self.payload, bytes):
            payload: Any = self.payload[offset * item : (offset + n) * item]
        else:
            payload = Payload(self.payload.path, self.payload.offset + offset * item, n * item)
        return StoredArray.of(size, self.dtype, False, payload)

    def require_complete(self, error: type[Exception]) -> None:
        """Raise ``error`` for an array that never got its data."""
        if self.shape is None:
            raise error("holds an array without data")

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers."""
        return math.prod(self.shape or ()) * self.dtype.itemsize

    def open(self) -> np.ndarray:
        """The array: mapped from the file (read-only) where its bytes lie there as they are, else read."""
        assert self.shape is not None
        order = "F" if self.fortran else "C"
        if isinstance(self.payload, list):
            out = np.empty(len(self.payload), dtype=object)
            out[:] = self.payload
            return out.reshape(self.shape, order=order)  # type: ignore[call-overload]
        if isinstance(self.payload, bytes):
            return np.frombuffer(self.payload, self.dtype).reshape(self.shape, order=order)  # type: ignore[call-overload]
        if not self.payload.text:
            return np.memmap(self.payload.path, self.dtype, "r", self.payload.offset, self.shape, order)  # type: ignore[call-overload]
        raw = bytearray(self.nbytes)
        at = 0
        for piece in self._checked_pieces():
            raw[at : at + len(piece)] = piece
            at += len(piece)
        return np.frombuffer(raw, self.dtype).reshape(self.shape, order=order)  # type: ignore[call-overload]

    def save(self, path: Path) -> None:
        """Copy to a ``.npy`` file, a piece at a time."""
        if isinstance(self.payload, list):
            raise UserError(f"objects cannot be stored in {str(path)!r}")
        header = {"descr": self.dtype.str, "fortran_order": self.fortran, "shape": self.shape}
        with path.open("wb") as file:
            np.lib.format.write_array_header_2_0(file, header)
            for piece in self._checked_pieces():
                file.write(piece)

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
