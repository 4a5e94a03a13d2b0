"""What a report must hold, checked by hand: `faults` lists every deviation from schema 1."""

from __future__ import annotations

from typing import Any

from recon.evaluation.judges import family

_HEAD = {
    "schema": int,
    "study": str,
    "subject": str,
    "split": str,
    "n_stimuli": int,
    "run": str,
    "backbone": str,
    "layer": str,
    "layer_chosen_on": str,
    "epoch_chosen_on": str,
    "seed": int,
    "commit": str,
    "versions": dict,
}
_DIRECTION = {
    "top1": float,
    "top5": float,
    "median_rank": float,
    "n": int,
    "candidates": int,
    "chance_top1": float,
    "chance_top5": float,
    "ci95_top1": list,
    "p_permutation": float,
}
_ENTRY = {"value": float, "ci95": list, "n": int, "better": str, "p_vs_control": dict, "protocol": str}
_JUDGE: dict[str, type] = {"name": str, "weights": str, "family": str, "relatives": list, "score": str}
_SPREAD = {"values": list, "sd_between_seeds": float, "sd_within_stimulus": float, "sd_between_stimuli": float}
_MEASURED: dict[str, type] = {"seconds": float, "device": str}
_ATTRIBUTE = {
    "accuracy": float,
    "ci95": list,
    "n": int,
    "classes": int,
    "chance": float,
    "p_permutation": float,
    "controls": dict,
    "p_vs_control": dict,
}


def faults(report: dict[str, Any]) -> list[str]:
    """Every deviation of ``report`` from schema 1, as "path: what"."""
    found = _keys("", report, _HEAD)
    if report.get("schema") != 1:
        found.append(f"schema: {report.get('schema')!r} is not 1")
    if not {"retrieval", "reconstruction"} & set(report):
        found.append("neither retrieval nor reconstruction")
    if "retrieval" in report:
        found += _retrieval(report["retrieval"])
    if "reconstruction" in report:
        found += _reconstruction(report) + _seeds(report)
    if "measured" in report:
        found += _keys("measured", report["measured"], _MEASURED)
    for name, attribute in report.get("attributes", {}).items():
        found += _keys(f"attributes.{name}", attribute, _ATTRIBUTE) + _fractions(f"attributes.{name}", attribute)
    return found


def _retrieval(part: dict[str, Any]) -> list[str]:
    found = []
    directions = {name: part.get(name, {}) for name in ("brain_to_image", "image_to_brain")}
    directions["transductive.csls"] = part.get("transductive", {}).get("csls", {})
    for name, direction in directions.items():
        where = f"retrieval.{name}"
        found += _keys(where, direction, _DIRECTION) + _fractions(where, direction)
        if direction.get("candidates") and abs(direction.get("chance_top1", 0) * direction["candidates"] - 1) > 1e-9:
            found.append(f"{where}.chance_top1: is not 1 / candidates")
    return found


def _reconstruction(report: dict[str, Any]) -> list[str]:
    found = _keys("", report, {"judge": str, "generator": str, "controls": dict, "skipped": dict})
    entries, controls = report["reconstruction"], report.get("controls", {})
    for name, entry in entries.items():
        found += _keys(f"reconstruction.{name}", entry, _ENTRY) + _fractions(f"reconstruction.{name}", entry)
        for row, difference in entry.get("minus_control", {}).items():
            where = f"reconstruction.{name}.minus_control.{row}"
            found += _keys(where, difference, {"value": float, "ci95": list}) + _fractions(where, difference)
        if entry.get("better") not in ("higher", "lower"):
            found.append(f"reconstruction.{name}.better: {entry.get('better')!r}")
        found += [
            f"controls.{row}: lacks {name}" for row, scores in controls.items() if "value" not in scores.get(name, {})
        ]
    for name in ("PixCorr", "SSIM", "LPIPS", "CLIP", "two_way"):
        if name not in entries and name not in report.get("skipped", {}):
            found.append(f"{name}: neither scored nor skipped")
    if report.get("judge") == report.get("backbone"):
        found.append("judge: is the target backbone")
    return found + _judges(report)


def _judges(report: dict[str, Any]) -> list[str]:
    """Every judge's score is there; none is the backbone, and one of the backbone's family says so."""
    found = []
    for k, judge in enumerate(report.get("judges", [])):
        where = f"judges.{k}"
        faulty = _keys(where, judge, _JUDGE)
        found += faulty
        if faulty:
            continue
        if judge["score"] not in report["reconstruction"]:
            found.append(f"{where}.score: {judge['score']!r} is not among the scores")
        if judge["name"] == report.get("backbone"):
            found.append(f"{where}.name: is the target backbone")
        if (family(report.get("backbone", "")) == judge["family"]) != (report.get("backbone") in judge["relatives"]):
            found.append(f"{where}.relatives: {judge['relatives']} with backbone {report.get('backbone')!r}")
    return found


def _seeds(report: dict[str, Any]) -> list[str]:
    """``seeds`` is there for two seeds or more; the score of the reconstructions is that of one of them."""
    if "seeds" not in report:
        return []
    part, headline = report["seeds"], report["reconstruction"]
    found = _keys("seeds", part, {"seeds": list, "n": int})
    if found:
        return found
    seeds = part["seeds"]
    if len(seeds) < 2 or seeds != sorted(set(seeds)):
        found.append(f"seeds.seeds: {seeds} are not two rising numbers or more")
    for name, entry in part.items():
        if name in ("seeds", "n"):
            continue
        where = f"seeds.{name}"
        faulty = _keys(where, entry, _SPREAD)
        found += faulty
        if faulty:
            continue
        if len(entry["values"]) != len(seeds):
            found.append(f"{where}.values: {len(entry['values'])} for {len(seeds)} seeds")
        found += [f"{where}.{key}: {entry[key]} is below 0" for key in _SPREAD if key != "values" and entry[key] < 0]
        scored = headline.get(name, {}).get("value")
        if scored is None or all(abs(value - scored) > 1e-9 for value in entry["values"]):
            found.append(f"{where}.values: none is the score of the reconstructions, {scored}")
    return found


def _keys(where: str, part: Any, wanted: dict[str, type]) -> list[str]:
    if not isinstance(part, dict):
        return [f"{where}: {type(part).__name__} instead of an object"]
    found = []
    for key, kind in wanted.items():
        value, path = part.get(key), f"{where}.{key}".lstrip(".")
        number = kind is float and isinstance(value, int) and not isinstance(value, bool)
        if key not in part:
            found.append(f"{path}: missing")
        elif not (isinstance(value, kind) or number):
            found.append(f"{path}: {value!r} is no {kind.__name__}")
    return found


def _fractions(where: str, part: dict[str, Any]) -> list[str]:
    """p values and chances lie in [0, 1], intervals rise."""
    found = []
    shares: dict[str, Any] = {
        key: part[key] for key in ("p_permutation", "chance", "chance_top1", "top1", "accuracy") if key in part
    }
    shares |= {f"p_vs_control.{row}": p for row, p in part.get("p_vs_control", {}).items()}
    found += [f"{where}.{key}: {value} is outside [0, 1]" for key, value in shares.items() if not 0 <= value <= 1]
    for key in ("ci95", "ci95_top1"):
        interval = part.get(key, [0, 0])
        if len(interval) != 2 or interval[0] > interval[1]:
            found.append(f"{where}.{key}: {interval} is no interval")
    return found
