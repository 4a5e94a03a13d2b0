"""Figures of universality: how its values are spread, beside the brain's, and when the brain carries them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recon.analysis.figures import COLOURS, new_figure, save, tidy
from recon.comparison.networks import short_name

__all__ = ["draw_density", "draw_when", "save"]


def draw_density(result: Mapping[str, Any], table: Mapping[str, np.ndarray]) -> Any:
    """Universality of every network's dimensions as curves; with a brain, density over both; universality by depth."""
    brain = "brain_similarity" in table
    figure = new_figure(14 if brain else 9.5, 4.4)
    panels = figure.subplots(1, 3 if brain else 2)
    networks = list(dict.fromkeys(table["network"].tolist()))
    edges = np.linspace(min(-0.2, float(table["universality"].min())), 1, 49)
    middles = (edges[1:] + edges[:-1]) / 2
    for k, name in enumerate(networks):
        part = table["universality"][table["network"] == name]
        share = np.histogram(part, edges)[0] / len(part)
        colour = COLOURS[k % len(COLOURS)]
        panels[0].plot(middles, share, color=colour, label=short_name(name))
        limit = result["by_network"][name]["null_95"]
        if limit is not None:
            panels[0].axvline(limit, color=colour, linestyle=":", linewidth=1)
        _draw_depth(panels[1], table, name, colour)
    panels[0].set(xlabel="universality, r", ylabel="share of dimensions (dotted: 95 % of the shuffled)")
    panels[0].legend(frameon=False, fontsize=7.5)
    panels[1].set(xlabel="relative depth of the layer", ylabel="universality: median and quartiles", ylim=(None, 1))
    if brain:
        _draw_both(figure, panels[2], result, table)
    for axes in panels:
        tidy(axes)
    pictures = result["pictures"]
    figure.suptitle(
        f"{result['n_dimensions']} dimensions, fitted on {pictures['fitted']['n']} pictures, "
        f"scored on {pictures['scored']['n']} others",
        fontsize=10,
    )
    return figure


def _draw_depth(axes: Any, table: Mapping[str, np.ndarray], name: str, colour: str) -> None:
    rows = table["network"] == name
    depths = np.unique(table["depth"][rows])
    cells = [np.percentile(table["universality"][rows & (table["depth"] == d)], [25, 50, 75]) for d in depths]
    low, middle, high = np.array(cells).T
    axes.fill_between(depths, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.plot(depths, middle, "o-", markersize=3, color=colour)


def _draw_both(figure: Any, axes: Any, result: Mapping[str, Any], table: Mapping[str, np.ndarray]) -> None:
    from matplotlib.colors import LogNorm

    drawn = axes.hexbin(
        table["universality"], table["brain_similarity"], gridsize=45, mincnt=1, norm=LogNorm(), cmap="viridis"
    )
    figure.colorbar(drawn, ax=axes, label="dimensions")
    plain, given = (result["association"][name]["rho"] for name in ("plain", "given_variance"))
    p = result["shuffled"]["plain"]["p"]
    axes.set_title(f"rank correlation {plain:.2f}, given variance {given:.2f} (p {p:.2g})", fontsize=9)
    axes.set(xlabel="universality, r", ylabel="brain similarity, r (brain to dimension)")


def draw_when(result: Mapping[str, Any]) -> Any:
    """Similarity of the most and of the least universal dimensions in windows, and its rank correlation with it."""
    course = result["when"]
    figure = new_figure(10.8, 4.0)
    panels = figure.subplots(1, 2, sharex=True)
    _draw_courses(panels[0], course, {"most": "most", "least": "least"}, COLOURS[:2])
    _draw_courses(panels[1], course, {"association": "rank_correlation"}, COLOURS[2:])
    panels[0].set(ylabel="brain similarity, r (brain to dimension)")
    panels[0].set_title(f"{course['dimensions_each']} dimensions each; bars: clusters with p ≤ 0.05", fontsize=9)
    panels[0].legend([f"{name} universal" for name in ("most", "least")], frameon=False, fontsize=8)
    panels[1].set(ylabel="rank correlation")
    panels[1].set_title("universality and brain similarity, over these dimensions", fontsize=9)
    for axes in panels:
        axes.axhline(0, color="0.35", linestyle="--", linewidth=1)
        axes.set_xlabel("time after onset, ms (middle of the window)")
        tidy(axes)
    return figure


def _draw_courses(axes: Any, course: Mapping[str, Any], keys: Mapping[str, str], colours: Sequence[str]) -> None:
    """Curves over windows, and their clusters as bars below all of them; ``keys``: course to its value in a window."""
    time = [1000 * point["centre"] for point in course["points"]]
    curves = {name: [point[key] for point in course["points"]] for name, key in keys.items()}
    for values, colour in zip(curves.values(), colours, strict=False):
        axes.plot(time, values, color=colour)
    low = min(0.0, *(min(values) for values in curves.values()))
    top = max(abs(value) for values in curves.values() for value in values)
    for k, (name, colour) in enumerate(zip(curves, colours, strict=False)):
        for cluster in course[name]["clusters"]:
            if cluster["p"] <= 0.05:
                ends = [1000 * cluster["begin"], 1000 * cluster["end"]]
                axes.plot(ends, [low - top * (0.08 + 0.06 * k)] * 2, color=colour, linewidth=3)
