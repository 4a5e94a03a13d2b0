"""Principal components of one layer, fitted on some pictures and read on others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg


@dataclass(frozen=True)
class Components:
    """Axes of one layer, from the largest variance to the smallest.

    ``mean`` and ``scale`` (D,): what is taken off and divided by first (scale is 1 without z-scoring); ``axes`` (k, D)
    orthonormal rows; ``variance`` (k,) of the fitted pictures; ``explained`` (k,) shares of the whole variance.
    """

    mean: np.ndarray
    scale: np.ndarray
    axes: np.ndarray
    variance: np.ndarray
    explained: np.ndarray

    def scores(self, features: np.ndarray) -> np.ndarray:
        """(n, k) of pictures (n, D)."""
        return np.asarray((features - self.mean) / self.scale @ self.axes.T)

    def kept(self, scores: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Features (n, D) rebuilt from the components ``which`` alone; the others are zero."""
        return np.asarray(scores[:, which] @ self.axes[which] * self.scale + self.mean)


def fit_components(features: np.ndarray, most: int | None = None, zscore: bool = False) -> Components:
    """All components up to the rank of the features (n, D), or the first ``most``; float64.

    ``zscore`` divides channels by their deviation first (a variant of Chen & Bonner 2025). Signs are fixed: the largest
    loading of an axis is positive. A layer that is the same for all pictures has no components.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    centred = features - mean
    deviation = centred.std(axis=0)
    varied = deviation > 1e-10 * np.abs(features).max(axis=0, initial=0.0)
    scale = np.where(varied, deviation, 1.0) if zscore else np.ones_like(mean)
    _, singular, axes = linalg.svd(centred * varied / scale, full_matrices=False, check_finite=False)
    # numpy's `matrix_rank`, with the precision of the float16 or float32 features rather than that of the sums
    rank = int((singular > singular.max(initial=0.0) * max(features.shape) * np.finfo(np.float32).eps).sum())
    variance = np.square(singular) / max(len(features) - 1, 1)
    count = min(rank, rank if most is None else most)
    axes = axes[:count]
    signs = np.sign(axes[np.arange(count), np.abs(axes).argmax(axis=1)])
    explained = variance / max(variance.sum(), np.finfo(np.float64).tiny)
    return Components(mean, scale, axes * signs[:, None], variance[:count], explained[:count])
