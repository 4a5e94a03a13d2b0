"""What `recon encode` says of subjects and of their mean: scores, ceilings, paired comparisons, peaks over depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recon.encoding.features import CAPTIONS, TOGETHER, FeatureSet
from recon.encoding.peaks import peaks
from recon.metrics.stats import sign_flip_p, t_interval

if TYPE_CHECKING:
    from align.response_models.partition import Partition
    from recon.encoding.ceiling import Ceiling
    from recon.encoding.scored import Scored
    from recon.encoding.subjects import Subject

LEVEL = 0.05  # false discovery rate


def summarise(
    scored: Sequence[Scored],
    subjects: Sequence[Subject],
    sets: Sequence[FeatureSet],
    divided: Mapping[str, Partition] | None = None,
) -> dict[str, Any]:
    """``subjects``: entries of each; ``mean``: of every set, method and number; ``paired``: of methods and of sets."""
    entries: dict[str, Any] = {}
    for subject in subjects:
        own = [one for one in scored if one.subject == subject.name]
        entries[subject.name] = {
            "training_pictures": len(subject.train),
            "scored_pictures": len(subject.scored),
            "units": subject.layout.count,
            "ceiling": None if subject.ceiling is None else subject.ceiling.described(),
            "scores": [entry_of(one, subject) for one in own],
            "partition": parted(divided[subject.name]) if divided else None,
        }
    mean = _mean(entries)
    return {"subjects": entries, "mean": mean, "paired": _paired(scored, sets), "peaks": peaks(entries, sets)}


def entry_of(one: Scored, subject: Subject) -> dict[str, Any]:
    """Means over units, JSON-ready."""
    units = one.units
    return {
        "set": one.label,
        "method": one.method,
        "pictures": one.pictures or "all",
        "fitted": one.fitted,
        "r": float(units.r.mean()),
        "r_median": float(np.median(units.r)),
        "r2": float(units.r2.mean()),
        "significant": float((units.q <= LEVEL).mean()),
        **corrected(units.r, subject.ceiling),
        "identification": one.identification,
        "regions": subject.layout.of_regions(units.r),
    }


def corrected(r: np.ndarray, ceiling: Ceiling | None) -> dict[str, float | None]:
    """``corrected``: mean of r over the ceiling; ``r_reliable``: mean of r of the same units."""
    if ceiling is None or not ceiling.reliable.any():
        return {"corrected": None, "r_reliable": None}
    kept = ceiling.reliable
    return {"corrected": float((r[kept] / ceiling.highest[kept]).mean()), "r_reliable": float(r[kept].mean())}


def parted(found: Partition) -> dict[str, Any]:
    """Means over units of a partition."""
    spaces = {
        name: {what: float(getattr(found, what)[name].mean()) for what in ("unique", "alone", "product")}
        for name in found.unique
    }
    return {"full": float(found.full.mean()), "shared": float(found.shared.mean()), "spaces": spaces}


def _mean(entries: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for entry in entries.values():
        for score in entry["scores"]:
            rows.setdefault((score["set"], score["method"], score["pictures"]), []).append(score)
    found = []
    for (label, method, pictures), scores in rows.items():
        r = np.array([score["r"] for score in scores])
        fixed = np.array([score["corrected"] for score in scores if score["corrected"] is not None])
        named = [score["identification"]["top1"] for score in scores if score["identification"]]
        found.append(
            {
                "set": label,
                "method": method,
                "pictures": pictures,
                "subjects": len(scores),
                "r": float(r.mean()),
                "t95": t_interval(r) if len(r) > 1 else None,
                "significant": float(np.mean([score["significant"] for score in scores])),
                "corrected": float(fixed.mean()) if len(fixed) else None,
                "corrected_subjects": len(fixed),
                "identification": float(np.mean(named)) if named else None,
                "identification_t95": t_interval(np.array(named)) if len(named) > 1 else None,
            }
        )
    return found


def _paired(scored: Sequence[Scored], sets: Sequence[FeatureSet]) -> list[dict[str, Any]]:
    """Every method against the first, on the same features; captions and all together against the best other set."""
    by_key: dict[tuple[str, str, int | None], dict[str, np.ndarray]] = {}
    for one in scored:
        by_key.setdefault((one.label, one.method, one.pictures), {})[one.subject] = one.units.r
    found, first = [], scored[0].method
    for (label, method, pictures), r in by_key.items():
        if method != first:
            other = by_key[label, first, pictures]
            found.append({"set": label, "a": method, "b": first, "pictures": pictures or "all", **difference(r, other)})
    vision = [part.label for part in sets if part.label not in (CAPTIONS, TOGETHER)]
    for method, pictures in dict.fromkeys((one.method, one.pictures) for one in scored):
        if not vision:
            continue
        best = max(vision, key=lambda label: np.mean([r.mean() for r in by_key[label, method, pictures].values()]))
        for label in (CAPTIONS, TOGETHER):
            if (label, method, pictures) in by_key:
                pair = by_key[label, method, pictures], by_key[best, method, pictures]
                found.append(
                    {"method": method, "a": label, "b": best, "pictures": pictures or "all", **difference(*pair)}
                )
    return found


def difference(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """a minus b, unit by unit. ``better``: share of units; ``wilcoxon_p``: two-sided, units of all subjects.

    ``t95`` and ``p`` (one-sided sign flip, of a being better) take a subject as one value: units of one subject are not
    independent of each other.
    """
    from scipy.stats import wilcoxon

    parts = [a[name] - b[name] for name in a]
    units, means = np.concatenate(parts), np.array([part.mean() for part in parts])
    return {
        "difference": float(means.mean()),
        "t95": t_interval(means) if len(means) > 1 else None,
        "p": sign_flip_p(means) if len(means) > 1 else None,
        "units": len(units),
        "better": float((units > 0).mean()),
        "wilcoxon_p": float(wilcoxon(units).pvalue) if np.any(units) else 1.0,
    }
