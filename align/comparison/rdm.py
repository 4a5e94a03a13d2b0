"""Representational dissimilarity matrices as vectors of pairs: distances, transforms, correlations of their ranks."""

from __future__ import annotations

import numpy as np
from scipy import stats

DISTANCES = ("correlation", "euclidean", "cosine")


def pairs_of(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pairs of ``count`` pictures, upper triangle, row by row."""
    return np.triu_indices(count, 1)


def dissimilarities(features: np.ndarray, distance: str = "correlation") -> np.ndarray:
    """(pairs,) of pictures (n, D), float64.

    ``correlation``: 1 - Pearson r of the rows; ``cosine``: 1 - cosine; ``euclidean``: squared and divided by D, as
    rsatoolbox has it. A row without variance (length) has distance 1 to all others by the first two.
    """
    if distance not in DISTANCES:
        raise ValueError(f"distance {distance!r} should be one of {', '.join(DISTANCES)}")
    x = np.asarray(features, dtype=np.float64)
    upper = pairs_of(len(x))
    if distance == "euclidean":
        squares = np.einsum("ij,ij->i", x, x)
        square = squares[:, None] + squares[None] - 2 * x @ x.T
        return np.asarray(np.maximum(square[upper], 0.0) / x.shape[1])
    if distance == "correlation":
        x = x - x.mean(axis=1, keepdims=True)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    x = x / np.where(length > 1e-12 * max(length.max(initial=0.0), np.finfo(np.float64).tiny), length, np.inf)
    return np.asarray(1 - (x @ x.T)[upper])


def geotopological(rdm: np.ndarray, low: float, high: float) -> np.ndarray:
    """Distances below the quantile ``low`` become 0, above ``high`` 1, linear in between (Lin & Kriegeskorte 2024).

    Small distances are mostly noise, and large ones say no more than "far": what stays is who is near whom.
    """
    if not 0 <= low < high <= 1:
        raise ValueError(f"quantiles {low:g} and {high:g} should rise from 0 to 1")
    least, most = np.quantile(rdm, [low, high])
    if most <= least:  # ties: that value belongs to the side that leaves a difference
        above = rdm > least
        return np.asarray((above if above.any() else rdm >= least).astype(np.float64))
    return np.clip((rdm - least) / (most - least), 0.0, 1.0)


def mean_of_subjects(rdms: np.ndarray) -> np.ndarray:
    """(pairs,) mean over subjects (S, pairs) of their ranks."""
    return np.asarray(np.mean([stats.rankdata(rdm) for rdm in rdms], axis=0))


class RankedRdm:
    """A vector of dissimilarities whose ranks under weights cost no new sorting: one sort for all resamples."""

    def __init__(self, rdm: np.ndarray) -> None:
        _, self.group, self.counts = np.unique(rdm, return_inverse=True, return_counts=True)

    def ranks(self, weights: np.ndarray | None = None) -> np.ndarray:
        """(pairs,) midranks where pair i stands ``weights[i]`` times (once each by default)."""
        total = self.counts if weights is None else np.bincount(self.group, weights, minlength=len(self.counts))
        return np.asarray((np.cumsum(total) - (total - 1) / 2)[self.group])


def weighted_correlation(a: np.ndarray, b: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Pearson r of two (pairs,) where pair i stands ``weights[i]`` times; 0 where one does not vary."""
    w = np.ones(len(a)) if weights is None else weights
    total = max(w.sum(), np.finfo(np.float64).tiny)
    a, b = a - w @ a / total, b - w @ b / total
    length = np.sqrt((w @ (a * a)) * (w @ (b * b)))
    return float(w @ (a * b) / length) if length > 0 else 0.0


def partial_correlation(a: np.ndarray, b: np.ndarray, given: np.ndarray) -> float:
    """Correlation of a and b with what each shares linearly with ``given`` taken out."""
    ab, ag, bg = (weighted_correlation(*pair) for pair in ((a, b), (a, given), (b, given)))
    free = np.sqrt(max(1 - ag * ag, 0.0) * max(1 - bg * bg, 0.0))
    return float((ab - ag * bg) / free) if free > 0 else 0.0
