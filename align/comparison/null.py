"""Chance for many dimensions at once: p from shuffled pictures, false discovery rate, rank correlations."""

from __future__ import annotations

import numpy as np
from scipy import stats


def p_values(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """(T,) one-sided p of every value: (1 + null values at or above it) / (1 + all of them).

    ``null`` (N,) is shared by all: scores of N shuffled dimensions. The smallest p is 1 / (1 + N).
    """
    ordered = np.sort(null)
    at_or_above = len(ordered) - np.searchsorted(ordered, observed - 1e-12, side="left")
    return np.asarray((1 + at_or_above) / (1 + len(ordered)))


def q_values(p: np.ndarray) -> np.ndarray:
    """(T,) false discovery rates of Benjamini & Hochberg (1995): the smallest level at which each is accepted."""
    return np.asarray(stats.false_discovery_control(p)) if len(p) else np.zeros(0)


def shuffled(targets: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(n, count): dimensions of (n, T) drawn with replacement, the pictures of each in an order of its own."""
    drawn = targets[:, rng.integers(targets.shape[1], size=count)]
    return rng.permuted(drawn, axis=0)


def rank_correlation(a: np.ndarray, b: np.ndarray, given: np.ndarray | None = None) -> float:
    """Spearman's correlation of two (T,); with ``given`` (T,) the partial one: that of the ranks' residuals."""
    x, y = stats.rankdata(a), stats.rankdata(b)
    if given is not None:
        z = stats.rankdata(given)
        x, y = _residual(x, z), _residual(y, z)
    x, y = x - x.mean(), y - y.mean()
    length = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / length) if length > 0 else 0.0


def _residual(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    x, z = x - x.mean(), z - z.mean()
    return np.asarray(x - z * (x @ z) / max(z @ z, np.finfo(np.float64).tiny))
