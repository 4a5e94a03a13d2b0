"""What the cells of a sweep add up to: points of the curves over depth, combined test scores, the scaling law."""

from __future__ import annotations

from typing import Any

import numpy as np

from align import retrieval

DIRECTIONS = ("brain_to_image", "image_to_brain")
MIN_BACKBONES = 3  # below, a correlation over backbones says nothing


def curves(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One curve per backbone and encoder: for every layer the mean validation top1 over subjects, seeds and folds.

    ``ci95``: bootstrap over subjects x seeds (each the mean of its folds), None for a single one. ``best`` = the
    highest point, the shallower of two equal ones.
    """
    found: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for cell in cells:
        layers = found.setdefault((cell["backbone"], cell["encoder"]), {})
        layers.setdefault(cell["layer"], []).append(cell)
    result = []
    for (backbone, encoder), layers in found.items():
        points = [_point(layer, members) for layer, members in layers.items()]
        best = max(points, key=lambda point: point["top1"])
        result.append({"backbone": backbone, "encoder": encoder, "points": points, "best": best})
    return result


def _point(layer: str, cells: list[dict[str, Any]]) -> dict[str, Any]:
    tops = _runs(cells, [cell["scores"]["brain_to_image"]["top1"] for cell in cells])
    scores = [cell["scores"]["brain_to_image"] for cell in cells]
    return {
        "layer": layer,
        "top1": float(tops.mean()),
        "ci95": _interval(tops),
        "runs": len(tops),
        "n": int(sum(score["n"] for score in scores) / len({cell["seed"] for cell in cells})),
        "candidates": float(np.mean([score["candidates"] for score in scores])),
        "chance": float(np.mean([score["chance_top1"] for score in scores])),
        "concept": _concept(cells),
        "loss": _losses(cells),
    }


def _runs(cells: list[dict[str, Any]], values: list[float]) -> np.ndarray:
    """(runs,): one value per subject and seed, the mean over its folds."""
    runs: dict[tuple[str, int], list[float]] = {}
    for cell, value in zip(cells, values, strict=True):
        runs.setdefault((cell["subject"], cell["seed"]), []).append(value)
    return np.array([np.mean(found) for found in runs.values()])


def _interval(runs: np.ndarray) -> list[float] | None:
    """Bootstrap over runs, None for a single one."""
    return retrieval.bootstrap_interval([runs]) if len(runs) > 1 else None


def _concept(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy at the level of concepts (see `align.sweep.measures`)."""
    found = [cell["concept"] for cell in cells]
    runs = _runs(cells, [score["top1"] for score in found])
    means = {name: float(np.mean([score[name] for score in found])) for name in ("chance_top1", "candidates")}
    return {"kind": found[0]["kind"], "top1": float(runs.mean()), "ci95": _interval(runs), **means}


def _losses(cells: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Loss of the last epoch, and on the held-out fold; None for encoders in closed form."""
    if any(cell["loss"]["train"] is None for cell in cells):
        return None
    found: dict[str, Any] = {}
    for part in ("train", "validation"):
        runs = _runs(cells, [cell["loss"][part] for cell in cells])
        found |= {part: float(runs.mean()), f"{part}_ci95": _interval(runs)}
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
