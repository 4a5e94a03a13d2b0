"""Permutation p of retrieval: how good would a wrong pairing of recordings and pictures look?

All statistics are computed among the n pictures that have a recording, so with K = n candidates they are the printed
scores themselves; further candidates play no part. Rows of scores are taken a few at a time: memory is
n x n_perm indices and a few blocks, never the whole n x n.
"""

from __future__ import annotations

import numpy as np

from align.retrieval import expected_hits, p_value, pairings
from recon.scoring.contest import Contest


def shuffle_p(
    contest: Contest, direction: str, *, labels: np.ndarray | None = None, n_perm: int = 2000, seed: int = 0
) -> dict[str, float | None]:
    """``p_permutation`` of top1 and ``p_permutation_rank`` of the mean rank percentile, over random pairings.

    With ``labels`` (n,) the distractors of a picture are those of other labels (between-category retrieval). The rank
    moves with every pairing, so its p is nearly continuous; top1 of a large pool is coarse and its p conservative.
    """
    if n_perm == 0:
        return {"p_permutation": None, "p_permutation_rank": None}
    n = len(contest.index)
    total = _Null(n_perm)
    total.add(contest, direction, np.arange(n), labels, np.random.default_rng([seed, 2]))
    return total.p()


def shuffle_within_p(
    contest: Contest, direction: str, labels: np.ndarray, *, n_perm: int = 2000, seed: int = 0
) -> dict[str, float | None]:
    """The same among the pictures of one label at a time, permuting the pairing inside each: beyond the category."""
    if n_perm == 0:
        return {"p_permutation": None, "p_permutation_rank": None}
    total = _Null(n_perm)
    rng = np.random.default_rng([seed, 3])
    for label in np.unique(labels):
        total.add(contest, direction, np.flatnonzero(labels == label), None, rng)
    return total.p()


class _Null:
    """Sums over queries of the hit and of the rank percentile, as observed and under each pairing."""

    def __init__(self, n_perm: int) -> None:
        self.n_perm, self.queries = n_perm, 0
        self.observed = np.zeros(2)
        self.null = np.zeros((2, n_perm))

    def add(
        self,
        contest: Contest,
        direction: str,
        members: np.ndarray,
        labels: np.ndarray | None,
        rng: np.random.Generator,
    ) -> None:
        """Add the queries ``members`` (m,), whose answers are exchanged among themselves."""
        m = len(members)
        orders = np.empty((self.n_perm, m), dtype=np.int32)
        for part, drawn in pairings(m, self.n_perm, rng):
            orders[part] = drawn
        self.queries += m
        for rows, block in contest.rows(direction, members):
            for number, values in enumerate(_statistics(block, labels)):
                local = np.arange(len(values))
                self.observed[number] += values[local, local + rows.start].sum()
                self.null[number] += values[local[None], orders[:, rows]].sum(axis=1)

    def p(self) -> dict[str, float | None]:
        """Both p values; means, so that rounding slack is the same for any n."""
        hit, rank = (p_value(self.observed[i] / self.queries, self.null[i] / self.queries) for i in (0, 1))
        return {"p_permutation": hit, "p_permutation_rank": rank}


def _statistics(block: np.ndarray, labels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(b, m) expected top-1 hit and rank percentile of each row, were each column its right answer."""
    better, equal = _beaten_by(block)
    size = np.full(block.shape[1], block.shape[1])
    if labels is not None:
        for label in np.unique(labels):
            same = np.flatnonzero(labels == label)
            inside = _beaten_by(block[:, same])
            better[:, same] -= inside[0]
            equal[:, same] -= inside[1]
            size[same] -= len(same) - 1
    return expected_hits(better, equal, 1), 1 - (better + equal / 2) / np.maximum(size - 1, 1)


def _beaten_by(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(b, m) columns above each column of its row, and (b, m) others equal to it."""
    from scipy.stats import rankdata

    least, most = (rankdata(block, method, axis=1).astype(np.int64) for method in ("min", "max"))
    return block.shape[1] - most, most - least
