"""Partial least squares with 25 components, the mapping that Brain-Score reports (Schrimpf et al. 2018).

Two-block PLS regression in the form of Wold (NIPALS): every component is the direction of the features that covaries
most with the responses; both sides are then freed of it. Features are centred, not scaled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from align.response_models.contract import Fitted, Method, Seen, Spaces, joined

COMPONENTS = 25  # brain-score/vision, metrics/regression_correlation: PLSRegression(n_components=25, scale=False)


@dataclass(frozen=True)
class LinearFit(Fitted):
    """y = (x - ``centre``) ``slopes`` (P, U) + ``level`` (U,), all spaces in one row."""

    centre: np.ndarray
    slopes: np.ndarray
    level: np.ndarray

    def predict(self, spaces: Spaces) -> np.ndarray:
        return np.asarray((joined(spaces) - self.centre) @ self.slopes + self.level)


@dataclass(frozen=True)
class PartialLeastSquares(Method):
    """``components``: fewer where pictures, features or responses leave no covariance."""

    components: int = COMPONENTS
    name: ClassVar[str] = "pls"
    source: ClassVar[str] = "Brain-Score, Schrimpf et al. 2018"

    def fit(self, seen: Seen, prepared: Any = None) -> Fitted:
        x, y = joined(seen.spaces).astype(np.float64), seen.responses.astype(np.float64)
        centre, level = x.mean(axis=0), y.mean(axis=0)
        return LinearFit(centre, pls_slopes(x - centre, y - level, self.components), level)


def pls_slopes(x: np.ndarray, y: np.ndarray, components: int) -> np.ndarray:
    """Slopes (P, U) for centred features (n, P) and responses (n, U), which are overwritten."""
    least = 1e-12 * np.linalg.norm(x) * max(np.linalg.norm(y), np.finfo(np.float64).tiny)
    directions, loadings, weights = [], [], []
    for _ in range(min(components, min(x.shape))):
        shared = x.T @ y
        direction = _leading(shared)
        if np.linalg.norm(shared.T @ direction) <= least:
            break  # nothing is shared any more
        scores = x @ direction
        power = scores @ scores
        on_x, on_y = scores @ x / power, scores @ y / power
        x -= np.outer(scores, on_x)
        y -= np.outer(scores, on_y)
        directions.append(direction)
        loadings.append(on_x)
        weights.append(on_y)
    if not directions:
        return np.zeros((x.shape[1], y.shape[1]))
    turned, across = np.array(directions), np.array(loadings)
    return np.asarray(turned.T @ np.linalg.solve(across @ turned.T, np.array(weights)))


def _leading(shared: np.ndarray) -> np.ndarray:
    """(P,) the left singular vector of (P, U) with the largest singular value."""
    small = shared.T @ shared if shared.shape[1] <= shared.shape[0] else shared @ shared.T
    leading = np.linalg.eigh(small)[1][:, -1]
    direction = shared @ leading if shared.shape[1] <= shared.shape[0] else leading
    return np.asarray(direction / max(np.linalg.norm(direction), np.finfo(np.float64).tiny))
