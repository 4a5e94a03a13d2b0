"""Several learning curves together: mean over subjects with intervals, and adapted against from scratch, paired."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from align.retrieval.people import over_people
from recon.adaptation.curve import ADAPTED, SCRATCH
from recon.metrics.stats import sign_flip_p

ALL = "all"


def summarise(curves: Sequence[dict[str, Any]], asked: Sequence[int | None]) -> dict[str, Any]:
    """``points``: test top-1 of every method, kind and number, mean over subjects; ``paired``: ratios of adapted.

    ``curves``: content of adapt.json for every subject, all with the same methods. ``asked``: numbers of pictures, None
    for all; a subject that has fewer stands at its own largest number.
    """
    points, paired = [], []
    for place, wanted in enumerate(asked):
        at = [_at(curve, wanted) for curve in curves]
        for method, kind in dict.fromkeys((row["method"], row["kind"]) for rows in at for row in rows):
            values = [_value(rows, method, kind) for rows in at]
            points.append({"method": method, "kind": kind, "trials": wanted or ALL, "place": place, **_mean(values)})
        scratch = {name for rows in at for name in (row["method"] for row in rows if row["kind"] == SCRATCH)}
        chosen = [_best(rows, SCRATCH) for rows in at]
        for method in dict.fromkeys(row["method"] for rows in at for row in rows if row["kind"] == ADAPTED):
            adapted = [_value(rows, method, ADAPTED) for rows in at]
            own = [_value(rows, method, SCRATCH) for rows in at] if method in scratch else None
            paired.append(
                {
                    "method": method,
                    "trials": wanted or ALL,
                    "to_own_scratch": None if own is None else _ratio(adapted, own),
                    "to_best_scratch": _ratio(adapted, chosen),
                }
            )
    zero_shot = of_people([curve.get("zero_shot") for curve in curves])
    subjects = [curve["subject"] for curve in curves]
    return {"subjects": subjects, "points": points, "paired": paired, "zero_shot": zero_shot}


def of_people(rows: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Method and mean test top-1 of the zero-shot rows of all people; None where one of them has none."""
    found = [row for row in rows if row]
    if len(found) < len(rows) or not found:
        return None
    return {"method": found[0]["method"], **_mean([float(row["test"]["top1"]) for row in found])}


def _at(curve: dict[str, Any], wanted: int | None) -> list[dict[str, Any]]:
    counts = sorted({row["trials"] for row in curve["rows"]})
    count = counts[-1] if wanted is None else min(wanted, counts[-1])
    return [row for row in curve["rows"] if row["trials"] == count]


def _value(rows: Sequence[dict[str, Any]], method: str, kind: str) -> float:
    return float(next(row["test"]["top1"] for row in rows if (row["method"], row["kind"]) == (method, kind)))


def _best(rows: Sequence[dict[str, Any]], kind: str) -> float:
    """The best test score of a kind: the line to beat is not weakened by a choice."""
    return max((float(row["test"]["top1"]) for row in rows if row["kind"] == kind), default=float("nan"))


def _mean(values: Sequence[float]) -> dict[str, Any]:
    interval = over_people(np.array(values))
    return {"top1": float(np.mean(values)), "t95": interval, "values": list(values)}


def _ratio(adapted: Sequence[float], other: Sequence[float]) -> dict[str, Any] | None:
    """Ratio of the means, the difference with its interval, and p of a paired sign flip over subjects."""
    a, b = np.array(adapted), np.array(other)
    if not np.isfinite(b).all() or not b.mean() > 0:
        return None
    difference = a - b
    found = {"ratio": float(a.mean() / b.mean()), "difference": float(difference.mean())}
    if len(a) < 2:
        return {**found, "t95": None, "p": None, "worse_in": int((difference < 0).sum())}
    return {
        **found,
        "t95": over_people(difference),
        "p": sign_flip_p(difference),
        "worse_in": int((difference < 0).sum()),
    }
