"""A result of `recon.score` as lines for the terminal."""

from __future__ import annotations

from typing import Any

from recon.scoring.contest import DIRECTIONS


def format_score(result: dict[str, Any]) -> str:
    """Every score with its interval, chance, n, candidates and p; transductive ones apart; then the notes."""
    lines = [f"{direction:<32}{_direction(result[direction])}" for direction in DIRECTIONS]
    for part in ("within_category", "between_category"):
        lines += [f"{f'{part} {name}':<32}{_direction(entry)}" for name, entry in (result[part] or {}).items()]
    lines += _alike(result.get("alike"))
    for direction in DIRECTIONS:
        pools = [
            f"{pool}: {entry['top1']:.3f} / {entry['top5']:.3f}" for pool, entry in result[direction]["pools"].items()
        ]
        if pools:
            lines.append(f"{direction} expected top1 / top5 in smaller pools  {'   '.join(pools)}")
    if result["transductive"]:
        lines += ["", "transductive (these use the whole test set at once):"]
    for name, entry in result["transductive"].items():
        both = (
            {"": entry}
            if name == "hungarian"
            else {" brain_to_image": entry, " image_to_brain": entry["image_to_brain"]}
        )
        lines += [f"{f'  {name}{direction}':<32}{_direction(part)}" for direction, part in both.items()]
    return "\n".join([*lines, *(f"note: {note}" for note in result["notes"])])


def _alike(found: dict[str, Any] | None) -> list[str]:
    if not found:
        return []
    lines = [f"{f'alike in {name}':<32}{_direction(part)}" for name, part in found["of"].items()]
    for pair in found["pairs"]:
        interval = "" if pair["ci95"] is None else f" [{pair['ci95'][0]:+.3f}, {pair['ci95'][1]:+.3f}]"
        p = "" if pair["p"] is None else f"  (p {pair['p']:.2g})"
        lines.append(
            f"{'  difference above chance':<32}{pair['a']} - {pair['b']}: {pair['difference']:+.3f}{interval}{p}"
        )
    return lines


def _direction(part: dict[str, Any]) -> str:
    ks = [key for key in part if key.startswith("top")]
    shown = []
    for key in ks:
        interval = part.get(f"ci95_{key}")
        shown.append(f"{key} {part[key]:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""))
    if "median_rank" in part:
        shown.append(f"median rank {part['median_rank']:g}")
    told = [f"chance {part['chance_top1']:.2g}, n {part['n']}, candidates {part['candidates']:g}"]
    for key, what in (("p_permutation", "p of top1"), ("p_permutation_rank", "p of the ranks")):
        if part.get(key) is not None:
            told.append(f"{what} {part[key]:.2g}")
    return "  ".join(shown) + f"  ({', '.join(told)})"
