"""How well one set of features predicts another on pictures that were not fitted: Pearson r, mean over folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from align.comparison.ridge import ALPHAS, SharedRidge

Folds = Sequence[tuple[np.ndarray, np.ndarray]]
REGRESSIONS = ("ridge", "ols", "one-to-one")
_FLAT = 1e-10  # deviation of a column, relative to its largest value, up to which it counts as constant


@dataclass(frozen=True)
class Regression:
    """How features predict targets.

    Attributes
    ----------
    kind
        ``ridge``; ``ols``: the least-norm solution without a penalty; ``one-to-one``: the predictor with the highest
        absolute correlation on the fitted rows (all three in Chen & Bonner 2025).
    alphas, choose
        Of ridge: penalties, and how each target's is chosen (see `SharedRidge.errors`).
    standardise
        Whether predictors are divided by their deviation on the fitted rows, so that a penalty means the same for
        layers of large and of small numbers.
    """

    kind: str = "ridge"
    alphas: tuple[float, ...] = ALPHAS
    choose: str = "gcv"
    standardise: bool = True


def predictability(
    x: np.ndarray, y: np.ndarray, folds: Folds, regression: Regression, estimates: np.ndarray | None = None
) -> np.ndarray:
    """(T,) mean over folds of the correlation between targets ``y`` (n, T) and their predictions from ``x`` (n, P).

    ``folds``: pairs (fitted rows, scored rows). ``estimates`` (n, T), where given, receives the predictions of the
    scored rows. A prediction or target without variance counts as r = 0.
    """
    scores = np.zeros((len(folds), y.shape[1]))
    for number, (fitted, scored) in enumerate(folds):
        estimate = _predicted(x[fitted], y[fitted], x[scored], regression)
        scores[number] = column_correlation(estimate, y[scored])
        if estimates is not None:
            estimates[scored] = estimate
    return np.asarray(scores.mean(axis=0))


def _predicted(x: np.ndarray, y: np.ndarray, x_new: np.ndarray, regression: Regression) -> np.ndarray:
    if regression.kind not in REGRESSIONS:
        raise ValueError(f"regression {regression.kind!r} should be one of {', '.join(REGRESSIONS)}")
    deviation = np.std(x, axis=0, dtype=np.float64)
    varied = deviation > _FLAT * np.abs(x).max(axis=0, initial=0.0)
    if not varied.any():
        return np.broadcast_to(y.mean(axis=0), (len(x_new), y.shape[1]))
    scale = deviation[varied] if regression.standardise else 1.0
    x, x_new = x[:, varied] / scale, x_new[:, varied] / scale
    if regression.kind == "one-to-one":
        return _best_column(x, y, x_new)
    alphas = (0.0,) if regression.kind == "ols" else regression.alphas
    return SharedRidge(x).fit(y, alphas, regression.choose).predict(x_new)


def _best_column(x: np.ndarray, y: np.ndarray, x_new: np.ndarray) -> np.ndarray:
    """The predictor with the highest absolute correlation, with its sign."""
    r = _unit(x).T @ _unit(y)
    best = np.abs(r).argmax(axis=0)
    return np.asarray(x_new[:, best] * np.where(r[best, np.arange(y.shape[1])] < 0, -1.0, 1.0))


def column_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(T,) Pearson r of the columns of two (n, T); 0 where one of them does not vary."""
    return np.einsum("ij,ij->j", _unit(a), _unit(b))


def _unit(x: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and length 1 (float64); constant ones are 0."""
    centred = x - x.mean(axis=0, dtype=np.float64)
    length = np.sqrt(np.einsum("ij,ij->j", centred, centred))
    flat = length <= _FLAT * np.sqrt(len(x)) * np.abs(x).max(axis=0, initial=0.0)
    return np.asarray(centred / np.where(flat, np.inf, length))
