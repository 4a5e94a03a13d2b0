"""How well repetitions agree with each other: split-half reliability, with intervals over pictures.

The repetitions of every picture are cut into two random halves of h each and averaged; r is the Pearson correlation of
the halves over pictures, for every channel and sample (or voxel), mean over several cuts. The formula of Spearman
(1910) and Brown (1910) turns it into the reliability of the mean over other numbers of repetitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

N_BOOT = 500
_AT_ONCE = 1 << 22  # values of resampled correlations held at once


def spearman_brown(r: np.ndarray | float, times: float) -> np.ndarray:
    """Reliability of ``times`` as many repetitions as those with reliability ``r``.

    For r of 0 or less, where the formula has no meaning (and a pole), r is returned as it is.
    """
    r = np.asarray(r, dtype=np.float64)
    positive = np.maximum(r, 0.0)
    return np.where(r > 0, times * positive / (1 + (times - 1) * positive), r)


class Reliability:
    """Gathers cuts; the correlations of each are resampled over pictures with the same draws.

    ``shape`` of a trial, (C, T) or (V,); n pictures. Means over samples and over channels are taken of r, before the
    formula; channels or samples that never vary count as r = 0.
    """

    def __init__(self, n: int, shape: tuple[int, ...], seed: int, n_boot: int = N_BOOT) -> None:
        counts = np.random.default_rng([seed, 1]).multinomial(n, np.full(n, 1 / n), size=n_boot)
        self.weights = np.vstack([np.ones(n), counts]) / n  # the first row: every picture once
        self.shape = (shape[0], shape[1] if len(shape) > 1 else 1)
        self.n, self.cuts = n, 0
        self.channel = np.zeros((1 + n_boot, self.shape[0]))
        self.time = np.zeros((1 + n_boot, self.shape[1]))

    def add(self, one: np.ndarray, other: np.ndarray) -> None:
        """Two halves (n, C, T) or (n, V) of one cut."""
        one, other = (part.reshape(self.n, *self.shape) for part in (one, other))
        step = max(1, _AT_ONCE // (len(self.weights) * self.shape[1]))
        for start in range(0, self.shape[0], step):
            part = slice(start, start + step)
            r = _correlations(self.weights, one[:, part], other[:, part])
            self.channel[:, part] += r.mean(axis=2)
            self.time += r.sum(axis=1) / self.shape[0]
        self.cuts += 1

    def report(self, half: int, full: int, names: Sequence[str], times: Sequence[float]) -> dict[str, Any]:
        """JSON-ready; ``half`` repetitions on each side of a cut, ``full`` to extrapolate to.

        ``names`` of the channels (() = numbers), ``times`` of the samples in s (() = none).
        """
        channel, time = self.channel / self.cuts, self.time / self.cuts
        labels = list(names) or [str(i) for i in range(self.shape[0])]
        return {
            "n": self.n,
            "repetitions": full,
            "repetitions_per_half": half,
            "cuts": self.cuts,
            "chance": 0.0,
            "overall": _entry(channel.mean(axis=1), half, full),
            "by_channel": [{"channel": label, **_entry(channel[:, c], half, full)} for c, label in enumerate(labels)],
            "by_time": [{"time": float(t), **_entry(time[:, i], half, full)} for i, t in enumerate(times)],
        }


def _entry(r: np.ndarray, half: int, full: int) -> dict[str, Any]:
    """``r`` (1 + B,): as measured, then resampled. ``ceiling``: highest correlation with the mean of all repetitions
    that a model of the noise-free response can reach, the root of its reliability."""
    reliability = spearman_brown(r, full / half)
    low, high = np.percentile(reliability[1:], [2.5, 97.5])
    return {
        "half": float(r[0]),
        "single": float(spearman_brown(r[0], 1 / half)),
        "full": float(reliability[0]),
        "ci95_full": [float(low), float(high)],
        "ceiling": float(np.sqrt(max(reliability[0], 0.0))),
    }


def _correlations(weights: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pearson r (R, c, T) over pictures of ``one`` and ``other`` (n, c, T), each weighting (R, n) in turn."""
    a, b = (np.asarray(part, dtype=np.float64).reshape(len(part), -1) for part in (one, other))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    mean_a, mean_b = weights @ a, weights @ b
    covariance = weights @ (a * b) - mean_a * mean_b
    variance = (weights @ (a * a) - mean_a**2) * (weights @ (b * b) - mean_b**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = covariance / np.sqrt(variance)
    flat = variance <= 1e-20 * np.maximum(1e-300, (a * a).mean(axis=0) * (b * b).mean(axis=0))
    return np.asarray(np.where(flat, 0.0, r).reshape(len(weights), *one.shape[1:]))
