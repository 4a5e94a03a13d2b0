"""How well responses are predicted, unit by unit: correlation, explained variance, chance, and the picture it finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from align.comparison.null import q_values
from align.comparison.predictability import column_correlation

N_PERM = 1000
Rows = Sequence[np.ndarray]


@dataclass(frozen=True)
class UnitScores:
    """Of U units: ``r`` (mean over folds), ``r2``, one-sided ``p`` by shuffled pictures, false discovery rate ``q``."""

    r: np.ndarray
    r2: np.ndarray
    p: np.ndarray
    q: np.ndarray


def unit_scores(
    responses: np.ndarray, estimates: np.ndarray, folds: Rows, seed: int, n_perm: int = N_PERM
) -> UnitScores:
    """Score predictions (n, U) of responses (n, U). ``folds``: the rows that one fit predicts, each row once at most.

    Correlations stay within folds: the mean of a prediction differs between fits, against the mean of what they
    predict, and over all rows that would pull the correlation of a unit of noise below 0.
    """
    r = np.mean([column_correlation(responses[rows], estimates[rows]) for rows in folds], axis=0)
    p = permutation_p(responses, estimates, folds, seed, n_perm)
    return UnitScores(r, explained(responses, estimates, folds), p, q_values(p))


def explained(responses: np.ndarray, estimates: np.ndarray, folds: Rows) -> np.ndarray:
    """(U,) 1 - squared error over squared distance from the mean of the scored rows; 0 for a unit that never varies."""
    rows = np.concatenate(list(folds))
    error = np.square(responses[rows] - estimates[rows], dtype=np.float64).sum(axis=0)
    total = np.square(responses[rows] - responses[rows].mean(axis=0), dtype=np.float64).sum(axis=0)
    return np.asarray(np.where(total > 0, 1 - error / np.where(total > 0, total, 1.0), 0.0))


def permutation_p(
    responses: np.ndarray, estimates: np.ndarray, folds: Rows, seed: int, n_perm: int = N_PERM
) -> np.ndarray:
    """(U,) one-sided p: shuffled pictures of a fold whose correlation is at least as high, 1 added above and below.

    Within a fold that is exact, for its responses have no part in its predictions. Scores of several folds depend on
    each other (each is fitted to what the others score), and shuffling them apart would call noise significant too
    often. Twice the mean of their p is valid however they depend (Vovk & Wang 2020, Biometrika 107); it
    is conservative, and at least 2 / (1 + n_perm).
    """
    rng = np.random.default_rng([seed, 3])
    found = [_p_of_fold(_unit(responses[rows]), _unit(estimates[rows]), rng, n_perm) for rows in folds]
    return found[0] if len(found) == 1 else np.minimum(1.0, 2 * np.mean(found, axis=0))


def _p_of_fold(a: np.ndarray, b: np.ndarray, rng: np.random.Generator, n_perm: int) -> np.ndarray:
    observed = np.einsum("nu,nu->u", a, b) - 1e-6
    at_least = np.ones(a.shape[1])
    for _ in range(n_perm):
        at_least += np.einsum("nu,nu->u", a, b[rng.permutation(len(b))]) >= observed
    return np.asarray(at_least / (1 + n_perm))


def _unit(x: np.ndarray) -> np.ndarray:
    """Columns (n, U) of mean 0 and length 1 in float32; constant ones are 0."""
    centred = x - x.mean(axis=0, dtype=np.float64)
    length = np.sqrt(np.square(centred).sum(axis=0))
    return np.asarray(centred / np.where(length > 1e-12, length, np.inf), dtype=np.float32)


def identification(
    responses: np.ndarray, estimates: np.ndarray, folds: Rows, shrinkage: float = 0.5
) -> dict[str, float]:
    """The seen picture as the one whose predicted response fits best (Kay et al. 2008): top-1 among those of its fold.

    Responses and predictions are whitened by what predictions of the other folds leave over (as
    `align.training.encoding` does; of one fold by its own spread of predictions alone, without whitening), then
    compared by cosine. ``chance``: of a decoder that knows nothing.
    """
    import torch

    from align.retrieval import scores
    from align.training.whitening import whitener

    hits, chances = [], []
    for k, rows in enumerate(folds):
        others = [other for i, other in enumerate(folds) if i != k]
        level, spread = responses[rows].mean(axis=0), responses[rows].std(axis=0)
        if others:
            rest = np.concatenate(others)
            level, spread = responses[rest].mean(axis=0), responses[rest].std(axis=0)
        spread = np.where(spread > 0, spread, 1.0)
        seen, said = (responses[rows] - level) / spread, (estimates[rows] - level) / spread
        if others:
            left = torch.from_numpy((responses[rest] - estimates[rest]) / spread)
            turn = whitener(left - left.mean(0), shrinkage).double().numpy()
            seen, said = seen @ turn, said @ turn
        similarity = scores(seen.astype(np.float32), said.astype(np.float32))
        hits.append(float((similarity.argmax(axis=1) == np.arange(len(rows))).mean() * len(rows)))
        chances.append(1.0)
    count = sum(len(rows) for rows in folds)
    return {"top1": sum(hits) / count, "chance": len(chances) / count}
