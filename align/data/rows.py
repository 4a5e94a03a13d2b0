"""Rows of one shape, read where they lie: what training takes signals and tokens from, whatever their size."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from align.data.signals import fingerprint, fits, release

_PIECE = 1 << 25  # bytes of float32 rows read at once


class Rows:
    """Rows of one or several arrays (in memory or mapped from files, any float type) as one list of float32 rows.

    ``parts``: pairs (array (n, ...), the rows of it that are meant, in order); the shape of a row is the same in all.
    Nothing is read on construction.
    """

    def __init__(self, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        self.arrays = [array for array, _ in parts]
        self.part = np.repeat(np.arange(len(parts)), [len(rows) for _, rows in parts])
        self.row = np.concatenate([np.asarray(rows, dtype=np.int64) for _, rows in parts])
        self.shape: tuple[int, ...] = tuple(self.arrays[0].shape[1:])
        if any(tuple(array.shape[1:]) != self.shape for array in self.arrays):
            raise ValueError(f"rows of several shapes: {[array.shape[1:] for array in self.arrays]}")

    @classmethod
    def of(cls, array: np.ndarray | Rows) -> Rows:
        """All rows of one array; `Rows` stay as they are."""
        return array if isinstance(array, Rows) else cls([(array, np.arange(len(array)))])

    def __len__(self) -> int:
        return len(self.row)

    @property
    def nbytes(self) -> int:
        """What all rows take in memory, as float32."""
        return 4 * len(self) * math.prod(self.shape)

    @property
    def in_memory(self) -> bool:
        """Few enough to be held in memory."""
        return fits(self.nbytes)

    def subset(self, index: np.ndarray) -> Rows:
        """The rows of the given numbers, in the given order; not read."""
        chosen = object.__new__(Rows)
        chosen.arrays, chosen.shape = self.arrays, self.shape
        chosen.part, chosen.row = self.part[index], self.row[index]
        return chosen

    def take(self, index: np.ndarray) -> torch.Tensor:
        """The rows of the given numbers (B, ...) float32, in memory that torch has aligned.

        Results of matrix products can depend on alignment, and a resumed run must agree to the last bit.
        """
        out = torch.empty((len(index), *self.shape), dtype=torch.float32)
        view, part, row = out.numpy(), self.part[index], self.row[index]
        for i in np.unique(part):
            mine = part == i
            view[mine] = self.arrays[i][row[mine]]
            release(self.arrays[i])
        return out

    def all(self) -> torch.Tensor:
        """Every row (n, ...)."""
        return self.take(np.arange(len(self)))

    def pieces(self) -> Iterator[torch.Tensor]:
        """Every row in order: all at once where they are held, else some MiB at a time."""
        count = len(self) if self.in_memory else max(1, _PIECE // (4 * math.prod(self.shape)))
        for start in range(0, len(self), max(1, count)):
            yield self.take(np.arange(start, min(start + count, len(self))))

    def digest(self) -> str:
        """SHA-256 of the rows; of a mapped file its size, time of change and some rows stand for all of them."""
        digest = hashlib.sha256()
        for array in self.arrays:
            digest.update(fingerprint(array).encode())
        digest.update(self.part.tobytes() + self.row.tobytes())
        return digest.hexdigest()
