"""Identification of a reconstruction among true pictures, by correlation of features."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

_BLOCK = 16384  # features held in double precision at once
_TIE = 1e-10


def correlations(recon_features: np.ndarray, target_features: np.ndarray) -> np.ndarray:
    """Pearson r of every target (rows i) with every reconstruction (columns j): (n, n). 0 where one is constant."""
    target, recon = _Rows(target_features), _Rows(recon_features)
    r = np.zeros((len(target.values), len(recon.values)))
    for start in range(0, target.values.shape[1], _BLOCK):
        r += target.centred(start) @ recon.centred(start).T
    return r * target.scale[:, None] * recon.scale[None]


def correlation_distance(recon_features: np.ndarray, target_features: np.ndarray) -> np.ndarray:
    """1 - Pearson r of each matched pair, (n,): the score of the EffNet and SwAV columns. 1 where one is constant."""
    r = _paired(recon_features, target_features)
    distance: np.ndarray = 1 - r
    return distance


def two_way(recon_features: np.ndarray, target_features: np.ndarray) -> np.ndarray:
    """Share of other *true pictures* that reconstruction j resembles less than its own target: (n,), chance .5.

    As coded by Brain-Diffuser and MindEye (the MindEye2 appendix describes reconstructions as distractors instead):
    all pairs, features flattened, a tie is a failure. The score is the mean. A decoder that only knows which of k
    equally frequent categories was shown already reaches `category_ceiling(k)`.
    """
    return two_way_of(correlations(recon_features, target_features))


def n_way(recon_features: np.ndarray, target_features: np.ndarray, n_candidates: int) -> np.ndarray:
    """Chance that the own target wins among ``n_candidates`` true pictures drawn at random, in closed form: (n,)."""
    return n_way_of(correlations(recon_features, target_features), n_candidates)


def two_way_of(r: np.ndarray, within: np.ndarray | None = None) -> np.ndarray:
    """`two_way` from correlations r (n, n) of targets (rows) with reconstructions (columns): (n,).

    ``r.T`` gives the other convention, reconstructions as distractors. ``within``: category of each stimulus (n,);
    only distractors of the own category count then, NaN where there are none.
    """
    n = len(r)
    if within is None:
        return (n - 1 - _not_worse(r)) / (n - 1)
    same = np.asarray(within)[:, None] == np.asarray(within)[None]
    others = same.sum(axis=0) - 1
    lost = ((r >= np.diagonal(r)[None] - _TIE) & same).sum(axis=0) - 1
    share: np.ndarray = np.where(others > 0, 1 - lost / np.maximum(others, 1), np.nan)
    return share


def nearest_is_target(
    recon_features: np.ndarray, target_features: np.ndarray, known_features: np.ndarray
) -> np.ndarray:
    """1 where a reconstruction resembles its target more than every known picture (K, F), else 0: (n,).

    Known are the training pictures; a generator or decoder that hands out what it has seen fails. A tie is a failure.
    """
    known = correlations(recon_features, known_features).max(axis=0)
    found: np.ndarray = (_paired(recon_features, target_features) > known + _TIE).astype(np.float64)
    return found


def n_way_of(r: np.ndarray, n_candidates: int) -> np.ndarray:
    """`n_way` from correlations r (n, n), targets in rows: expected top-1 among ``n_candidates``, (n,).

    The expectation over all sets of k - 1 distractors drawn without replacement: with m better or equal distractors
    among n - 1 it is C(n - 1 - m, k - 1) / C(n - 1, k - 1). Chance 1 / k; ``n_candidates`` = 2 is `two_way_of`.
    """
    n = len(r)
    if not 2 <= n_candidates <= n:
        raise ValueError(f"{n_candidates} candidates of {n} pictures; give 2 to {n}")
    m = _not_worse(r)
    k = n_candidates - 1
    possible = n - 1 - m >= k
    safe = np.where(possible, m, 0)
    log = _log_choose(n - 1 - safe, k) - _log_choose(np.full(n, n - 1), k)
    return np.where(possible, np.exp(log), 0.0)


def category_ceiling(k: int) -> float:
    """Two-way score of knowing nothing but which of k equally frequent categories was shown: 1 - 1 / (2 k)."""
    return 1 - 1 / (2 * k)


def category_knowledge(labels: np.ndarray) -> float:
    """What knowing the category, and guessing inside it, is worth in two-way for these labels (n,).

    Distractors of another category are beaten, those of the own one half of the time. For k equally frequent
    categories and many stimuli this is `category_ceiling(k)`.
    """
    _, own, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    n = len(own)
    return float(1 - (counts[own] - 1).mean() / (2 * (n - 1)))


def _not_worse(r: np.ndarray) -> np.ndarray:
    """Per column j: how many other rows are at least as high as the diagonal, rounding aside."""
    count: np.ndarray = (r >= np.diagonal(r)[None] - _TIE).sum(axis=0) - 1
    return count


def _paired(recon_features: np.ndarray, target_features: np.ndarray) -> np.ndarray:
    """Pearson r of each matched pair, (n,). 0 where one is constant."""
    target, recon = _Rows(target_features), _Rows(recon_features)
    r = np.zeros(len(target.values))
    for start in range(0, target.values.shape[1], _BLOCK):
        r += (target.centred(start) * recon.centred(start)).sum(axis=1)
    matched: np.ndarray = r * target.scale * recon.scale
    return matched


class _Rows:
    """Feature rows (n, F) with their means and inverse norms; ``scale`` is 0 for a constant row."""

    def __init__(self, features: np.ndarray) -> None:
        self.values = np.asarray(features).reshape(len(features), -1)
        self.mean = self.values.mean(axis=1, dtype=np.float64, keepdims=True)
        square = np.zeros(len(self.values))
        for start in range(0, self.values.shape[1], _BLOCK):
            square += (self.centred(start) ** 2).sum(axis=1)
        norm = np.sqrt(square)
        flat = norm <= 1e-6 * np.sqrt(self.values.shape[1]) * np.maximum(np.abs(self.mean[:, 0]), 1e-6)
        self.scale = np.where(flat, 0.0, 1 / np.where(flat, 1.0, norm))

    def centred(self, start: int) -> np.ndarray:
        block: np.ndarray = self.values[:, start : start + _BLOCK].astype(np.float64) - self.mean
        return block


def _log_choose(n: np.ndarray, k: int) -> np.ndarray:
    value: np.ndarray = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return value
