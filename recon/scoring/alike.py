"""Distractors that are alike: each picture among its nearest ones in some features, for example of a low or high layer.

A decoder that reads what a layer holds can tell pictures apart that are alike in another layer, and not those that are
alike in this one. So the same recordings are scored among two pools of one size, and the scores are paired.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from align import retrieval
from align.errors import UserError
from recon.metrics.stats import sign_flip_p
from recon.scoring.contest import Contest

MOST_CELLS = 2**27  # of recordings by pools by candidates, of which some copies are held
_BLOCK = 1024  # pictures whose distances to all are held at once


def nearest(features: np.ndarray, pictures: np.ndarray, count: int) -> np.ndarray:
    """(n, count) rows of ``features`` (K, D) with the highest correlation to each of ``pictures`` (n,), not itself.

    Ties go to the lower row. Raises `UserError` for rows that are the same in all D.
    """
    x = features.astype(np.float64)
    x -= x.mean(axis=1, keepdims=True)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    if (length == 0).any():
        raise UserError(f"row {int(np.flatnonzero(length == 0)[0])} holds one value throughout; it is alike to none")
    x /= length
    found = np.empty((len(pictures), count), dtype=np.int64)
    for start in range(0, len(pictures), _BLOCK):
        own = pictures[start : start + _BLOCK]
        likeness = x[own] @ x.T
        likeness[np.arange(len(own)), own] = -np.inf
        found[start : start + _BLOCK] = np.argsort(-likeness, axis=1, kind="stable")[:, :count]
    return found


def hits_of_all(scores: np.ndarray, own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n, n) expected hits: would recording j (row) find picture i (column) among its pool.

    ``scores`` (n, K) of recordings by pictures, ``own`` (n,) column of picture i, ``others`` (n, size - 1) the columns
    of its distractors. Ties count as the mean over their orders.
    """
    right, wrong = scores[:, own], scores[:, others]  # (n, n), (n, n, size - 1)
    better, equal = (wrong > right[..., None]).sum(-1), (wrong == right[..., None]).sum(-1)
    return np.asarray((better == 0) / (1 + equal))


def score_alike(
    contest: Contest, features: Mapping[str, np.ndarray], size: int, n_boot: int, n_perm: int, seed: int
) -> dict[str, Any]:
    """Recordings among ``size`` candidates: the right picture and its ``size`` - 1 nearest by each of ``features``.

    ``features``: (K, D) of the candidates, by name. A picture lies in the middle of those that are like it, so a guess
    does not find it in one of ``size``: chance is the mean over the recordings of other pictures, in the same pool.

    Returns ``size``, for every name ``top1`` with its chance, interval over pictures, p of permuted recordings, and hit
    less chance of each picture (``per_stimulus``), and ``pairs``: differences of what is above chance, with interval
    and p (sign flip, two-sided). Raises `UserError` where rows and candidates do not fit, candidates are too few, or
    pools times recordings are more than `MOST_CELLS`.
    """
    total, n = contest.candidates, len(contest.index)
    if not 2 <= size <= total:
        raise UserError(f"pools of {size} alike pictures: give 2 to {total}, the number of candidates")
    if n * max(total, n) * size > MOST_CELLS:
        raise UserError(f"{n} recordings by {n} pools of {size} alike pictures are too many; score a part of them")
    drawn: dict[str, Any] = {"seed": seed, "n_boot": n_boot}
    found: dict[str, Any] = {"size": size, "of": {}, "pairs": []}
    scores, above = contest.matrix(), dict[str, np.ndarray]()
    for name, part in features.items():
        if len(part) != total:
            raise UserError(
                f"features {name!r} have {len(part)} rows for {total} candidate pictures; give one for each"
            )
        try:
            others = nearest(part, contest.index, size - 1)
        except UserError as error:
            raise UserError(f"features {name!r}: {error}") from error
        hits = hits_of_all(scores, contest.index, others)
        own = np.diag(hits)
        chance = (hits.sum(0) - own) / max(n - 1, 1)
        above[name] = own - chance
        found["of"][name] = {
            "top1": float(own.mean()),
            "ci95_top1": retrieval.bootstrap_interval([own], **drawn),
            "chance_top1": float(chance.mean()),
            "p_permutation": retrieval.permutation_p([hits], seed=seed, n_perm=n_perm),
            "n": n,
            "candidates": size,
            "per_stimulus": above[name].tolist(),
        }
    for one, other in combinations(above, 2):
        difference = above[one] - above[other]
        found["pairs"].append(
            {
                "a": one,
                "b": other,
                "difference": float(difference.mean()),
                "ci95": retrieval.bootstrap_interval([difference], **drawn),
                "p": _two_sided(difference, n_perm, seed),
            }
        )
    return found


def _two_sided(difference: np.ndarray, n_perm: int, seed: int) -> float | None:
    if n_perm == 0:
        return None
    return min(1.0, 2 * min(sign_flip_p(side, n_perm=n_perm, seed=seed) for side in (difference, -difference)))
