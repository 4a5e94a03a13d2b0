"""A report as lines of text for the terminal."""

from __future__ import annotations

from typing import Any


def format_report(report: dict[str, Any]) -> str:
    """Retrieval with chance, then one line per row of pictures and one column per metric, what changes with the seed
    of the noise, then what was skipped."""
    head = f"{report['study']}, subject {report['subject']}, layer {report['layer']} of {report['backbone']}"
    lines = [f"{head} (chosen on: {report['layer_chosen_on']}), seed {report['seed']}"]
    for direction in ("brain_to_image", "image_to_brain"):
        if "retrieval" in report:
            lines.append(_direction(direction, report["retrieval"][direction]))
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
    lines += [f"skipped {name}: {reason}" for name, reason in report.get("skipped", {}).items()]
    return "\n".join(lines)


_SHOWN = ("seen", "oracle", "shuffled")


def _direction(name: str, part: dict[str, Any]) -> str:
    low, high = part["ci95_top1"]
    return (
        f"{name}  top1 {part['top1']:6.1%} [{low:.1%}, {high:.1%}]  top5 {part['top5']:6.1%}  median rank "
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
    entries = report["reconstruction"]
    width = max(len(name) for name in entries) + 2
    rows = {"reconstruction": entries, **report["controls"]}
    arrow = {"higher": "+", "lower": "-"}
    header = f"{'':<24}" + "".join(f"{name + arrow[entry['better']]:>{width}}" for name, entry in entries.items())
    lines = [header]
    for row, scores in rows.items():
        lines.append(f"{row:<24}" + "".join(f"{scores[name]['value']:>{width}.3f}" for name in entries))
    for control in ("shuffled", "grey", "mean_image", "pixel_ridge"):
        if control in report["controls"]:
            values = "".join(f"{entry['p_vs_control'][control]:>{width}.2g}" for entry in entries.values())
            lines.append(f"{'p against ' + control:<24}" + values)
    lines += [
        f"{name} minus {control}: {part['value']:+.3f} [{part['ci95'][0]:+.3f}, {part['ci95'][1]:+.3f}] (paired)"
        for name, entry in entries.items()
        for control, part in entry.get("minus_control", {}).items()
    ]
    n = next(iter(entries.values()))["n"]
    return [*lines, f"n {n}, judge {report['judge']}, + higher is better, - lower is better"]
