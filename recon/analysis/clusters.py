"""Where is a curve over time above chance? Cluster-based permutation (Maris & Oostenveld 2007), one-sided.

A curve's own permutation null says, for every time, which values are unusual; neighbouring times above that threshold
form a cluster, whose mass (sum of z) is compared with the largest cluster of every permutation. What is tested is
the cluster as a whole: its borders, the onset among them, carry no error rate of their own (Sassenhagen & Draschkow
2019), which is why they come with a bootstrap interval. p is exact where rows that took no part in fitting are paired
anew (the test rows). In cross-validation it is approximate: each fold's decoders were fitted on the rows of the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVEL = 0.05  # of the threshold at a single time, and of a significant cluster


@dataclass(frozen=True)
class Cluster:
    """Times ``first`` to ``last`` (indices, both inside), the sum of z there, and p against the largest by chance."""

    first: int
    last: int
    mass: float
    p: float


@dataclass(frozen=True)
class ClusterTest:
    """``found``: every cluster in time order. The rest is what another curve of the same null is judged by.

    ``centre``, ``spread``, ``threshold`` (W,): of the null at every time, the threshold in z; ``critical``: the mass
    that a cluster of that curve must exceed to be significant at `LEVEL`.
    """

    found: tuple[Cluster, ...]
    centre: np.ndarray
    spread: np.ndarray
    threshold: np.ndarray
    critical: float

    def onset(self, earliest: int = 0) -> int | None:
        """First time, from ``earliest`` on, of the first significant cluster that reaches it; None where none does."""
        reach = (cluster for cluster in self.found if cluster.p <= LEVEL and cluster.last >= earliest)
        return next((max(cluster.first, earliest) for cluster in reach), None)

    def onsets(self, curves: np.ndarray, earliest: int = 0) -> np.ndarray:
        """Onset index of every curve (R, W), -1 where it has none: first cluster with more than the critical mass."""
        z = (curves - self.centre) / self.spread
        above, onset = z > self.threshold, np.full(len(z), -1)
        mass, start = np.zeros(len(z)), np.zeros(len(z), dtype=np.int64)
        for t in range(z.shape[1]):
            start = np.where(mass > 0, start, t)
            mass = np.where(above[:, t], mass + z[:, t], 0.0)
            if t >= earliest:
                onset = np.where((onset < 0) & (mass > self.critical), np.maximum(start, earliest), onset)
        return onset


def cluster_test(observed: np.ndarray, null: np.ndarray, level: float = LEVEL) -> ClusterTest:
    """Clusters of ``observed`` (W,) against ``null`` (B, W), curves under random pairings, each of one permutation.

    The observed curve counts as one of the permutations everywhere, so that p = (1 + #>=) / (1 + B) is exact. A time at
    which no permutation differs from any other belongs to no cluster.
    """
    z, threshold, centre, spread = _against(observed, null, level)
    largest = _largest_mass(z, threshold)
    found = []
    for first, last in _runs(z[0] > threshold):
        mass = float(z[0, first : last + 1].sum())
        found.append(Cluster(first, last, mass, float(np.mean(largest >= mass - 1e-9))))
    return ClusterTest(tuple(found), centre, spread, threshold, float(np.quantile(largest, 1 - level)))


def cluster_map(observed: np.ndarray, null: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """(R, C) p of the cluster that each cell of ``observed`` is in, NaN where it is in none; ``null`` (B, R, C).

    As `cluster_test` does over time: cells that share a side are neighbours.
    """
    from scipy import ndimage

    z, threshold, _, _ = _against(observed, null, level)
    largest, found = np.zeros(len(z)), np.full(observed.shape, np.nan)
    for b, one in enumerate(z):
        labels, count = ndimage.label(one > threshold)
        mass = np.bincount(labels.ravel(), one.ravel(), minlength=count + 1)[1:]
        largest[b] = mass.max(initial=0.0)
        if b == 0:
            own, masses = labels, mass
    for number, mass in enumerate(masses, start=1):
        found[own == number] = np.mean(largest >= mass - 1e-9)
    return found


def _against(
    observed: np.ndarray, null: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """z (1 + B, ...) of the observed and of all permutations, its threshold, and mean and deviation that made z."""
    curves = np.concatenate([observed[None], null])
    centre, spread = curves.mean(axis=0), curves.std(axis=0)
    spread = np.where(spread > 1e-12, spread, np.inf)
    z = (curves - centre) / spread
    return z, np.maximum(np.quantile(z, 1 - level, axis=0), 0.0), centre, spread


def _largest_mass(z: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """(R,) mass of the largest cluster of every curve (R, W), 0 where it has none."""
    running, largest = np.zeros(len(z)), np.zeros(len(z))
    for t in range(z.shape[1]):
        running = np.where(z[:, t] > threshold[t], running + z[:, t], 0.0)
        largest = np.maximum(largest, running)
    return largest


def _runs(above: np.ndarray) -> list[tuple[int, int]]:
    """First and last index of every stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], above, [False]]).astype(np.int8)))
    return [(int(first), int(stop) - 1) for first, stop in zip(edges[::2], edges[1::2], strict=True)]
