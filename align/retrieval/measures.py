"""Retrieval scores: ranks, top-k, both directions, chance, bootstrap interval, permutation p.

Conventions, the same everywhere in the project:

* ``similarity[i, j]`` = cosine of brain row i and candidate picture j. ``brain_to_image`` ranks the pictures of one
  row; ``image_to_brain`` ranks the brain rows of one column.
* Ties are resolved fairly, never in our favour: with g candidates strictly better than the right one and t others equal
  to it, every order of the t + 1 is equally likely; rank and hits are expectations over those orders. A decoder that
  says the same to everything scores chance.
* A smaller pool is scored by formula, not by drawing: ``pool=P`` gives the expectation over all pools that hold the
  right candidate and P - 1 of the others (hypergeometric), so it adds no Monte-Carlo noise.

Corrections that look at the whole test set live in `align.retrieval.transductive`; ranks among more candidates than a
matrix can hold in `align.retrieval.ranks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from align.errors import UserError
from align.retrieval.ranks import unit_rows
from align.retrieval.transductive import csls

_CHUNK = 2**21  # resampled indices held at once


def scores(embeds: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Cosine similarity float64 (n, K) of brain embeds (n, E) and candidate picture embeds (K, E).

    A row of zeros (a decoder that says nothing) has similarity 0 to everything. Raises `UserError` on NaN, infinity or
    widths that differ.
    """
    if embeds.ndim != 2 or candidates.ndim != 2 or embeds.shape[1] != candidates.shape[1]:
        raise UserError(f"embeds {embeds.shape} and candidates {candidates.shape} must be (n, E) and (K, E)")
    return unit_rows(embeds, "embeds") @ unit_rows(candidates, "candidates").T


def retrieve(
    similarity: np.ndarray,
    target_index: np.ndarray,
    *,
    pool: int | None = None,
    seed: int = 0,
    n_boot: int = 2000,
    n_perm: int = 2000,
) -> dict[str, Any]:
    """Score one direction: rows are queries, columns candidates, ``target_index`` (n,) the right column of each row.

    Returns ``top1, top5, median_rank, n, candidates, chance_top1, chance_top5, ci95_top1, p_permutation``, JSON-ready.
    The interval is a percentile bootstrap over queries (the candidates stay); p = (1 + #>=) / (1 + ``n_perm``) of top1
    under random pairings of queries and targets. Either is None when its count is 0.

    Raises
    ------
    UserError
        NaN or infinity, target outside the candidates, pool smaller than 1 or larger than the candidates.
    """
    similarity, target_index, size = _checked(similarity, target_index, pool)
    better, equal = _beaten_by(similarity, target_index)
    total = similarity.shape[1]
    matrix = top1_matrix(similarity, target_index, pool=pool)
    thinning = (size - 1) / max(total - 1, 1)
    return {
        "top1": float(expected_hits(better, equal, 1, candidates=total, pool=size).mean()),
        "top5": float(expected_hits(better, equal, 5, candidates=total, pool=size).mean()),
        "median_rank": float(np.median(1 + (better + equal / 2) * thinning)),
        "n": len(target_index),
        "candidates": size,
        "chance_top1": 1 / size,
        "chance_top5": min(5, size) / size,
        "ci95_top1": bootstrap_interval([np.diag(matrix)], seed=seed, n_boot=n_boot),
        "p_permutation": permutation_p([matrix], seed=seed, n_perm=n_perm),
    }


def both_directions(
    similarity: np.ndarray, target_index: np.ndarray | None = None, **options: Any
) -> dict[str, dict[str, Any]]:
    """Score ``similarity`` (n brain rows, K pictures) both ways; ``options`` as in `retrieve`.

    ``target_index`` (n,): right picture of each row, 0..n-1 if None. In ``image_to_brain`` the queries are the n right
    pictures and the candidates the n brain rows, so extra candidate pictures play no part there. Raises `UserError`
    when two rows belong to one picture: average them first.
    """
    index = np.arange(len(similarity)) if target_index is None else np.asarray(target_index)
    if len(np.unique(index)) != len(index):
        raise UserError("several rows belong to one picture; average the repetitions before scoring both directions")
    forward = retrieve(similarity, index, **options)
    backward = retrieve(np.asarray(similarity)[:, index].T, np.arange(len(index)), **options)
    return {"brain_to_image": forward, "image_to_brain": backward}


