"""Pictures that are one and the same: what a decoder leaves that answers every recording with the same thing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from recon.metrics.flat import one_colour

if TYPE_CHECKING:
    import torch


def fingerprints(images: torch.Tensor) -> list[bytes]:
    """A digest of each picture (n, 3, H, W) in [0, 1], in steps of 1/255: equal pictures have the same."""
    steps = (images.float().clamp(0, 1) * 255).round().byte().contiguous().cpu().numpy()
    return [hashlib.sha256(repr(one.shape).encode() + one.tobytes()).digest() for one in steps]


def copies_note(names: Sequence[str], prints: Sequence[bytes], flat: Sequence[bool], what: str) -> str | None:
    """A sentence that counts the different pictures and names equal ones; None where all differ.

    ``names``, ``prints``, ``flat``: (n,), of all pictures; those of one colour are counted by `flat_note` and left out
    here. ``what``: what they are, in the plural.
    """
    groups: dict[bytes, list[str]] = {}
    for name, key, one in zip(names, prints, flat, strict=True):
        if not one:
            groups.setdefault(key, []).append(name)
    n = sum(map(len, groups.values()))
    if len(groups) == n:
        return None
    largest = max(groups.values(), key=len)
    some = f"{largest[0]} = {largest[1]}" + (f" and {len(largest) - 2} more" if len(largest) > 2 else "")
    kinds = "one and the same picture" if len(groups) == 1 else f"only {len(groups)} different pictures"
    return f"{n} of {len(names)} {what} are {kinds}: {some}; they are scored as they stand"


def notes_of(images: torch.Tensor, names: Sequence[str], what: str) -> list[str]:
    """`copies_note` of pictures (n, 3, H, W) in [0, 1], in a list: empty where all differ."""
    note = copies_note(names, fingerprints(images), one_colour(images)[0].tolist(), what)
    return [] if note is None else [note]
