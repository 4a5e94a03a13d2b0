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


def sinkhorn(similarity: np.ndarray, *, sharpness: float | None = None, n_iter: int = 50) -> np.ndarray:
    """Log of the matrix with equal row sums and equal column sums nearest to exp(sharpness z), (n, K) to (n, K).

    z = similarity without its row and column means, over the standard deviation of what is left: scores of any unit
    are treated alike. Alternating normalisation in the log domain (Sinkhorn & Knopp 1967; as entropic transport
    Cuturi 2013, algorithm 1): every picture gets the same mass, so hubs are held down. The last step is a row step:
    rows sum to 1, columns to n / K nearly. A matrix of row and column effects alone becomes constant.

    ``sharpness`` None takes `sharpness_of`, which knows the number of candidates and nothing else, so that it cannot
    be picked on a test set.
    """
    similarity = np.asarray(similarity, dtype=np.float64)
    sharpness = sharpness_of(similarity.shape[1]) if sharpness is None else sharpness
    centred = similarity - similarity.mean(axis=0) - similarity.mean(axis=1, keepdims=True) + similarity.mean()
    spread = centred.std()
    if spread <= 1e-9 * np.abs(similarity).max():  # rounding errors of the means: nothing is left
        return np.full(similarity.shape, -np.log(similarity.shape[1]))
    log = sharpness * centred / spread
    shift = np.log(log.shape[0] / log.shape[1])
    for _ in range(n_iter):
        log = log - _log_sum(log, axis=0) + shift
        log = log - _log_sum(log, axis=1)
    return log


def sharpness_of(candidates: int) -> float:
    """sqrt(2 ln K), in standard deviations of the scores.

    For normal scores of equal spread, those of right pairs raised by d standard deviations, a row's posterior over
    its candidates is softmax(d z); and sqrt(2 ln K) is where the highest of K wrong scores lies for large K. So it is
    the right sharpness for a decoder at the edge of finding the right one among K.
    """
    return float(np.sqrt(2 * np.log(max(candidates, 2))))


def hungarian(similarity: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """(n,) column given to each row by the one-to-one assignment of the greatest total similarity (n, K), n <= K.

    Kuhn 1955; solved by ``scipy.optimize.linear_sum_assignment``. It assumes that no picture is seen twice, the
    strongest use of the test set there is. Rows and columns are put in a random order first: of equally good
    assignments the solver would else take the one nearest to the diagonal, where the right answers usually are.
    Raises `UserError` when there are more rows than columns.
    """
    from scipy.optimize import linear_sum_assignment

    similarity = np.asarray(similarity, dtype=np.float64)
    if similarity.shape[0] > similarity.shape[1]:
        raise UserError(f"{similarity.shape[0]} rows cannot each have their own of {similarity.shape[1]} candidates")
    rng = np.random.default_rng([seed, 5])
    rows, columns = (rng.permutation(size) for size in similarity.shape)
    given = np.empty(len(rows), dtype=np.int64)
    given[rows] = columns[linear_sum_assignment(similarity[np.ix_(rows, columns)], maximize=True)[1]]
    return given


def _log_sum(values: np.ndarray, axis: int) -> np.ndarray:
    top = values.max(axis=axis, keepdims=True)
    total: np.ndarray = top + np.log(np.exp(values - top).sum(axis=axis, keepdims=True))
    return total
