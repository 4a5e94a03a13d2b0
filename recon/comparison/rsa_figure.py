"""The figure of `recon rsa`: similarity over depth with ceilings, and what subjects share beyond each layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recon.analysis.figures import COLOURS, new_figure, save, tidy
from recon.comparison.networks import short_name

__all__ = ["draw_rsa", "save"]
_COLUMNS = 4


def draw_rsa(result: Mapping[str, Any]) -> Any:
    """A panel per area; below it, where there are several subjects, their similarity with each layer taken out."""
    areas = result["areas"]
    shared = any(entry["between_subjects"] is not None for entry in areas)
    columns = min(len(areas), _COLUMNS)
    lines = -(-len(areas) // columns)
    figure = new_figure(max(8.0, 4.1 * columns), 3.3 * lines * (2 if shared else 1) + 1.2)
    grid = figure.subplots(lines * (2 if shared else 1), columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for k, entry in enumerate(areas):
        line, column = divmod(k, columns)
        axes = grid[line * (2 if shared else 1)][column]
        axes.axis("on")
        _draw_area(axes, entry)
        if entry["between_subjects"] is not None:
            below = grid[line * 2 + 1][column]
            below.axis("on")
            _draw_shared(below, entry)
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.suptitle(
        f"rank correlation of dissimilarities ({result['settings']['distance']}, pooling {result['pooling']}); "
        "band: 95 % over pictures and subjects",
        fontsize=9,
    )
    return figure


def _draw_area(axes: Any, entry: Mapping[str, Any]) -> None:
    lower, upper = entry["ceiling"]["lower"], entry["ceiling"]["upper"]
    if upper is not None and lower is not None:
        axes.axhspan(lower, upper, color="0.85", label="noise ceiling")
    for k, (name, one) in enumerate(entry["networks"].items()):
        depth = [point["depth"] for point in one["points"]]
        low, high = ([point["ci95"][end] for point in one["points"]] for end in (0, 1))
        colour, style = COLOURS[k % len(COLOURS)], "--" if "@untrained" in name else "-"
        axes.fill_between(depth, low, high, color=colour, alpha=0.1, linewidth=0)
        axes.plot(
            depth,
            [p["similarity"] for p in one["points"]],
            style,
            marker="o",
            markersize=3,
            color=colour,
            label=short_name(name),
        )
    axes.axhline(0, color="0.35", linestyle=":", linewidth=1)
    people = f"{len(entry['subjects'])} subject{'s' if len(entry['subjects']) > 1 else ''}"
    axes.set_title(f"{entry['area']}: {people}, {entry['n_pictures']} pictures", fontsize=9)
    axes.set(xlabel="relative depth", ylabel="similarity, Spearman")
    tidy(axes)


def _draw_shared(axes: Any, entry: Mapping[str, Any]) -> None:
    axes.axhline(entry["between_subjects"], color="0.35", linestyle="--", linewidth=1)
    for k, (name, one) in enumerate(entry["networks"].items()):
        depth = [point["depth"] for point in one["points"]]
        style = "--" if "@untrained" in name else "-"
        left = [point["between_subjects_given"] for point in one["points"]]
        axes.plot(depth, left, style, marker="o", markersize=3, color=COLOURS[k % len(COLOURS)])
    axes.set_title("between subjects; each layer taken out (dashed: none)", fontsize=9)
    axes.set(xlabel="relative depth", ylabel="similarity, Spearman")
    tidy(axes)
