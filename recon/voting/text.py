"""The scores of votes for the terminal."""

from __future__ import annotations

from typing import Any

from recon.metrics.skipped import skipped_lines


def format_votes(result: dict[str, Any]) -> str:
    """Lines of all that `recon score-votes` found."""
    voters = len(result["voters"])
    lines = [
        f"study {result['study']}, subject {result['subject']}: {result['votes']} votes of {voters} "
        f"voter{'s' if voters > 1 else ''}, tables {', '.join(result['tables'])}",
        f"{'shown':<24}{'correct':>9}{'95 %':>18}{'p':>9}{'votes':>8}{'stimuli':>9}",
    ]
    for name, entry in result["conditions"].items():
        start = f"{name:<24}{entry['accuracy']:>9.3f}{_ends(entry):>18}{_p(entry['p']):>9}"
        lines.append(f"{start}{entry['n']:>8}{entry['stimuli']:>9}")
    kinds = dict.fromkeys(entry["interval"] for entry in result["conditions"].values())
    lines.append(f"chance .5, p one-sided over stimuli; interval: {', '.join(kinds)}")
    for name, entry in result["differences"].items():
        told = f"{entry['difference']:+.3f} ({_ends(entry)}), p {_p(entry['p'])}, {entry['stimuli']} stimuli"
        lines.append(f"reconstructed minus {name}: {told}")
    agreement = {name: entry for name, entry in result["voter_agreement"].items() if entry is not None}
    for name, entry in agreement.items():
        kappa = "-" if entry["kappa"] is None else f"{entry['kappa']:.2f}"
        lines.append(f"voters agree, {name}: {entry['share']:.3f} of pairs (kappa {kappa}, {entry['trials']} trials)")
    if result["metrics"]:
        lines.append(f"{'agreement with voters':<42}{'':<16}{'share':>7}{'95 %':>18}{'expected':>10}{'correct':>9}")
    for metric, conditions in result["metrics"].items():
        for name, entry in conditions.items():
            start = f"{metric:<42}{name:<16}{entry['agreement']:>7.3f}{_ends(entry):>18}"
            lines.append(f"{start}{entry['expected']:>10.3f}{entry['metric_accuracy']:>9.3f}")
    return "\n".join([*lines, *skipped_lines(result["skipped"])])


def _ends(entry: dict[str, Any]) -> str:
    low, high = entry["ci95"]
    return f"{low:.3f} to {high:.3f}"


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else f"{value:.3f}"
