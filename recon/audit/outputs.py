"""What the decoder put out: order of the rows, categories only, few dimensions, anisotropy, memorised pictures."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from align import retrieval
from align.data.splits import TWIN_R
from recon.audit.signals import participation_ratio
from recon.audit.splits import naming_alone
from recon.audit.verdict import BY_P, LEAK_P, SUSPECT_P, Finding, graded, not_checked, some
from recon.metrics.stats import bootstrap_ci, sign_flip_p

EMBED_COPY_R = 0.999  # cosine of centred embeds: two different pictures do not reach it, a stored one does
_LEAST = 10  # stimuli: with fewer no permutation of signs reaches p .001
_WITHIN = 0.6  # two-way score within a category: between chance .5 and the .7 of a weak honest decoder
_FEW = 0.2  # participation ratio of predictions as a part of that of the targets; see `collapse`
_COPIES = 0.05  # of the reconstructions: what 1 in 20 of a table shows is no accident of one picture
_STANDS_OUT, _NOTABLE = 0.75, 0.6  # at most .5 without memory: half of the way to always, and a fifth of it
_BLOCK = 2048  # rows of a similarity matrix held at once


def row_order(
    similarity: np.ndarray, brain_ids: Sequence[str] | None = None, image_ids: Sequence[str] | None = None
) -> Finding:
    """Does another pairing of rows and pictures score higher than the one given?

    ``similarity`` (n, n), row i belongs to picture i. Tried: every cyclic shift, the reverse, and where ids are known
    the pairing by id and files sorted as text or as numbers. A pairing is compared with random ones by the exact mean
    and variance of a sum over a random permutation (Hoeffding 1951), times the number of pairings tried, and with the
    given one row by row (sign flips).
    """
    n = len(similarity)
    if n < _LEAST or similarity.shape != (n, n):
        return not_checked("row_order", f"{_LEAST} or more stimuli, one row and one picture each")
    pairings = _pairings(n, brain_ids, image_ids)
    rows = np.arange(n)
    centred = similarity - similarity.mean(0) - similarity.mean(1, keepdims=True) + similarity.mean()
    deviation = max(float(np.sqrt((centred**2).sum() / (n - 1))), 1e-12)  # of the sum over a random pairing
    z = {name: float(centred[rows, order].sum()) / deviation for name, order in pairings.items()}
    given = float(np.trace(centred)) / deviation
    best = max(z, key=lambda name: z[name])
    gain = similarity[rows, pairings[best]] - similarity[rows, rows]
    p_random, p_gain = _tail(z[best]) * len(z), sign_flip_p(gain)
    wrong = "as given" if brain_ids is None or image_ids is None else _disagreement(brain_ids, image_ids)
    verdict = "clear"
    if z[best] > given and max(p_random, p_gain) < SUSPECT_P:
        verdict = "leak" if max(p_random, p_gain) < LEAK_P else "suspect"
    elif wrong.startswith("although"):
        verdict = "suspect"
    return Finding(
        "row_order",
        verdict,
        f"rows and pictures are paired {wrong}; this scores {given:.1f} deviations above random pairings, the best of "
        f"{len(z)} other orders ({best}) {z[best]:.1f} (p {min(p_random, 1):.2g}; that it beats the given one: p "
        f"{p_gain:.2g})",
        f"{BY_P}; leak and suspect need another order that scores higher, or ids that differ; without ids, rows "
        "shuffled at random cannot be told from a decoder at chance",
        {"given": given, "best": z[best], "best_pairing": best, "p": float(max(min(p_random, 1.0), p_gain))},
    )


def category_only(similarity: np.ndarray, labels: Sequence[str], what: str = "category") -> Finding:
    """Does the decoder know more than the category? Two-way scores within and between categories, (n, n) and (n,).

    ``what`` the labels are: categories, or clusters of features where no two stimuli share a category.
    """
    code = np.unique(np.asarray(labels), return_inverse=True)[1]
    same = code[:, None] == code[None]
    other = same & ~np.eye(len(code), dtype=bool)
    rows = np.flatnonzero(other.any(axis=1) & (~same).any(axis=1))
    if len(rows) < _LEAST:
        return not_checked("category_only", f"{_LEAST} or more test stimuli that share their category (--labels)")
    own = np.diag(similarity)[:, None]
    won = (similarity < own) + 0.5 * (similarity == own)
    within = np.array([won[i, other[i]].mean() for i in rows])
    between = np.array([won[i, ~same[i]].mean() for i in rows])
    total, upper = float(((won.sum(axis=1) - 0.5) / (len(code) - 1)).mean()), bootstrap_ci(within)[1]
    ceiling = naming_alone(code.tolist())
    p_within, p_between = sign_flip_p(within - 0.5), sign_flip_p(between - 0.5)
    verdict = "clear"
    if p_between < LEAK_P and p_within >= SUSPECT_P:
        verdict = "leak" if upper < _WITHIN else "suspect"
    return Finding(
        "category_only",
        verdict,
        f"two-way score {total:.3f}; against pictures of another {what} {between.mean():.3f} (p {p_between:.2g}), of "
        f"the same {what} {within.mean():.3f} (at most {upper:.3f}, p {p_within:.2g}); a decoder that only knows which "
        f"of the {code.max() + 1} was seen scores {ceiling:.3f} in all and .5 within",
        f"leak: above chance between (p < {LEAK_P}) but not within (p >= {SUSPECT_P}, and the 95% interval ends below "
        f"{_WITHIN}); suspect: the interval ends above. The line is 1 - 1/(2k) for k equal categories",
        {
            "two_way": total,
            "within": float(within.mean()),
            "between": float(between.mean()),
            "ceiling": ceiling,
            "p_within": p_within,
        },
    )


def collapse(predicted: np.ndarray, targets: np.ndarray) -> Finding:
    """Do the predicted embeds (n, E) span far fewer dimensions than those of the same pictures (n, F)?

    A fault of the model, not a leak, so at most suspect.
    """
    if len(predicted) < _LEAST:
        return not_checked("collapse", f"predicted and picture embeds of {_LEAST} or more stimuli")
    ours, theirs = participation_ratio(predicted), participation_ratio(targets)
    ratio = ours / max(theirs, 1e-12)
    return Finding(
        "collapse",
        "suspect" if ratio < _FEW else "clear",
        f"predictions of {len(predicted)} stimuli spread over {ours:.1f} dimensions, the embeds of their pictures over "
        f"{theirs:.1f} (participation ratios), i.e. {ratio:.2f} of them",
        f"below {_FEW} of the pictures' dimensions: few different answers for many pictures",
        {"predicted": ours, "targets": theirs, "ratio": ratio},
    )


def anisotropy(embeds: dict[str, np.ndarray]) -> Finding:
    """Do two random rows of embeds, {name: (n, E)}, point the same way? A fault of the features, at most suspect."""
    from align.vision.targets import ANISOTROPIC, health

    found = {name: health(x) for name, x in embeds.items()}
    bad = [name for name, facts in found.items() if facts["cosine_raw"] > ANISOTROPIC]
    listed = "; ".join(f"{name}: {facts['cosine_raw']:.3f}" for name, facts in found.items())
    return Finding(
        "anisotropy",
        "suspect" if bad else "clear",
        f"mean cosine of two random rows: {listed}",
        f"above {ANISOTROPIC}, where raw cosines mostly compare what all pictures share (class tokens of middle layers "
        "reach .9995); centre embeds with the training mean before comparing them",
        {name: float(facts["cosine_raw"]) for name, facts in found.items()},
    )


def memorisation(
    estimate: np.ndarray, targets: np.ndarray, train: np.ndarray, copy_r: float = TWIN_R, what: str = "reconstructions"
) -> Finding:
    """Do reconstructions show training pictures instead of the picture that was seen?

    A weak honest decoder is nearer to *some* of many training pictures than to its target, so that rate alone proves
    nothing; it is reported beside the rate with mismatched targets. What decides: copies (r above ``copy_r`` with a
    training picture, and nearer to it than to the target), and whether the nearest training picture stands out from
    the second nearest by more than the nearest *unseen* picture (a target of another stimulus) does from its second.
    Gaps shrink with the number of pictures, so with more training than test pictures the latter is conservative.

    Parameters
    ----------
    estimate, targets, train
        Rows (n, F), (n, F), (N, F): mean-removed thumbnails, or embeds.
    """
    n = len(estimate)
    to_target = retrieval.scores(estimate, targets)
    own = np.diag(to_target).copy()
    best, second, place = _two_nearest(estimate, train)
    unseen = to_target.copy()
    np.fill_diagonal(unseen, -np.inf)
    top = np.sort(unseen, axis=1)[:, -2:]
    closer = best > own
    copies = closer & (best > copy_r)
    stands_out = closer & (best - second > top[:, 1] - top[:, 0])
    # reconstructions that share their nearest training picture are one observation: a collapsed decoder has few
    means = np.array([stands_out[place == k].mean() for k in np.unique(place)])
    p = sign_flip_p(means - 0.5)
    shuffled = float((best[:, None] > to_target)[~np.eye(n, dtype=bool)].mean())
    copied, share = float(copies.mean()), float(means.mean())
    verdict = graded(p, share >= _STANDS_OUT, share >= _NOTABLE)
    if copies.any():
        verdict = "leak" if copied >= _COPIES else max(verdict, "suspect", key=("clear", "suspect", "leak").index)
    return Finding(
        "memorisation",
        verdict,
        f"{copied:.0%} of {n} {what} copy a training picture (r > {copy_r}); {closer.mean():.0%} are nearer to a "
        f"training picture than to their target ({shuffled:.0%} with mismatched targets); the nearest training picture "
        f"stands out more than the nearest unseen picture in {share:.0%} (without memory at most 50%; p {p:.2g}, "
        f"{len(means)} different ones)",
        f"leak: copies in {_COPIES:.0%}, or standing out in {_STANDS_OUT:.0%} with p < {LEAK_P} (sign flips); suspect: "
        f"one copy, or {_NOTABLE:.0%} with p < {SUSPECT_P}",
        {"closer": float(closer.mean()), "closer_shuffled": shuffled, "copies": copied, "stands_out": share, "p": p},
    )


def _pairings(n: int, brain_ids: Sequence[str] | None, image_ids: Sequence[str] | None) -> dict[str, np.ndarray]:
    """Other pairings by name: column of every row."""
    rows = np.arange(n)
    found = {f"shift by {k}": (rows + k) % n for k in range(1, n)}
    found["reversed"] = rows[::-1]
    if brain_ids is not None and image_ids is not None and set(brain_ids) == set(image_ids):
        place = {name: i for i, name in enumerate(image_ids)}
        found["by id"] = np.array([place[name] for name in brain_ids])
    for side, ids in (("rows", brain_ids), ("pictures", image_ids)):
        for how, key in (("text", str), ("numbers", _natural)) if ids is not None else ():
            order = np.array(sorted(rows, key=lambda i, ids=ids, key=key: key(ids[i])))  # type: ignore[misc]
            found[f"{side} sorted as {how}"] = order
            found[f"{side} sorted as {how}, undone"] = np.argsort(order)
    return {name: order for name, order in found.items() if not np.array_equal(order, rows)}


def _tail(z: float) -> float:
    """P(normal deviate > z)."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def _disagreement(brain_ids: Sequence[str], image_ids: Sequence[str]) -> str:
    wrong = [f"{a} with {b}" for a, b in zip(brain_ids, image_ids, strict=True) if a != b]
    return f"although {len(wrong)} of {len(brain_ids)} ids differ ({some(wrong, 2)})" if wrong else "by equal ids"


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _two_nearest(queries: np.ndarray, pool: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Largest and second largest cosine (n,) with rows of ``pool``, and the place of the largest."""
    best, second, place = [], [], []
    for start in range(0, len(queries), _BLOCK):
        r = retrieval.scores(queries[start : start + _BLOCK], pool)
        top = np.sort(np.partition(r, -2, axis=1)[:, -2:], axis=1)
        best.append(top[:, 1])
        second.append(top[:, 0])
        place.append(r.argmax(axis=1))
    return np.concatenate(best), np.concatenate(second), np.concatenate(place)
