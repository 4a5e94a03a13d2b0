"""Layers compared with brains by rank correlation of dissimilarities: ceilings, choice of layer, resampling.

Everywhere ``models`` are layers (L) and ``subjects`` brains (S), each a `RankedRdm` of the same pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from align.comparison.rdm import RankedRdm, mean_of_subjects, pairs_of, partial_correlation, weighted_correlation


def similarities(
    models: Sequence[RankedRdm], subjects: Sequence[RankedRdm], weights: np.ndarray | None = None
) -> np.ndarray:
    """(L, S) Spearman correlations, where pair i of pictures stands ``weights[i]`` times."""
    return unit_ranks(models, weights) @ unit_ranks(subjects, weights).T


def unit_ranks(rdms: Sequence[RankedRdm], weights: np.ndarray | None = None) -> np.ndarray:
    """(R, pairs) ranks of weighted mean 0 and length 1, so that products are correlations; constant ones are 0."""
    ranks = np.stack([rdm.ranks(weights) for rdm in rdms])
    w = np.ones(ranks.shape[1]) if weights is None else weights
    ranks -= (ranks @ w / max(w.sum(), 1.0))[:, None]
    ranks *= np.sqrt(w)
    length = np.linalg.norm(ranks, axis=1, keepdims=True)
    return np.asarray(ranks / np.where(length > 0, length, np.inf))


@dataclass(frozen=True)
class Resamples:
    """How often pictures (B, K) and subjects (B, S) are drawn in B resamples."""

    pictures: np.ndarray
    subjects: np.ndarray

    @classmethod
    def draw(cls, n_pictures: int, n_subjects: int, count: int, rng: np.random.Generator) -> Resamples:
        """Pictures and subjects with replacement, independently."""
        sides = (rng.multinomial(n, np.full(n, 1 / n), size=count) for n in (n_pictures, n_subjects))
        return cls(*sides)

    def pair_weights(self, number: int) -> np.ndarray:
        """(pairs,) of one resample; a picture drawn twice makes no pair with itself."""
        counts = self.pictures[number]
        rows, columns = pairs_of(len(counts))
        return np.asarray(counts[rows] * counts[columns], dtype=np.float64)


def resampled(models: Sequence[RankedRdm], subjects: Sequence[RankedRdm], drawn: Resamples) -> np.ndarray:
    """(B, L) similarity, mean over the drawn subjects, of every resample."""
    found = np.empty((len(drawn.pictures), len(models)))
    for number, people in enumerate(drawn.subjects):
        found[number] = similarities(models, subjects, drawn.pair_weights(number)) @ people / people.sum()
    return found


def noise_ceiling(rdms: np.ndarray) -> tuple[float | None, float]:
    """Bounds of what a perfect model reaches (Nili et al. 2014), from subjects' dissimilarities (S, pairs).

    Mean over subjects of the rank correlation with the mean of all subjects' ranks (upper), and with that of the other
    subjects (lower; None for one subject, whose upper bound says nothing). A subject whose dissimilarities are all the
    same counts as 0.
    """
    whole = mean_of_subjects(rdms)
    upper = float(np.mean([_spearman(rdm, whole) for rdm in rdms]))
    if len(rdms) < 2:
        return None, upper
    others = [mean_of_subjects(np.delete(rdms, i, axis=0)) for i in range(len(rdms))]
    return float(np.mean([_spearman(rdm, rest) for rdm, rest in zip(rdms, others, strict=True)])), upper


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    return weighted_correlation(stats.rankdata(a), stats.rankdata(b))


def between_subjects(subjects: Sequence[RankedRdm], given: RankedRdm | None = None) -> float | None:
    """Mean rank correlation over pairs of subjects; ``given``: with what a layer shares with each of them taken out.

    How much a layer lowers it says how much of what subjects have in common lies in that layer. None for one subject.
    """
    ranks = [rdm.ranks() for rdm in subjects]
    pairs = list(combinations(ranks, 2))
    if not pairs:
        return None
    if given is None:
        return float(np.mean([weighted_correlation(a, b) for a, b in pairs]))
    layer = given.ranks()
    return float(np.mean([partial_correlation(a, b, layer) for a, b in pairs]))


def halves(n_pictures: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of even and of odd number: on the first a layer is chosen, on the second scored (Chen & Bonner 2025)."""
    return np.arange(0, n_pictures, 2), np.arange(1, n_pictures, 2)


def restricted(rdm: np.ndarray, n_pictures: int, pictures: np.ndarray) -> np.ndarray:
    """The pairs (pairs,) of some ``pictures`` alone, in their order."""
    square = np.zeros((n_pictures, n_pictures), dtype=rdm.dtype)
    square[pairs_of(n_pictures)] = rdm
    square += square.T
    part = square[np.ix_(pictures, pictures)]
    return np.asarray(part[pairs_of(len(pictures))])
