"""What `recon encode` prints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from recon.encoding.summary import LEVEL

REGIONS = 20  # that are printed


def encoding_text(result: Mapping[str, Any]) -> str:
    """A table of sets and methods, paired comparisons, and which subjects have a ceiling."""
    lines = [f"{result['study']}, {result['direction']}: {result['rule']}"]
    lines.append(
        f"  {'features':<28} {'method':<16} {'pictures':>8} {'r, mean over units':>26} {'corrected':>10} {'top-1':>7}"
    )
    for row in result["mean"]:
        ends = f" [{row['t95'][0]:.3f}, {row['t95'][1]:.3f}]" if row["t95"] else ""
        fixed = "" if row["corrected"] is None else f"{row['corrected']:.3f}"
        named = "" if row["identification"] is None else f"{row['identification']:.3f}"
        r = f"{row['r']:.3f}{ends}"
        lines.append(f"  {row['set']:<28} {row['method']:<16} {row['pictures']!s:>8} {r:>26} {fixed:>10} {named:>7}")
    lines += [_pair(pair) for pair in result["paired"]]
    entries = result["subjects"]
    known = [name for name, entry in entries.items() if entry["ceiling"]]
    lacking = [name for name in entries if name not in known]
    if known:
        ceilings = ", ".join(f"{name} {entries[name]['ceiling']['ceiling_mean']:.3f}" for name in known)
        lines.append(f"ceiling of r, mean over units: subject {ceilings}")
    if lacking:
        lines.append(f"no ceiling without repetitions: subject {', '.join(lacking)}")
    for name, entry in entries.items():
        lines += [line for score in entry["scores"] for line in _regions(name, score, len(entry["scores"]) > 1)]
        lines += _too_few(name, entry, result)
        if entry["partition"]:
            lines += _parts(name, entry["partition"])
    return "\n".join(lines)


def _regions(name: str, score: Mapping[str, Any], several: bool) -> list[str]:
    """Mean r of each region, the highest first."""
    if not score["regions"]:
        return []
    which = f" ({score['set']}, {score['method']}, {score['pictures']})" if several else ""
    found = sorted(score["regions"].items(), key=lambda item: -item[1])
    more = f", and {len(found) - REGIONS} more" if len(found) > REGIONS else ""
    return [f"r by region, subject {name}{which}: {', '.join(f'{area} {r:.3f}' for area, r in found[:REGIONS])}{more}"]


def _too_few(name: str, entry: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    """Where permutations are too few for any unit to be called significant: q is at least p times units over rank."""
    if any(score["significant"] for score in entry["scores"]):
        return []
    units, folds = entry["units"], result["folds"]
    factor = 1 if folds == 1 else 2  # see align.response_models.scores.permutation_p
    least = factor / (1 + result["permutations"])
    needed = math.ceil(least * units / LEVEL - 1e-9)
    if needed < 2:
        return []
    reach = "no unit can reach" if needed > units else f"fewer than {needed} of {units} units cannot reach"
    return [
        f"subject {name}: with {result['permutations']} permutations p is {least:.2g} or more, so {reach} q .05; for "
        f"single units give --permutations {math.ceil(factor * units / LEVEL) - 1}"
    ]


def _pair(pair: Mapping[str, Any]) -> str:
    ends = f" [{pair['t95'][0]:+.3f}, {pair['t95'][1]:+.3f}]" if pair["t95"] else ""
    where = pair.get("set") or pair["method"]
    return (
        f"{pair['a']} - {pair['b']} ({where}, {pair['pictures']}): {pair['difference']:+.3f}{ends}, higher in "
        f"{100 * pair['better']:.0f} % of {pair['units']} units"
    )


def _parts(name: str, part: Mapping[str, Any]) -> list[str]:
    lines = [f"subject {name}: explained variance {part['full']:.3f}, shared by spaces {part['shared']:.3f}"]
    for space, values in part["spaces"].items():
        told = ", ".join(f"{what} {values[what]:.3f}" for what in ("unique", "alone", "product"))
        lines.append(f"  {space}: {told}")
    return lines