def report(similarity: np.ndarray, target_index: np.ndarray | None = None, **options: Any) -> dict[str, Any]:
    """The ``retrieval`` part of report.json: both directions, and ``transductive.csls`` beside them.

    ``csls`` carries the keys of its brain_to_image score, and its other direction under ``image_to_brain``.
    """
    plain = both_directions(similarity, target_index, **options)
    corrected = both_directions(csls(similarity), target_index, **options)
    together = {**corrected["brain_to_image"], "image_to_brain": corrected["image_to_brain"]}
    return {**plain, "transductive": {"csls": together}}


def expected_hits(
    better: np.ndarray, equal: np.ndarray, k: int, *, candidates: int | None = None, pool: int | None = None
) -> np.ndarray:
    """(n,) chance that the right candidate is among the first ``k``, in [0, 1].

    ``better`` (n,) counts candidates above the right one, ``equal`` (n,) others tied with it: every order of the tied
    ones is equally likely. With ``pool`` the mean over all pools of that size out of ``candidates``.
    """
    better, equal = np.asarray(better), np.asarray(equal)
    if pool is None or pool == candidates:
        hits: np.ndarray = np.clip(k - better, 0, equal + 1) / (equal + 1)
        return hits
    if candidates is None or not 1 <= pool <= candidates:
        raise UserError(f"pool={pool} must lie between 1 and the number of candidates, {candidates}")
    return _HitTable(candidates, pool, k).expect(better, equal)


def per_stimulus(similarity: np.ndarray) -> dict[str, dict[str, list[float]]]:
    """Expected top-1 and top-5 hit and the rank of every stimulus, both ways; similarity (n, n), right on the diagonal.

    It is what paired comparisons and intervals over stimuli of several runs are made of.
    """
    index = np.arange(len(similarity))
    found = {}
    for direction, values in (("brain_to_image", similarity), ("image_to_brain", similarity.T)):
        better, equal = _beaten_by(values, index)
        found[direction] = {
            "top1": expected_hits(better, equal, 1).tolist(),
            "top5": expected_hits(better, equal, 5).tolist(),
            "rank": (1 + better + equal / 2).tolist(),
        }
    return found


def top1_matrix(similarity: np.ndarray, target_index: np.ndarray, *, pool: int | None = None) -> np.ndarray:
    """(n, n): expected top-1 hit of query i if target j were its right answer; the diagonal holds the real hits."""
    similarity, target_index, size = _checked(similarity, target_index, pool)
    if size == similarity.shape[1]:
        best = similarity == similarity.max(axis=1, keepdims=True)
        return best[:, target_index] / best.sum(axis=1, keepdims=True)
    table = _HitTable(similarity.shape[1], size, 1)
    matrix = np.empty((len(similarity), len(similarity)))
    for row, values in enumerate(similarity):
        order = np.sort(values)
        upto = np.searchsorted(order, values[target_index], side="right")
        below = np.searchsorted(order, values[target_index], side="left")
        matrix[row] = table.expect(len(order) - upto, upto - below - 1)
    return matrix


def bootstrap_interval(
    groups: Sequence[np.ndarray], weights: Sequence[float] | None = None, *, seed: int = 0, n_boot: int = 2000
) -> list[float] | None:
    """95 % percentile interval of the weighted mean of group means; items are resampled within each group (n_g,).

    Groups are sets of pictures that are not shared (subjects who saw different pictures); equal weights if None.
    """
    if n_boot == 0:
        return None
    rng = np.random.default_rng([seed, 1])
    total = np.zeros(n_boot)
    for values, weight in zip(groups, _weights(groups, weights), strict=True):
        for rows in _chunks(n_boot, len(values)):
            drawn = rng.integers(0, len(values), size=(rows.stop - rows.start, len(values)))
            total[rows] += weight * values[drawn].mean(axis=1)
    low, high = np.percentile(total, [2.5, 97.5])
    return [float(low), float(high)]


