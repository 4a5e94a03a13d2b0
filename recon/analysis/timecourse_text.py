"""A time course as a table (CSV) and as lines for the terminal."""

from __future__ import annotations

import csv
import io
from typing import Any

from align.files.table import cell
from recon.analysis.clusters import LEVEL


def csv_text(result: dict[str, Any]) -> str:
    """Tidy table: one row per subject, layer and window; times in s."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ("begin", "end", "centre", "top1", "ci95_low", "ci95_high", "p_uncorrected")
    writer.writerow(["subject", "layer", "split", *columns, "p_cluster", "chance", "n", "candidates"])
    for subject, entry in result["subjects"].items():
        for layer, curve in entry["layers"].items():
            for w, point in enumerate(curve["points"]):
                inside = [c["p"] for c in curve["clusters"] if c["first_window"] <= w <= c["last_window"]]
                values = [*(point[k] for k in columns[:4]), *point["ci95"], point["p_uncorrected"]]
                facts = [inside[0] if inside else "", curve["chance"], curve["n"], curve["candidates"]]
                writer.writerow([cell(subject), cell(layer), result["split"], *values, *facts])
    return text.getvalue()


def generalisation_csv(result: dict[str, Any]) -> str:
    """One row per subject, layer, window of fitting and window of scoring; middles of windows, s."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    values = ("top1", "ci95_low", "ci95_high", "p_uncorrected", "p_cluster")
    writer.writerow(["subject", "layer", "split", "fitted_at", "scored_at", *values, "chance", "n", "candidates"])
    for subject, entry in result["subjects"].items():
        for layer, curve in entry["layers"].items():
            matrix, facts = curve["generalisation"], [curve["chance"], curve["n"], curve["candidates"]]
            times = [point["centre"] for point in curve["points"]]
            for i, fitted in enumerate(times):
                for j, scored in enumerate(times):
                    p = matrix["p_cluster"][i][j]
                    own = [matrix["top1"][i][j], *matrix["ci95"][i][j], matrix["p_uncorrected"][i][j]]
                    cells = [cell(subject), cell(layer), result["split"], fitted, scored, *own, "" if p is None else p]
                    writer.writerow([*cells, *facts])
    return text.getvalue()


def format_time_course(result: dict[str, Any]) -> str:
    """A few lines for the terminal; times in ms."""
    lines = [f"{result['study']}, {result['backbone']}: {result['rule']}"]
    for subject, entry in result["subjects"].items():
        for layer, curve in entry["layers"].items():
            onset, peak = curve["onset"], curve["peak"]
            told = "no cluster above chance" + (" from 0 ms on" if _significant(curve) else "")
            if onset is not None:
                reached = next(c for c in _significant(curve) if _middle(curve, c["last_window"]) >= onset["centre"])
                told = f"onset {moment_text(onset)}, cluster p {reached['p']:.2g}"
            told += before_stimulus(curve)
            lines.append(
                f"  {subject} layer {layer}: {told}; peak {moment_text(peak)} with top-1 {100 * peak['top1']:.1f} % "
                f"(chance {100 * curve['chance']:.2f} %, n {curve['n']})"
            )
            if "generalisation" in curve:
                lines.append(f"    {_reached(curve)}")
    return "\n".join(lines)


def _reached(curve: dict[str, Any]) -> str:
    """Where the decoder of the best window is above chance."""
    best = max(range(len(curve["points"])), key=lambda i: curve["points"][i]["top1"])
    told = f"the decoder of {1000 * curve['points'][best]['centre']:.0f} ms is above chance"
    reach = curve["generalisation"]["reach"][best]
    if not reach:
        return f"{told} nowhere"
    if reach[0] == reach[1]:
        return f"{told} in its own window alone"
    return f"{told} from {1000 * reach[0]:.0f} to {1000 * reach[1]:.0f} ms"


def before_stimulus(curve: dict[str, Any]) -> str:
    """A sentence about significant clusters that begin in a window without a sample after the stimulus; else ""."""
    early = [c for c in _significant(curve) if curve["points"][c["first_window"]]["end"] <= 0]
    if not early:
        return ""
    rule = "" if curve["onset"] is None else "; an onset is looked for from 0 ms on"
    return (
        f"; a cluster above chance (p {early[0]['p']:.2g}) begins at {1000 * early[0]['begin']:.0f} ms, before the "
        f"picture is shown: a filter that smears, a leak, or wrong times (tmin){rule}"
    )


def _significant(curve: dict[str, Any]) -> list[dict[str, Any]]:
    return [cluster for cluster in curve["clusters"] if cluster["p"] <= LEVEL]


def _middle(curve: dict[str, Any], window: int) -> float:
    return float(curve["points"][window]["centre"])


def moment_text(when: dict[str, Any]) -> str:
    """A time with its interval, in ms."""
    interval = f" [{1000 * when['ci95'][0]:.0f}, {1000 * when['ci95'][1]:.0f}]" if when["ci95"] else ""
    return f"{1000 * when['centre']:.0f} ms{interval}"
