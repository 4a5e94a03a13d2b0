"""Pictures of one colour among those that are scored: what a safety checker or a VAE in half precision leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_EVEN = 2.5 / 255  # widest range of a channel of one colour: JPEG moves black by a level or two
_LISTED = 8  # names that are spelled out


def one_colour(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bool (n,), (n,): whether pictures (n, 3, H, W) in [0, 1] are of one colour, and whether that is black."""
    flat = images.flatten(2)
    even = ((flat.amax(2) - flat.amin(2)) <= _EVEN).all(1)
    return even, even & (flat.amax(2) <= _EVEN).all(1)


def flat_note(names: Sequence[str], even: Sequence[bool], black: Sequence[bool], what: str) -> str | None:
    """A sentence that counts and names the pictures of one colour; None where there are none.

    ``names``, ``even``, ``black``: (n,), of all pictures. ``what``: what they are, in the plural.
    """
    found = [name for name, one in zip(names, even, strict=True) if one]
    if not found:
        return None
    dark = sum(map(bool, black))
    colours = f", {dark} of them black" if dark else ""
    rest = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return (
        f"{len(found)} of {len(names)} {what} are flat, of one colour{colours}: {', '.join(found[:_LISTED])}{rest}; "
        "they are scored as they stand (a safety checker or a VAE in half precision leaves such pictures)"
    )


def notes_of(images: torch.Tensor, names: Sequence[str], what: str) -> list[str]:
    """`flat_note` of pictures (n, 3, H, W) in [0, 1], in a list: empty where none is of one colour."""
    even, black = one_colour(images)
    note = flat_note(names, even.tolist(), black.tolist(), what)
    return [] if note is None else [note]
