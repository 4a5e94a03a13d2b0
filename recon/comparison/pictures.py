"""Which pictures a comparison looks at: those of a folder, a zip or a study; one half to fit on, the other to score."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from align.data.signals import Recording, Stimuli
from align.data.splits import merge_groups
from align.errors import UserError
from align.seeding import derive

LEAST = 20  # pictures on either side


def pictures_of(place: Path, most: int | None, seed: int) -> Stimuli:
    """The pictures below a folder or in a zip, sorted by name; equal ones are one group.

    ``most``: so many of them, drawn by ``seed``. Raises `UserError` as `PictureFiles` does.
    """
    from align.data.reading.picture_files import PictureFiles

    files = PictureFiles(place.expanduser())
    stimuli = Stimuli(files.names, files.load, np.arange(len(files)), ("",) * len(files), ("",) * len(files))
    if most is not None and most < len(files):
        rows = np.random.default_rng(derive(seed, "pictures")).choice(len(files), most, replace=False)
        stimuli = subset(stimuli, np.sort(rows))
    return replace(stimuli, groups=merge_groups(stimuli.groups, stimuli.hashes))


def pictures_shown(recordings: Sequence[Recording], rows: Sequence[np.ndarray]) -> Stimuli:
    """The pictures ``rows`` of several subjects, each once; groups of any subject are kept together."""
    parts = [subset(one.stimuli, chosen) for one, chosen in zip(recordings, rows, strict=True)]
    starts = np.cumsum([0, *(len(part) for part in parts)])
    offsets = np.cumsum([0, *(int(part.groups.max(initial=0)) + 1 for part in parts)])
    hashes = [value for part in parts for value in part.hashes]
    groups = np.concatenate([part.groups + offset for part, offset in zip(parts, offsets, strict=False)])
    names = [
        name if len(recordings) == 1 else f"{one.subject}/{name}"
        for one, part in zip(recordings, parts, strict=True)
        for name in part.ids
    ]

    def load(row: int) -> np.ndarray:
        at = int(np.searchsorted(starts, row, side="right")) - 1
        return parts[at].load(row - int(starts[at]))

    empty = ("",) * len(names)
    whole = Stimuli(tuple(names), load, merge_groups(groups, hashes), empty, empty, lambda: tuple(hashes))
    return subset(whole, np.sort(np.unique(hashes, return_index=True)[1]))


def subset(stimuli: Stimuli, rows: np.ndarray) -> Stimuli:
    """The pictures of the given rows, in the given order; nothing is read."""
    chosen = [int(row) for row in rows]

    def of(values: Sequence[str]) -> tuple[str, ...]:
        return tuple(values[row] for row in chosen)

    return Stimuli(
        of(stimuli.ids),
        lambda row: stimuli.load(chosen[row]),
        np.asarray(stimuli.groups)[chosen],
        of(stimuli.concepts),
        of(stimuli.captions),
        lambda: of(stimuli.hashes),
    )


def divided(groups: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit on and rows to score, half of the groups each, drawn by ``seed``."""
    names = np.unique(groups)
    if len(names) < 2 * LEAST:
        raise UserError(f"{len(names)} different pictures are too few to fit on one half; {2 * LEAST} are needed")
    drawn = np.random.default_rng(derive(seed, "halves")).permutation(names)[: len(names) // 2]
    fitted = np.isin(groups, drawn)
    return np.flatnonzero(fitted), np.flatnonzero(~fitted)


def digest(stimuli: Stimuli) -> str:
    """SHA-256 over the pixel hashes of the pictures, in order."""
    return hashlib.sha256("\n".join(stimuli.hashes).encode()).hexdigest()