def permutation_p(
    matrices: Sequence[np.ndarray], weights: Sequence[float] | None = None, *, seed: int = 0, n_perm: int = 2000
) -> float | None:
    """One-sided p of the weighted mean of the matrices' mean diagonals, permuting the pairing within each matrix.

    A matrix (n_g, n_g) is a `top1_matrix`, or the mean of several over the same pictures (seeds, subjects who saw the
    same pictures): they are then permuted together. p = (1 + #>=) / (1 + n_perm); None when ``n_perm`` is 0.
    """
    if n_perm == 0:
        return None
    rng = np.random.default_rng([seed, 2])
    observed, null = 0.0, np.zeros(n_perm)
    for matrix, weight in zip(matrices, _weights(matrices, weights), strict=True):
        n = len(matrix)
        observed += weight * np.diag(matrix).mean()
        for rows, pairing in pairings(n, n_perm, rng):
            null[rows] += weight * matrix[np.arange(n), pairing].mean(axis=1)
    return p_value(observed, null)


def pairings(n: int, n_perm: int, rng: np.random.Generator) -> Iterator[tuple[slice, np.ndarray]]:
    """``n_perm`` random orders of n items in pieces of bounded size: which rows of the whole, and (rows, n) indices."""
    for rows in _chunks(n_perm, n):
        yield rows, rng.permuted(np.tile(np.arange(n), (rows.stop - rows.start, 1)), axis=1)


def p_value(observed: float, null: np.ndarray) -> float:
    """(1 + #>=) / (1 + B) of ``observed`` among the B values of ``null``; rounding errors do not break ties."""
    return float((1 + np.sum(null >= observed - 1e-9)) / (1 + len(null)))


class _HitTable:
    """P(right candidate among the first k of a random pool of ``size``) by the number m of better candidates."""

    def __init__(self, candidates: int, size: int, k: int) -> None:
        m = np.arange(candidates)
        if size == candidates:
            hit = (m < k).astype(np.float64)
        else:
            hit = np.zeros(candidates)
            for drawn in range(min(k, size)):  # hypergeometric: `drawn` of the m better ones are in the pool
                hit += np.exp(
                    _log_choose(m, drawn)
                    + _log_choose(candidates - 1 - m, size - 1 - drawn)
                    - _log_choose(np.array(candidates - 1), size - 1)
                )
        self._sum = np.concatenate([[0.0], np.cumsum(np.minimum(hit, 1.0))])

    def expect(self, better: np.ndarray, equal: np.ndarray) -> np.ndarray:
        """Mean hit over every order of the right candidate and the ``equal`` ones tied with it."""
        mean: np.ndarray = (self._sum[better + equal + 1] - self._sum[better]) / (equal + 1)
        return mean


def _log_choose(n: np.ndarray, k: int) -> np.ndarray:
    """log C(n, k) for whole n >= 0; -inf where k > n."""
    factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, max(int(n.max()), k, 1) + 1)))])
    value: np.ndarray = np.where(k <= n, factorial[n] - factorial[k] - factorial[np.maximum(n - k, 0)], -np.inf)
    return value


def _beaten_by(similarity: np.ndarray, target_index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) candidates strictly better than the right one, and (n,) others equal to it."""
    right = similarity[np.arange(len(similarity)), target_index][:, None]
    return (similarity > right).sum(axis=1), (similarity == right).sum(axis=1) - 1


def _checked(similarity: np.ndarray, target_index: np.ndarray, pool: int | None) -> tuple[np.ndarray, np.ndarray, int]:
    similarity, target_index = np.asarray(similarity), np.asarray(target_index)
    if similarity.ndim != 2 or len(similarity) == 0 or target_index.shape != (len(similarity),):
        raise UserError(f"similarity {similarity.shape} needs (n, K) values and one target per row, n >= 1")
    if not np.isfinite(similarity).all():
        raise UserError(f"similarity holds {int((~np.isfinite(similarity)).sum())} NaN or infinite values; cannot rank")
    candidates = similarity.shape[1]
    if target_index.min() < 0 or target_index.max() >= candidates:
        raise UserError(f"target index {int(target_index.max())} is outside the {candidates} candidates")
    size = candidates if pool is None else pool
    if not 1 <= size <= candidates:
        raise UserError(f"pool={size} must lie between 1 and the number of candidates, {candidates}")
    return similarity, target_index, size


def _weights(groups: Sequence[np.ndarray], weights: Sequence[float] | None) -> np.ndarray:
    given = np.ones(len(groups)) if weights is None else np.asarray(weights, dtype=np.float64)
    normed: np.ndarray = given / given.sum()
    return normed


def _chunks(total: int, width: int) -> Iterator[slice]:
    step = max(1, _CHUNK // max(width, 1))
    for start in range(0, total, step):
        yield slice(start, min(start + step, total))
