"""Intervals and p values. The unit of chance is always the stimulus, never a pair of stimuli."""

from __future__ import annotations

import numpy as np

from align.retrieval.people import t_interval as t_interval  # one of the intervals here

N_BOOT = 2000
N_PERM = 9999


def bootstrap_ci(values: np.ndarray, *, n_boot: int = N_BOOT, seed: int = 0, level: float = 0.95) -> list[float]:
    """Percentile interval of the mean of per-stimulus ``values`` (n,), resampling stimuli."""
    values = np.asarray(values, dtype=np.float64)
    rows = np.random.default_rng(seed).integers(0, len(values), size=(n_boot, len(values)))
    tail = 50 * (1 - level)
    low, high = np.percentile(values[rows].mean(axis=1), [tail, 100 - tail])
    return [float(low), float(high)]


def exact_interval(hits: float, n: int) -> list[float]:
    """Exact 95 % interval of a share, ``hits`` of ``n`` (Clopper & Pearson 1934); shared hits of ties may be parts."""
    from scipy.stats import beta

    low = beta.ppf(0.025, hits, n - hits + 1) if hits > 0 else 0.0
    high = beta.ppf(0.975, hits + 1, n - hits) if hits < n else 1.0
    return [float(low), float(high)]


def sign_flip_p(differences: np.ndarray, *, n_perm: int = N_PERM, seed: int = 0) -> float:
    """One-sided paired p: how often random signs give ``differences`` (n,) as large a mean as observed.

    p = (1 + number of flips with mean >= observed) / (1 + n_perm); differences that are all 0 give 1.
    """
    differences = np.asarray(differences, dtype=np.float64)
    rng = np.random.default_rng(seed)
    observed = differences.sum()
    slack = 1e-12 * np.abs(differences).sum()
    signs = rng.integers(0, 2, size=(n_perm, len(differences)), dtype=np.int8) * 2 - 1
    return _p((signs @ differences) >= observed - slack)


def label_permutation_p(read: np.ndarray, true: np.ndarray, *, n_perm: int = N_PERM, seed: int = 0) -> float:
    """p of the number of agreements between two label arrays (n,), permuting which picture belongs to which label."""
    rng = np.random.default_rng(seed)
    observed = np.sum(read == true)
    orders = rng.permuted(np.tile(np.arange(len(true)), (n_perm, 1)), axis=1)
    return _p((read[None] == true[orders]).sum(axis=1) >= observed)


def _p(at_least: np.ndarray) -> float:
    return float((1 + at_least.sum()) / (1 + len(at_least)))
