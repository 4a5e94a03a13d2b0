"""A report as lines of text for the terminal."""

from __future__ import annotations

from typing import Any

from align.data.preparing.selection import in_words
from recon.decoding.conditions import LIKELIEST
from recon.evaluation.judges import described, split_by_judge
from recon.evaluation.provenance import choice_of_layer
from recon.metrics.skipped import skipped_lines


def format_report(report: dict[str, Any]) -> str:
    """Retrieval with chance, then one line per row of pictures and one column per metric, what changes with the seed
    of the noise, then what was skipped."""
    head = f"{report['study']}, subject {report['subject']}, layer {report['layer']} of {report['backbone']}"
    signals = f", {in_words(report['selection'])}" if report.get("selection") else ""
    lines = [f"{head} ({choice_of_layer(report['layer_chosen_on'])}){signals}, seed {report['seed']}"]
    for direction in ("brain_to_image", "image_to_brain"):
        if "retrieval" in report:
            lines.append(direction_line(direction, report["retrieval"][direction]))
    for member in report.get("ensemble", {}).get("members", []):
        lines.append(_alone(member))
    if "reconstruction" in report:
        lines += ["", *_pictures(report), *_fine(report.get("fine_power", {})), *_seeds(report.get("seeds", {}))]
    for name, part in report.get("attributes", {}).items():
        rows = "  ".join(f"{row} {value:.2f}" for row, value in part["controls"].items() if row in _SHOWN)
        lines.append(
            f"{name:<14} read back {part['accuracy']:.2f} (chance {part['chance']:.2f}, "
            f"p {part['p_permutation']:.2g})  {rows}"
        )
    lines += [f"note: {note}" for note in report.get("notes", [])]
    lines += skipped_lines(report.get("skipped", {}))
    return "\n".join(lines)


_SHOWN = ("seen", "oracle", "shuffled")
_P_SHOWN = ("shuffled", "grey", "mean_image", "pixel_ridge")
_COMPARED = ("shuffled", "nearest_training_image")  # with their paired differences, beside the likeliest picture
_ARROW = {"higher": "+", "lower": "-"}


def direction_line(name: str, part: dict[str, Any]) -> str:
    """One direction of retrieval on one line: scores, interval, chance, n, p."""
    low, high = part["ci95_top1"]
    return (
        f"{name:<14}  top1 {part['top1']:6.1%} [{low:.1%}, {high:.1%}]  top5 {part['top5']:6.1%}  median rank "
        f"{part['median_rank']:g}  (chance {part['chance_top1']:.2%}, n {part['n']}, candidates {part['candidates']}, "
        f"p {part['p_permutation']:.2g})"
    )


def _alone(member: dict[str, Any]) -> str:
    own = {key: member[key]["brain_to_image"] for key in ("top1", "ci95_top1", "chance_top1", "n", "candidates")}
    low, high = own["ci95_top1"]
    return (
        f"  alone         top1 {own['top1']:6.1%} [{low:.1%}, {high:.1%}]  seed {member['seed']}, layer "
        f"{member['layer']} of {member['backbone']}, {member['encoder']}, {member['path']}  (chance "
        f"{own['chance_top1']:.2%}, n {own['n']}, candidates {own['candidates']})"
    )


def _fine(part: dict[str, Any]) -> list[str]:
    """Power beyond 8 cycles a picture beside that of the seen pictures, with its interval."""

    def told(entry: dict[str, Any]) -> str:
        return f"{entry['value']:.2f} [{entry['ci95'][0]:.2f}, {entry['ci95'][1]:.2f}]"

    rows = ", ".join(f"{name} {told(entry)}" for name, entry in part.items())
    n = next(iter(part.values()))["n"] if part else 0
    return [f"fine detail over that of the seen pictures (n {n}, 1 = as much): {rows}"] if part else []


def _seeds(part: dict[str, Any]) -> list[str]:
    """One line per metric that was computed for every seed of the pictures."""
    seeds = ", ".join(str(seed) for seed in part.get("seeds", []))
    return [
        f"{name:<18} of seeds {seeds}: {' '.join(f'{value:.3f}' for value in entry['values'])}  sd between seeds "
        f"{entry['sd_between_seeds']:.3f}, within a stimulus {entry['sd_within_stimulus']:.3f}, between stimuli "
        f"{entry['sd_between_stimuli']:.3f} (n {part['n']})"
        for name, entry in part.items()
        if name not in ("seeds", "n")
    ]


def _pictures(report: dict[str, Any]) -> list[str]:
    """A block of columns for the metrics and the first judge, one for the second judge, differences, who judged."""
    n = next(iter(report["reconstruction"].values()))["n"]
    lines = []
    for ending, entries in split_by_judge(report).items():
        lines += [*_block(report, entries, ending), ""]
    lines += [
        f"{name} minus {control}: {part['value']:+.3f} [{part['ci95'][0]:+.3f}, {part['ci95'][1]:+.3f}] (paired)"
        for name, entry in report["reconstruction"].items()
        for control, part in entry.get("minus_control", {}).items()
        if control == LIKELIEST or (name.startswith("two_way") and control in _COMPARED)
    ]
    judges = " and ".join(described(report))
    return [*lines, f"n {n}, judge {judges}, + higher is better, - lower is better"]


def _block(report: dict[str, Any], entries: dict[str, Any], ending: str) -> list[str]:
    """One line per row of pictures, one column per score; ``ending`` of the names is said once, in the corner."""
    heads = {name: name.removesuffix(ending) + _ARROW[entry["better"]] for name, entry in entries.items()}
    width = max(map(len, heads.values())) + 1
    rows = {"reconstruction": entries, **report["controls"]}
    lines = [f"{ending.strip('()'):<24}" + "".join(f"{head:>{width}}" for head in heads.values())]
    for row, scores in rows.items():
        lines.append(f"{row:<24}" + "".join(f"{scores[name]['value']:>{width}.3f}" for name in entries))
    if any("chance" in entry for entry in entries.values()):
        chances = (f"{entry['chance']:.3g}" if "chance" in entry else "" for entry in entries.values())
        lines.append(f"{'chance':<24}" + "".join(f"{chance:>{width}}" for chance in chances))
    for control in _P_SHOWN:
        if control in report["controls"]:
            values = "".join(f"{entry['p_vs_control'][control]:>{width}.2g}" for entry in entries.values())
            lines.append(f"{'p against ' + control:<24}" + values)
    return lines
