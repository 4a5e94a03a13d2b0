"""Normalised cut: groups of patches whose features point the same way (Shi & Malik 2000), of any number of patches.

Patches are alike by exp(-(1 - cosine) / `SHARP`), as in AlignedCut (Yang et al. 2024, arXiv 2406.18344). Eigenvectors
are those of a sample; all other patches get theirs by the formula of Nyström, which gives back those of the sample.
Groups are read off by a pivoted QR decomposition (Damle, Minden & Ying 2019), which needs no random start.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

SHARP = 0.3


def affinity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) in (0, 1] of features (n, U), (m, U); a feature of length 0 has the cosine 0 with all."""
    return np.asarray(np.exp((_unit(a) @ _unit(b).T - 1) / SHARP))


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True).astype(np.float64)
    return np.asarray(rows / np.where(length > 0, length, 1.0))


@dataclass(frozen=True)
class NormalisedCut:
    """K groups of a sample (S, U). ``vectors`` (S, K) eigenvectors, ``values`` (K,), ``turn`` (K, K): groups of them.

    Group 0 is the largest one of the sample.
    """

    sample: np.ndarray
    vectors: np.ndarray
    values: np.ndarray
    turn: np.ndarray

    @classmethod
    def of(cls, sample: np.ndarray, count: int) -> NormalisedCut:
        """``count`` groups of features (S, U)."""
        alike = affinity(sample, sample)
        degree = np.sqrt(alike.sum(axis=1))
        last = len(sample) - 1
        kept = (last - count + 1, last)
        values, vectors = linalg.eigh(alike / degree[:, None] / degree, subset_by_index=kept, overwrite_a=True)
        vectors = vectors / degree[:, None]
        vectors /= np.linalg.norm(vectors, axis=0)
        _, _, pivots = linalg.qr(vectors.T, pivoting=True)
        left, _, right = linalg.svd(vectors[pivots[:count]].T)
        turn = left @ right
        labels = np.abs(vectors @ turn).argmax(axis=1)
        # groups by size; one that no patch of the sample is in comes last
        sizes = np.bincount(labels, minlength=count)
        return cls(sample, vectors, values, turn[:, np.argsort(-sizes, kind="stable")])

    def labels(self, features: np.ndarray, block: int = 4096) -> np.ndarray:
        """(n,) group of each patch (n, U)."""
        found = []
        for start in range(0, len(features), block):
            alike = affinity(features[start : start + block], self.sample)
            vectors = alike @ self.vectors / alike.sum(axis=1, keepdims=True) / self.values
            found.append(np.abs(vectors @ self.turn).argmax(axis=1))
        return np.concatenate(found)
