"""The curves of `recon.analysis.picture_curves` as table, as lines for the terminal, and in words."""

from __future__ import annotations

from typing import Any

from recon.analysis.repeats import csv_table
from recon.evaluation.judges import described

CURVES = ("bottleneck predicted", "bottleneck oracle", "repetitions")


def points_of(result: dict[str, Any]) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """By name in `CURVES` the points (rank or repetitions, scores by metric); empty for a curve that is absent."""
    found: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for name in CURVES:
        curve, _, side = name.partition(" ")
        part = result[curve] or {}
        key = "rank" if curve == "bottleneck" else "repetitions"
        points = part.get(side or "points", [])
        found[name] = [(p[key], {m: entry for m, entry in p.items() if m != key}) for p in points]
    return found


def curve_table(result: dict[str, Any]) -> str:
    """Tidy CSV: one line per curve, point and metric; floor and ceiling have no x."""
    points: list[tuple[str, int | str, dict[str, Any]]] = [(name, "", result[name]) for name in ("shuffled", "oracle")]
    points += [(name, x, scores) for name, curve in points_of(result).items() for x, scores in curve]
    lines = [
        {
            "curve": name,
            "x": x,
            "metric": metric,
            "value": entry["value"],
            "ci95_low": entry["ci95"][0],
            "ci95_high": entry["ci95"][1],
            "n": entry["n"],
            "chance": result["chance"].get(metric, ""),
        }
        for name, x, scores in points
        for metric, entry in scores.items()
    ]
    return csv_table(lines)


def format_curves(result: dict[str, Any]) -> str:
    """A few lines for the terminal."""

    def told(scores: dict[str, Any]) -> str:
        each = (f"{m} {e['value']:.3f} [{e['ci95'][0]:.3f}, {e['ci95'][1]:.3f}]" for m, e in scores.items())
        return "   ".join(each)

    lines = [f"{result['study']} subject {result['subject']}, n {result['n_stimuli']}; {result['rule']}"]
    ends = {"shuffled": "shuffled, as predicted", "oracle": "oracle, whole tokens"}
    lines += [f"  {text:<28} {told(result[name])}" for name, text in ends.items()]
    for name, curve in points_of(result).items():
        lines += [f"  {name:<22} {x:>5} {told(scores)}" for x, scores in curve]
    lines += [f"  {name}: absent, {reason}" for name, reason in result["absent"].items()]
    lines += [f"  {name}: skipped, {reason}" for name, reason in result["skipped"].items()]
    judges = " and ".join(described(result))
    return "\n".join([*lines, f"chance of two_way .5; of PixCorr: the shuffled control; judge {judges}"])


def caption(result: dict[str, Any]) -> str:
    """What the figure shows, in words: for a reader who does not see it."""

    def ends(name: str, metric: str) -> str:
        (first, a), (last, b) = points_of(result)[name][0], points_of(result)[name][-1]
        return f"{a[metric]['value']:.2f} at {first} to {b[metric]['value']:.2f} at {last}"

    told = []
    for metric in result["shuffled"]:
        parts = [f"{name} {ends(name, metric)}" for name, points in points_of(result).items() if points]
        parts += [f"{name} {result[name][metric]['value']:.2f}" for name in ("shuffled", "oracle")]
        told.append(f"{metric}: {', '.join(parts)}")
    told += [f"{name} is absent: {reason}" for name, reason in result["absent"].items()]
    return f"n {result['n_stimuli']}. {'; '.join(told)}. Test rows; nothing is chosen from these curves."
