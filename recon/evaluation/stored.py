"""Reading ``report_sub-XX.json`` and ``stimuli_sub-XX.json``: every field that anything here looks at is checked.

Both hold the same scores, the one their means and the other those of every stimulus: where they disagree, one of them
is damaged, and neither is used.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.files import read_json
from align.files.json_text import require

_DIRECTION = {
    "top1": float,
    "top5": float,
    "median_rank": float,
    "n": int,
    "candidates": int,
    "chance_top1": float,
    "chance_top5": float,
    "ci95_top1?": [float],
    "p_permutation?": float,
}
_ENTRY = {
    "value": float,
    "better": str,
    "ci95?": ([float], None),
    "n?": int,
    "chance?": float,
    "protocol?": str,
    "p_vs_control?": {str: float},
    "minus_control?": {str: {"value": float, "ci95": [float]}},
    "share_of_ceiling?": (float, None),
}
_SPREAD = {"values": [float], "sd_between_seeds": float, "sd_within_stimulus": float, "sd_between_stimuli": float}
REPORT = {
    "schema?": int,
    "run": str,
    "study": str,
    "subject": str,
    "split?": str,
    "n_stimuli": int,
    "backbone?": str,
    "layer?": str,
    "layer_chosen_on?": str,
    "epoch_chosen_on?": str,
    "encoder?": str,
    "selection?": (dict, None),
    "seed?": (int, None),
    "commit?": str,
    "versions?": {str: str},
    "measured?": {"seconds": float, "device": str, "memory?": int, "gpu_memory?": int},
    "generator?": str,
    "tokens?": str,
    "judge?": str,
    "judges?": [{"name": str, "weights": str, "family": str, "relatives": [str], "score": str}],
    "retrieval?": {"brain_to_image?": _DIRECTION, "image_to_brain?": _DIRECTION, "transductive?": dict},
    "reconstruction?": {str: _ENTRY},
    "controls?": {str: {str: {"value": float}}},
    "skipped?": {str: str},
    "fine_power?": {str: {"value": float, "ci95": [float], "n": int}},
    "seeds?": {"seeds": [int], "n": int},
    "attributes?": {str: {"accuracy": float, "chance": float, "p_permutation": float, "controls": {str: float}}},
}
STIMULI = {
    "run": str,
    "ids?": [str],
    "scores?": {str: [float]},
    "attributes?": {str: [float]},
    "rank?": {str: float},
    "retrieved?": {str: [str]},
    "per_stimulus?": {"ids": [str], "brain_to_image?": {str: [float]}, "image_to_brain?": {str: [float]}},
    "images?": (str, None),
    "controls?": [str],
    "generator?": str,
    "image_seed?": int,
    "pictures?": {str: str},
}
_NEAR = 1e-6  # two ways to the same mean


def read_report(path: str | Path) -> dict[str, Any]:
    """The report; raises `UserError` naming the file and the first field that is missing or wrong."""
    source = repr(str(path))
    report: dict[str, Any] = read_json(path, REPORT)
    for name, entry in report.get("reconstruction", {}).items():
        if entry["better"] not in ("higher", "lower"):
            raise UserError(f"{source}: reconstruction.{name}.better is {entry['better'][:40]!r}, not higher or lower")
    parts = {name: part for name, part in report.get("seeds", {}).items() if name not in ("seeds", "n")}
    require(parts, {str: _SPREAD}, f"{source}, seeds")
    for at, interval in _intervals(report):
        if len(interval) != 2:
            raise UserError(f"{source}: {at} has {len(interval)} ends instead of 2; score the run again")
    return report


def read_stimuli(path: str | Path) -> dict[str, Any]:
    """What is known of every stimulus; raises `UserError` as `read_report`, and for lists of different lengths."""
    source, stored = repr(str(path)), read_json(path, STIMULI)
    ids = stored.get("ids", [])
    parts = ("scores", "attributes")
    lists = {f"{part}.{name}": values for part in parts for name, values in stored.get(part, {}).items()}
    _require_lengths(source, lists, ids)
    each = stored.get("per_stimulus", {"ids": []})
    for direction in ("brain_to_image", "image_to_brain"):
        lists = {f"per_stimulus.{direction}.{name}": part for name, part in each.get(direction, {}).items()}
        _require_lengths(source, lists, each["ids"])
    for name, listed in (("ids", ids), ("per_stimulus.ids", each["ids"])):
        if len(set(listed)) != len(listed):
            raise UserError(f"{source}: {name} names a stimulus twice; score the run again")
    checked: dict[str, Any] = stored
    return checked


def require_agreement(report: dict[str, Any], stimuli: dict[str, Any], source: str | Path) -> None:
    """Raise `UserError` where a mean of the report is not that of the values of every stimulus."""
    pairs = [
        (f"reconstruction.{name}.value", entry["value"], stimuli.get("scores", {}).get(name))
        for name, entry in report.get("reconstruction", {}).items()
    ]
    pairs += [
        (f"attributes.{name}.accuracy", entry["accuracy"], stimuli.get("attributes", {}).get(name))
        for name, entry in report.get("attributes", {}).items()
    ]
    each = stimuli.get("per_stimulus", {})
    for direction in ("brain_to_image", "image_to_brain"):
        part = report.get("retrieval", {}).get(direction, {})
        pairs += [
            (f"retrieval.{direction}.{name}", part[name], each.get(direction, {}).get(name))
            for name in ("top1", "top5")
            if name in part
        ]
    for name, told, values in pairs:
        mean = math.fsum(values) / len(values) if values else told
        if abs(mean - told) > _NEAR * max(1.0, abs(told)):
            raise UserError(
                f"{str(source)!r}: {name} is {told:g}, the mean over its stimuli is {mean:g}; one of the two files is "
                "damaged, score the run again"
            )


def _intervals(report: dict[str, Any]) -> list[tuple[str, list[float]]]:
    found = [
        (f"reconstruction.{name}.ci95", entry["ci95"])
        for name, entry in report.get("reconstruction", {}).items()
        if entry.get("ci95")
    ]
    for name, entry in report.get("reconstruction", {}).items():
        rows = entry.get("minus_control", {}).items()
        found += [(f"reconstruction.{name}.minus_control.{row}.ci95", part["ci95"]) for row, part in rows]
    found += [(f"fine_power.{name}.ci95", entry["ci95"]) for name, entry in report.get("fine_power", {}).items()]
    for direction in ("brain_to_image", "image_to_brain"):
        part = report.get("retrieval", {}).get(direction, {})
        found += [(f"retrieval.{direction}.ci95_top1", part["ci95_top1"])] if "ci95_top1" in part else []
    return found


def _require_lengths(source: str, lists: dict[str, list[float]], ids: list[str]) -> None:
    for name, values in lists.items():
        if len(values) != len(ids):
            raise UserError(f"{source}: {name} has {len(values)} values for {len(ids)} stimuli; score the run again")
