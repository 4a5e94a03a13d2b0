"""A set of pictures behind one class: n stimuli, k samples each, read in batches."""

from __future__ import annotations

from align.errors import UserError


def require_square(height: int, width: int, name: str) -> int:
    """The side of square pictures; raises `UserError` for others and for pictures below 16 px."""
    if height != width:
        raise UserError(f"{name!r}: pictures are {width} x {height} px; crop them square, as the subject saw them")
    if height < 16:
        raise UserError(f"{name!r}: pictures of {height} px are too small to score; 16 px is the least")
    return height
