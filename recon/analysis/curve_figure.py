"""The figure of `recon.analysis.picture_curves`."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from recon.analysis.curve_text import points_of
from recon.analysis.figures import COLOURS, new_figure, save, tidy

PANELS = {
    "bottleneck": ("components of the tokens given to the generator", ("bottleneck predicted", "bottleneck oracle")),
    "repetitions": ("repetitions of the test picture averaged", ("repetitions",)),
}
_STYLES = {
    "bottleneck predicted": (COLOURS[0], "-", "o", "predicted tokens"),
    "bottleneck oracle": (COLOURS[2], "-", "s", "true tokens"),
    "repetitions": (COLOURS[0], "-", "o", "predicted tokens"),
    "oracle": (COLOURS[2], "--", "", "ceiling: oracle, whole tokens"),
    "shuffled": (COLOURS[1], "--", "", "floor: shuffled"),
}


def plot_curves(result: dict[str, Any], path: Path) -> None:
    """A row of panels per metric: score against rank, and against repetitions; bands are 95 % over pictures.

    The points of a panel are evenly spaced, whatever their numbers. A curve that is absent leaves its reason.
    """
    metrics = list(result["shuffled"])
    figure = new_figure(10.4, 1.3 + 3.2 * len(metrics))
    grid = figure.subplots(len(metrics), 2, sharey="row", squeeze=False)
    for metric, row in zip(metrics, grid, strict=True):
        for axes, (name, (label, curves)) in zip(row, PANELS.items(), strict=True):
            tidy(axes)
            if result[name] is None:
                axes.set_xticks([])
                reason = textwrap.fill(f"{name}: absent. {result['absent'][name]}", 44)
                axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", va="center", fontsize=9)
            else:
                _draw(axes, result, metric, curves)
                axes.set_xlabel(label, fontsize=9)
        row[0].set_ylabel(metric)
    _legend(figure, grid)
    figure.suptitle(
        f"{result['study']}, subject {result['subject']}: {result['encoder']} on layer {result['layer']} of "
        f"{result['backbone']}, generator {result['generator']}\n"
        f"TEST rows, n {result['n_stimuli']} at every point, bands: 95 % over pictures; "
        "a description, nothing is chosen from these curves",
        fontsize=9.5,
    )
    save(figure, path)


def _draw(axes: Any, result: dict[str, Any], metric: str, curves: tuple[str, ...]) -> None:
    for name in ("oracle", "shuffled"):
        entry, (colour, style, _, label) = result[name][metric], _STYLES[name]
        axes.axhspan(*entry["ci95"], color=colour, alpha=0.08, linewidth=0)
        axes.axhline(entry["value"], color=colour, linestyle=style, linewidth=1.2, label=label)
    if metric in result["chance"]:
        axes.axhline(result["chance"][metric], color="0.35", linestyle=":", linewidth=1.2, label="chance")
    for name in curves:
        points, (colour, style, marker, label) = points_of(result)[name], _STYLES[name]
        place = list(range(len(points)))
        low, high = ([scores[metric]["ci95"][end] for _, scores in points] for end in (0, 1))
        axes.fill_between(place, low, high, color=colour, alpha=0.16, linewidth=0)
        values = [scores[metric]["value"] for _, scores in points]
        axes.plot(place, values, style, marker=marker, markersize=4.5, color=colour, label=label)
        axes.set_xticks(place, [str(x) for x, _ in points])
        axes.set_xlim(-0.3, len(points) - 0.7)


def _legend(figure: Any, grid: Any) -> None:
    """One for all panels, each label once, below them."""
    named: dict[str, Any] = {}
    for axes in grid.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    figure.legend(
        named.values(), named.keys(), loc="outside lower center", ncols=min(5, len(named)), frameon=False, fontsize=8.5
    )
