"""The figure of `recon timecourse --generalise`: windows of fitting against windows of scoring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from recon.analysis.cells import draw_cells
from recon.analysis.figures import SIGNIFICANT, new_figure, save


def plot_generalisation(result: dict[str, Any], path: Path) -> None:
    """Write the figure of `draw_generalisation`."""
    save(draw_generalisation(result), path)


def draw_generalisation(result: dict[str, Any]) -> Any:
    """A line of panels per subject (and their mean), a column per layer: top-1, clusters above chance, the diagonal."""
    subjects, layers = result["subjects"], result["layers"]
    figure = new_figure(3.2 * len(layers) + 2.0, 3.1 * len(subjects) + 1.0)
    grid = figure.subplots(len(subjects), len(layers), sharex=True, sharey=True, squeeze=False)
    for line, (subject, entry) in zip(grid, subjects.items(), strict=True):
        top = max(
            value for curve in entry["layers"].values() for row in curve["generalisation"]["top1"] for value in row
        )
        for axes, (layer, curve) in zip(line, entry["layers"].items(), strict=True):
            drawn = _draw(axes, curve, top)
            name = "mean of subjects" if subject == "mean" else f"subject {subject}"
            axes.set_title(f"{name}, layer {layer}", fontsize=9)
        line[0].set_ylabel("decoder fitted at, ms", fontsize=9)
        label = f"brain → image top-1, %\n(chance {100 * curve['chance']:.2g} %)"
        figure.colorbar(drawn, ax=list(line), label=label, shrink=0.9)
    for axes in grid[-1]:
        axes.set_xlabel("scored at, ms (middle of the window)", fontsize=9)
    code = f" ({result['code']})" if "code" in result else ""
    figure.suptitle(
        f"{result['study']}{code}, {result['backbone']}: windows of {1000 * result['width']:.0f} ms, n {curve['n']}, "
        f"{'TEST rows' if result['split'] == 'test' else 'cross-validated training rows'}\n"
        f"line: clusters with p ≤ {SIGNIFICANT}; dashed: decoders in their own window",
        fontsize=9,
    )
    return figure


def _draw(axes: Any, curve: dict[str, Any], top: float) -> Any:
    time = 1000 * np.array([point["centre"] for point in curve["points"]])
    matrix = curve["generalisation"]
    p = np.array([[np.nan if value is None else value for value in row] for row in matrix["p_cluster"]])
    drawn = draw_cells(axes, time, time, 100 * np.array(matrix["top1"]), p <= SIGNIFICANT, (0.0, 100 * top))
    axes.plot(time[[0, -1]], time[[0, -1]], "--", color="0.7", linewidth=0.8)
    if time[0] < 0 < time[-1]:
        axes.axvline(0, color="0.7", linewidth=0.8)
        axes.axhline(0, color="0.7", linewidth=0.8)
    axes.set_aspect("equal")
    return drawn
