"""Two sources of scores behind one face: embeddings, scored in blocks, or a matrix that is already there.

Queries and targets are counted by the n pictures that have a recording: query i of ``brain_to_image`` is the brain row
of picture i and its candidates are all K pictures; query i of ``image_to_brain`` is picture i and its candidates are
the n brain rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from align.retrieval.ranks import similarity_rows, standing

DIRECTIONS = ("brain_to_image", "image_to_brain")
_CELLS = 2**24  # matrix values looked at together


class Contest(Protocol):
    """What scoring needs of a source."""

    index: np.ndarray  # (n,) column of picture i among the K candidates

    @property
    def candidates(self) -> int:
        """K."""

    def standing(self, direction: str, queries: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(q,) candidates better than the right one and (q,) others equal, for some queries, among ``columns``."""

    def rows(self, direction: str, members: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """(b, m) scores of a few of the ``members`` (m,) at a time with the right answers of all of them."""

    def matrix(self) -> np.ndarray:
        """(n, K) float64, brain rows by pictures."""


@dataclass
class Embeddings:
    """Cosines of ``brain`` (n, E) and ``images`` (K, E)."""

    brain: np.ndarray
    images: np.ndarray
    index: np.ndarray

    @property
    def candidates(self) -> int:
        """K."""
        return len(self.images)

    def standing(self, direction: str, queries: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Contest`."""
        if direction == "brain_to_image":
            return standing(self.brain[queries], self.images, self.index[queries], columns=columns)
        return standing(self.images[self.index[queries]], self.brain, queries, columns=columns)

    def rows(self, direction: str, members: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """See `Contest`."""
        brain, images = self.brain[members], self.images[self.index[members]]
        pair = (brain, images) if direction == "brain_to_image" else (images, brain)
        yield from similarity_rows(*pair)

    def matrix(self) -> np.ndarray:
        """See `Contest`."""
        return np.concatenate([block for _, block in similarity_rows(self.brain, self.images)])


@dataclass
class Matrix:
    """``scores`` (n, K) as given; higher is more alike."""

    scores: np.ndarray
    index: np.ndarray

    @property
    def candidates(self) -> int:
        """K."""
        return self.scores.shape[1]

    def standing(self, direction: str, queries: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Contest`."""
        better, equal = np.empty(len(queries), dtype=np.int64), np.empty(len(queries), dtype=np.int64)
        for part in _pieces(len(queries), len(columns)):
            block = self._block(direction, queries[part], columns)
            own = self.scores[queries[part], self.index[queries[part]]][:, None]
            better[part] = np.count_nonzero(block > own, axis=1)
            equal[part] = np.count_nonzero(block == own, axis=1) - 1
        return better, equal

    def rows(self, direction: str, members: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """See `Contest`."""
        columns = self.index[members] if direction == "brain_to_image" else members
        for part in _pieces(len(members), len(members)):
            yield part, self._block(direction, members[part], columns).astype(np.float64)

    def matrix(self) -> np.ndarray:
        """See `Contest`."""
        return self.scores.astype(np.float64)

    def _block(self, direction: str, queries: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """(q, m) scores of some queries with some of their candidates."""
        if direction == "brain_to_image":
            return self.scores[np.ix_(queries, columns)]
        return self.scores[np.ix_(columns, self.index[queries])].T


def _pieces(rows: int, width: int) -> Iterator[slice]:
    step = max(1, _CELLS // max(width, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
