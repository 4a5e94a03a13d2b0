"""Whose data adaptation works with: training rows of one subject, one row per picture, and the tokens of the pictures.

People may differ in channels, voxels or units, and need not have seen one picture in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from align.data.splits import scene_twins
from align.encoders.shapes import SignalFacts


@dataclass(frozen=True)
class Pictures:
    """What tells pictures apart: ``hashes`` of their pixels, ``thumbs`` (n, 768) as `align.data.splits.thumbnails`."""

    hashes: tuple[str, ...]
    thumbs: np.ndarray

    def take(self, rows: np.ndarray) -> Pictures:
        """The pictures of these numbers."""
        return Pictures(tuple(self.hashes[int(i)] for i in rows), self.thumbs[rows])


@dataclass(frozen=True)
class Person:
    """Training rows of one subject, averaged over repetitions.

    Parameters
    ----------
    name
        The subject's label in its study.
    x
        Signals (n, C, T) or (n, V), float, as the run's preparation gives them.
    tokens
        Target tokens (n, N, D) of the picture of each row.
    groups
        (n,) int: rows whose pictures show one scene or concept.
    pictures
        What tells the n pictures apart.
    facts
        Rate and channel names, which decoders keep.
    """

    name: str
    x: np.ndarray
    tokens: np.ndarray
    groups: np.ndarray
    pictures: Pictures
    facts: SignalFacts = field(default_factory=SignalFacts)

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: np.ndarray) -> Person:
        """The rows of these numbers, in this order."""
        parts = {"x": self.x[rows], "tokens": self.tokens[rows], "groups": self.groups[rows]}
        return replace(self, **parts, pictures=self.pictures.take(rows))

    def without(self, shown: Sequence[Pictures]) -> Person:
        """The rows whose pictures show no scene of ``shown`` (equal pixels, or thumbnails that correlate above .97)."""
        kept = np.ones(len(self), dtype=bool)
        for other in shown:
            kept &= ~scene_twins(self.pictures.thumbs, other.thumbs, self.pictures.hashes, other.hashes)
        return self if kept.all() else self.take(np.flatnonzero(kept))
