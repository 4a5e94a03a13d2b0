"""Predicted embeds against those of the pictures: row order, categories only, few dimensions, anisotropy."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from recon.audit.verdict import BY_P, LEAK_P, SUSPECT_P, Finding, not_checked, some
from recon.evaluation.stats import bootstrap_ci, sign_flip_p

_FEW = 0.2  # participation ratio of predictions as a part of that of the targets
_WITHIN = 0.6  # two-way score within a category
_LEAST = 10  # stimuli


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
        f"rows paired {wrong}: {given:.1f} deviations above random pairings; best of {len(z)} others ({best}): "
        f"{z[best]:.1f} (p {min(p_random, 1):.2g}; against the given pairing p {p_gain:.2g})",
        f"{BY_P}; a pairing shuffled in an unknown way cannot be told from a decoder at chance without ids",
        {"given": given, "best": z[best], "best_pairing": best, "p": float(max(min(p_random, 1.0), p_gain))},
    )


def category_only(similarity: np.ndarray, labels: Sequence[str]) -> Finding:
    """Does the decoder know more than the category? Two-way scores within and between categories, (n, n) and (n,)."""
    code = np.unique(np.asarray(labels), return_inverse=True)[1]
    same = code[:, None] == code[None]
    other = same & ~np.eye(len(code), dtype=bool)
    has = other.any(axis=1) & (~same).any(axis=1)
    if has.sum() < _LEAST:
        return not_checked("category_only", f"{_LEAST} or more test stimuli that share their category (--labels)")
    own = np.diag(similarity)[:, None]
    won = (similarity < own) + 0.5 * (similarity == own)
    within = np.array([won[i, other[i]].mean() for i in np.flatnonzero(has)])
    between = np.array([won[i, ~same[i]].mean() for i in np.flatnonzero(has)])
    n, upper = len(code), bootstrap_ci(within)[1]
    total = (won.sum(axis=1) - 0.5) / (n - 1)
    ceiling = 1 - 0.5 * float(((np.bincount(code) / n) ** 2).sum())
    p_within, p_between = sign_flip_p(within - 0.5), sign_flip_p(between - 0.5)
    verdict = "clear"
    if p_between < LEAK_P and p_within >= SUSPECT_P:
        verdict = "leak" if upper < _WITHIN else "suspect"
    return Finding(
        "category_only",
        verdict,
        f"two-way {total.mean():.3f}, of which {between.mean():.3f} between categories (p {p_between:.2g}) and "
        f"{within.mean():.3f} within (95% up to {upper:.3f}, p {p_within:.2g}); knowing only which of "
        f"{code.max() + 1} categories was seen gives {ceiling:.3f}",
        f"leak: between categories p < {LEAK_P}, within them p >= {SUSPECT_P} and the interval ends below {_WITHIN}; "
        "suspect: it ends above; a decoder whose true score within categories is .6 is called leak at most 2.5% of "
        "the time; the line is 1 - 1/(2k) for k equal categories",
        {
            "two_way": float(total.mean()),
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
        f"predictions of {len(predicted)} stimuli fill {ours:.1f} dimensions, the pictures' embeds {theirs:.1f} "
        f"(participation ratios; {ratio:.2f} of them)",
        f"below {_FEW} of the pictures' dimensions, a convention; the simulated study has .94, noise adds to it",
        {"predicted": ours, "targets": theirs, "ratio": ratio},
    )


def anisotropy(embeds: dict[str, np.ndarray]) -> Finding:
    """Do two random rows of embeds, {name: (n, E)}, point the same way? A fault of the features, at most suspect."""
    from align.vision.targets import ANISOTROPIC, health

    found = {name: health(x) for name, x in embeds.items()}
    bad = [name for name, facts in found.items() if facts["cosine_raw"] > ANISOTROPIC]
    listed = "; ".join(
        f"{name}: {facts['cosine_raw']:.3f} ({facts['cosine_centred']:.3f} after centring)"
        for name, facts in found.items()
    )
    return Finding(
        "anisotropy",
        "suspect" if bad else "clear",
        f"mean cosine of two random rows, {listed}",
        f"above {ANISOTROPIC}, where raw cosines compare what all pictures share (class tokens of middle layers reach "
        ".9995); no false alarms, it is a property of the embeds",
        {name: float(facts["cosine_raw"]) for name, facts in found.items()},
    )


def participation_ratio(x: np.ndarray) -> float:
    """(sum of variances)^2 / (sum of their squares) along the principal axes of x (n, E): 1 to min(n - 1, E); 0 if
    all rows are alike."""
    x = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    x = x - x.mean(axis=0)
    variances = np.linalg.svd(x, compute_uv=False) ** 2
    return float(variances.sum() ** 2 / (variances**2).sum()) if variances.sum() > 1e-20 else 0.0


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
