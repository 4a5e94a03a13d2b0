"""What the cells of a sweep add up to: points of the curves over depth, combined test scores, the scaling law."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from align import retrieval
from align.retrieval.people import MIN_SUBJECTS, over_people

DIRECTIONS = ("brain_to_image", "image_to_brain")
MIN_BACKBONES = 3  # below, a correlation over backbones says nothing


def curves(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One curve per backbone and encoder: for every layer the mean validation top1 over subjects, seeds and folds.

    ``ci95``: from `MIN_SUBJECTS` subjects on over subjects (Student's t of their means), with fewer a bootstrap over
    the held-out pictures; ``interval_over`` says which. Losses have one over subjects alone, None with fewer: they
    belong to batches, not to pictures. ``best`` = the highest point, the shallower of two equal ones.
    """
    found: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for cell in cells:
        layers = found.setdefault((cell["backbone"], cell["encoder"]), {})
        layers.setdefault(cell["layer"], []).append(cell)
    result = []
    for (backbone, encoder), layers in found.items():
        points = [_point(layer, members) for layer, members in layers.items()]
        best = max(points, key=lambda point: rounded(point["top1"]))
        result.append({"backbone": backbone, "encoder": encoder, "points": points, "best": best})
    return result


def rounded(share: float) -> float:
    """Of sums of the same hits in another order the same number, so that equal layers are found to be equal."""
    return round(share, 9)


def _point(layer: str, cells: list[dict[str, Any]]) -> dict[str, Any]:
    scores = [cell["scores"]["brain_to_image"] for cell in cells]
    tops = [score["top1"] for score in scores]
    return {
        "layer": layer,
        "top1": _mean(cells, tops),
        "ci95": _interval(cells, tops, "picture"),
        "interval_over": "subjects" if len(_people(cells)) >= MIN_SUBJECTS else "pictures",
        "runs": len(_runs(cells, tops)),
        "n": int(sum(score["n"] for score in scores) / len({cell["seed"] for cell in cells})),
        "candidates": float(np.mean([score["candidates"] for score in scores])),
        "chance": float(np.mean([score["chance_top1"] for score in scores])),
        "concept": _concept(cells),
        "loss": _losses(cells),
    }


def _runs(cells: list[dict[str, Any]], values: list[float]) -> np.ndarray:
    """(runs,): one value per subject and seed, the mean over its folds; every run weighs the same."""
    runs: dict[tuple[str, int], list[float]] = {}
    for cell, value in zip(cells, values, strict=True):
        runs.setdefault((cell["subject"], cell["seed"]), []).append(value)
    return np.array([np.mean(found) for found in runs.values()])


def _mean(cells: list[dict[str, Any]], values: list[float]) -> float:
    return float(_runs(cells, values).mean())


def _people(cells: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(cell["subject"] for cell in cells))


def _over_subjects(cells: list[dict[str, Any]], values: list[float]) -> list[float] | None:
    """Student's t over the means of the subjects; None where they are too few."""
    means = []
    for name in _people(cells):
        own = [i for i, cell in enumerate(cells) if cell["subject"] == name]
        means.append(_mean([cells[i] for i in own], [values[i] for i in own]))
    return over_people(np.array(means))


def _interval(cells: list[dict[str, Any]], values: list[float], level: str) -> list[float] | None:
    """Of shares ``values``: over subjects and cut at 0 and 1, or over pictures by their hits at a ``level``.

    Cells of the same pictures (other seeds, other subjects) are averaged picture by picture first, so that they do not
    pass for further pictures; folds are independent groups.
    """
    if len(_people(cells)) >= MIN_SUBJECTS:
        interval = _over_subjects(cells, values)
        return interval and [max(0.0, interval[0]), min(1.0, interval[1])]
    groups: dict[str, list[tuple[list[float], float]]] = {}
    folds = Counter((cell["subject"], cell["seed"]) for cell in cells)
    for cell in cells:
        share = 1 / folds[cell["subject"], cell["seed"]]
        groups.setdefault(cell["hits"]["pictures"], []).append((cell["hits"][level], share))
    means = [np.average([hits for hits, _ in part], axis=0, weights=[w for _, w in part]) for part in groups.values()]
    return retrieval.bootstrap_interval(means, [sum(w for _, w in part) for part in groups.values()])


