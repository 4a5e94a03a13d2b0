"""Ridge regression to very many targets: one decomposition of the predictors, a penalty for each target.

The fit is min |y - x w - b|^2 + alpha |w|^2 with b free. In the basis of the predictors' left singular vectors every
penalty costs one product, so thousands of targets (dimensions, voxels) share one decomposition.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import linalg

ALPHAS = (0.0, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4)  # Chen & Bonner 2025, code of `universal_dimensions`
CHOICES = ("gcv", "loo")
_CELLS = 2**27  # numbers of one intermediate array of `errors` with "loo": 1 GiB


class SharedRidge:
    """The predictors ``x`` (n, P), decomposed once. float64; directions without variance are left out.

    Attributes
    ----------
    values
        (r,) eigenvalues of the centred x x^T, all above 0.
    left
        (n, r) left singular vectors.
    """

    def __init__(self, x: np.ndarray) -> None:
        self.mean = np.mean(x, axis=0, dtype=np.float64)
        self.x = x - self.mean
        wide = self.x.shape[0] < self.x.shape[1]
        gram = self.x @ self.x.T if wide else self.x.T @ self.x
        values, vectors = linalg.eigh(gram, check_finite=False, overwrite_a=True)
        kept = values > max(values[-1], 0.0) * max(self.x.shape) * np.finfo(np.float64).eps
        self.values = values[kept]
        vectors = vectors[:, kept]
        self.right: np.ndarray | None = None if wide else vectors
        self.left = vectors if wide else self.x @ vectors / np.sqrt(self.values)

    @property
    def spare(self) -> int:
        """Degrees of freedom that an unpenalised fit leaves: n - 1 - r."""
        return len(self.x) - 1 - len(self.values)

    def fit(self, y: np.ndarray, alphas: Sequence[float] = ALPHAS, choose: str = "gcv") -> SharedFit:
        """Fit targets ``y`` (n, T), each with the one of ``alphas`` that has the least error (see `errors`)."""
        y_mean = np.asarray(np.mean(y, axis=0, dtype=np.float64))
        centred = y - y_mean
        turned = self.left.T @ centred
        best = np.zeros(y.shape[1], dtype=np.int64)
        if len(alphas) > 1:
            best = self.errors(centred, turned, alphas, choose).argmin(axis=0)
        return SharedFit(self, y_mean, turned, np.asarray(alphas, dtype=np.float64)[best])

    def errors(self, y: np.ndarray, turned: np.ndarray, alphas: Sequence[float], choose: str) -> np.ndarray:
        """(A, T) error of every penalty for centred targets (n, T) with ``turned`` = left^T y.

        ``gcv``: generalised cross-validation (Golub, Heath & Wahba 1979), residual sum over squared degrees of
        freedom. ``loo``: mean squared error of leaving one row out, which scikit-learn's `RidgeCV` takes.
        A penalty of 0 that leaves no residual counts by its limit.
        """
        if choose not in CHOICES:
            raise ValueError(f"choose={choose!r} should be one of {', '.join(CHOICES)}")
        return self._gcv(y, turned, alphas) if choose == "gcv" else self._loo(y, turned, alphas)

    def _left_over(self, alpha: float) -> np.ndarray:
        """(r,) share of every direction that stays in the residual, up to a factor where there is no other residual."""
        if alpha == 0.0:
            return np.zeros_like(self.values) if self.spare > 0 else 1.0 / self.values
        return alpha / (self.values + alpha)

    def _gcv(self, y: np.ndarray, turned: np.ndarray, alphas: Sequence[float]) -> np.ndarray:
        squared = np.square(turned)
        outside = np.zeros(y.shape[1])
        if self.spare > 0:
            outside = np.maximum(np.square(y).sum(axis=0) - squared.sum(axis=0), 0.0)
        shares = np.stack([self._left_over(alpha) for alpha in alphas])
        freedom = (shares.sum(axis=1) + max(self.spare, 0))[:, None]
        return _divided(np.square(shares) @ squared + outside, np.square(freedom))

    def _loo(self, y: np.ndarray, turned: np.ndarray, alphas: Sequence[float]) -> np.ndarray:
        n, count = y.shape
        squared, found = np.square(self.left), np.empty((len(alphas), count))
        step = max(1, _CELLS // n)
        for start in range(0, count, step):
            part, cut = turned[:, start : start + step], slice(start, start + step)
            outside = y[:, cut] - self.left @ part if self.spare > 0 else 0.0
            for i, alpha in enumerate(alphas):
                share = self._left_over(alpha)
                free = squared @ share
                if self.spare > 0:
                    free = free + np.maximum(1 - 1 / n - squared.sum(axis=1), 0.0)
                residual = self.left @ (share[:, None] * part) + outside
                found[i, cut] = np.square(_divided(residual, free[:, None])).mean(axis=0)
        return found

    def coordinates(self, x: np.ndarray) -> np.ndarray:
        """(m, r) coordinates of new rows (m, P) along the right singular vectors."""
        centred = x - self.mean
        if self.right is not None:
            return np.asarray(centred @ self.right)
        return np.asarray(centred @ self.x.T @ self.left / np.sqrt(self.values))


def _divided(residual: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Infinite where no freedom is left: such a penalty is not chosen while another has some."""
    return np.divide(residual, freedom, out=np.full_like(residual, np.inf), where=freedom > 0)


class SharedFit:
    """Targets fitted to a `SharedRidge`; ``alpha`` (T,) is the penalty of each."""

    def __init__(self, base: SharedRidge, y_mean: np.ndarray, turned: np.ndarray, alpha: np.ndarray) -> None:
        self.base, self.y_mean, self.turned, self.alpha = base, y_mean, turned, alpha
        root = np.sqrt(base.values)[:, None]
        self.weights = root / (base.values[:, None] + alpha) * turned  # (r, T), in the basis of `coordinates`

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(m, T) for new rows (m, P)."""
        return np.asarray(self.base.coordinates(x) @ self.weights + self.y_mean)

    def slopes(self) -> tuple[np.ndarray, np.ndarray]:
        """Weight (P, T) and bias (T,) of y = x weight + bias; large where P is."""
        base = self.base
        if base.right is not None:
            weight = base.right @ self.weights
        else:
            weight = base.x.T @ (base.left / np.sqrt(base.values) @ self.weights)
        return weight, self.y_mean - base.mean @ weight
