"""Corrections that look at the whole test set at once: CSLS, Sinkhorn, Hungarian assignment.

They use that the test pictures are many and mostly seen once, which a decoder of a single recording cannot know. Their
scores therefore stand under ``transductive``, beside the plain ones and never instead of them.
"""

from __future__ import annotations

import numpy as np

from align.errors import UserError


def csls(similarity: np.ndarray, k: int = 10) -> np.ndarray:
    """Cross-domain similarity local scaling (Conneau et al. 2018, section 2.3, k = 10), (n, K) to (n, K).

    2 s(i, j) minus the mean similarity of row i to its k nearest columns and of column j to its k nearest rows: hubs
    are held down.
    """
    similarity = np.asarray(similarity, dtype=np.float64)
    rows = -np.sort(-similarity, axis=1)[:, :k].mean(axis=1, keepdims=True)
    columns = -np.sort(-similarity, axis=0)[:k].mean(axis=0, keepdims=True)
    corrected: np.ndarray = 2 * similarity - rows - columns
    return corrected


def sinkhorn(similarity: np.ndarray, *, sharpness: float = 10.0, n_iter: int = 50) -> np.ndarray:
    """Log of the matrix with equal row sums and equal column sums nearest to exp(sharpness z), (n, K) to (n, K).

    z = similarity over its standard deviation, so scores of any unit are treated alike. Alternating normalisation in
    the log domain (Sinkhorn & Knopp 1967; as entropic transport Cuturi 2013, algorithm 1): every picture gets the same
    mass, so hubs are held down. ``sharpness`` and ``n_iter`` are fixed constants, not tuned on any test set. A
    constant matrix stays constant. The last step is a row step: rows sum to 1, columns to n / K nearly.
    """
    similarity = np.asarray(similarity, dtype=np.float64)
    log = sharpness * similarity / (similarity.std() or 1.0)
    shift = np.log(log.shape[0] / log.shape[1])
    for _ in range(n_iter):
        log = log - _log_sum(log, axis=0) + shift
        log = log - _log_sum(log, axis=1)
    return log


def hungarian(similarity: np.ndarray) -> np.ndarray:
    """(n,) column given to each row by the one-to-one assignment of the greatest total similarity (n, K), n <= K.

    Kuhn 1955; solved by ``scipy.optimize.linear_sum_assignment``. It assumes that no picture is seen twice, the
    strongest use of the test set there is. Raises `UserError` when there are more rows than columns.
    """
    from scipy.optimize import linear_sum_assignment

    similarity = np.asarray(similarity, dtype=np.float64)
    if similarity.shape[0] > similarity.shape[1]:
        raise UserError(f"{similarity.shape[0]} rows cannot each have their own of {similarity.shape[1]} candidates")
    column: np.ndarray = linear_sum_assignment(similarity, maximize=True)[1]
    return column


def _log_sum(values: np.ndarray, axis: int) -> np.ndarray:
    top = values.max(axis=axis, keepdims=True)
    total: np.ndarray = top + np.log(np.exp(values - top).sum(axis=axis, keepdims=True))
    return total
