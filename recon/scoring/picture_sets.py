"""A set of pictures behind one class: n stimuli, k samples each, read in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from align.errors import UserError

if TYPE_CHECKING:
    import torch

Read = Callable[[Sequence[int], int], np.ndarray]


@dataclass(frozen=True)
class OpenedPictures:
    """``ids``: one per stimulus, in order; None for a stack, whose rows are its ids. ``size``: side in px (square).

    ``read(rows, sample)``: uint8, or float in [0, 1], as (b, size, size, 3).
    """

    name: str
    ids: tuple[str, ...] | None
    n: int
    samples: int
    size: int
    read: Read

    def batch(self, rows: Sequence[int], sample: int = 0) -> torch.Tensor:
        """Float32 (b, 3, size, size) in [0, 1]."""
        import torch

        pixels = np.ascontiguousarray(self.read(rows, sample).transpose(0, 3, 1, 2))
        if pixels.dtype == np.uint8:
            return torch.from_numpy(pixels).float().div_(255)
        return torch.from_numpy(pixels.astype(np.float32, copy=False)).clamp_(0, 1)

    def bytes8(self, rows: Sequence[int], sample: int = 0) -> np.ndarray:
        """uint8 (b, size, size, 3), rounded where the set is float: what picture libraries resize."""
        pixels = self.read(rows, sample)
        if pixels.dtype == np.uint8:
            return pixels
        return np.round(np.clip(pixels.astype(np.float32), 0, 1) * 255).astype(np.uint8)

    def reordered(self, order: Sequence[int], ids: tuple[str, ...] | None) -> OpenedPictures:
        """The stimuli ``order`` of this set, under other ids."""
        rows = [int(row) for row in order]
        return replace(
            self, ids=ids, n=len(rows), read=lambda wanted, sample: self.read([rows[i] for i in wanted], sample)
        )


def require_square(height: int, width: int, name: str) -> int:
    """The side of square pictures; raises `UserError` for others and for pictures below 16 px."""
    if height != width:
        raise UserError(f"{name!r}: pictures are {width} x {height} px; crop them square, as the subject saw them")
    if height < 16:
        raise UserError(f"{name!r}: pictures of {height} px are too small to score; 16 px is the least")
    return height