def _concept(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy at the level of concepts (see `align.sweep.measures`)."""
    found = [cell["concept"] for cell in cells]
    tops = [score["top1"] for score in found]
    means = {name: float(np.mean([score[name] for score in found])) for name in ("chance_top1", "candidates")}
    return {"kind": found[0]["kind"], "top1": _mean(cells, tops), "ci95": _interval(cells, tops, "concept"), **means}


def _losses(cells: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Loss of the last epoch, and on the held-out fold; None for encoders in closed form."""
    if any(cell["loss"]["train"] is None for cell in cells):
        return None
    found: dict[str, Any] = {}
    for part in ("train", "validation"):
        values = [cell["loss"][part] for cell in cells]
        found |= {part: _mean(cells, values), f"{part}_ci95": _over_subjects(cells, values)}
    return found


def combine(tests: list[dict[str, Any]], direction: str) -> dict[str, Any]:
    """One score out of the refits of one variant: mean over subjects and seeds, interval and p over test pictures.

    Runs over the same pictures are averaged picture by picture before resampling or permuting, so seeds and subjects
    do not pass for further pictures; sets of pictures that differ between subjects are independent groups.
    ``n`` counts distinct query pictures.
    """
    groups: dict[tuple[str, ...], list[np.ndarray]] = {}
    for test in tests:
        similarity = test["similarity"] if direction == "brain_to_image" else test["similarity"].T
        matrix = retrieval.top1_matrix(similarity, np.arange(len(similarity)))
        groups.setdefault(tuple(test["ids"]), []).append(matrix)
    matrices = [np.mean(group, axis=0) for group in groups.values()]
    weights = [float(len(group)) for group in groups.values()]
    scores = [test["scores"][direction] for test in tests]
    mean = {name: float(np.mean([score[name] for score in scores])) for name in ("top1", "top5", "median_rank")}
    pool = {name: float(np.mean([score[name] for score in scores])) for name in ("chance_top1", "chance_top5")}
    return {
        **mean,
        "n": sum(len(matrix) for matrix in matrices),
        "runs": len(tests),
        "candidates": float(np.mean([score["candidates"] for score in scores])),
        **pool,
        "ci95_top1": retrieval.bootstrap_interval([np.diag(matrix) for matrix in matrices], weights),
        "p_permutation": retrieval.permutation_p(matrices, weights),
    }


def scaling(walked: list[dict[str, Any]], backbones: dict[str, Any]) -> dict[str, Any]:
    """Per encoder: parameters of every backbone with the depth and validation top1 of its best and of its last layer.

    ``pearson``: correlation of each with log10(parameters), {"r", "p"} (p two-sided); None below `MIN_BACKBONES`
    backbones, or where one of the two does not vary.
    """
    found: dict[str, Any] = {}
    for encoder in dict.fromkeys(curve["encoder"] for curve in walked):
        points = []
        for curve in (curve for curve in walked if curve["encoder"] == encoder):
            layers = {point["layer"]: point for point in curve["points"]}
            best, last = layers[curve["chosen"]], layers.get(curve["last"])
            points.append(
                {
                    "backbone": curve["backbone"],
                    "parameters": backbones[curve["backbone"]]["parameters"],
                    "depth": best["depth"],
                    "top1": best["top1"],
                    "ci95": best["ci95"],
                    "last_top1": last["top1"] if last else None,
                }
            )
        names = ("depth", "top1", "last_top1")
        found[encoder] = {"points": points, "pearson": {name: _pearson(points, name) for name in names}}
    return found


def _pearson(points: list[dict[str, Any]], name: str) -> dict[str, float] | None:
    from scipy.stats import pearsonr

    size = [float(np.log10(point["parameters"])) for point in points]
    values = [point[name] for point in points]
    if len(points) < MIN_BACKBONES or None in values or len(set(size)) == 1 or len(set(values)) == 1:
        return None
    r, p = pearsonr(size, values)
    return {"r": float(r), "p": float(p)}
