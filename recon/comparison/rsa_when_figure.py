"""The figure of `recon rsa --width`: layers by time as cells, and every layer as a curve under the noise ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from recon.analysis.cells import draw_cells
from recon.analysis.figures import SIGNIFICANT, new_figure, tidy
from recon.comparison.networks import short_name


def draw_rsa_when(result: Mapping[str, Any]) -> Any:
    """Two lines of panels per area, a column per network: cells (layer, window) above, curves of layers below."""
    areas, networks = result["areas"], list(result["networks"])
    figure = new_figure(max(6.4, 4.2 * len(networks) + 1.6), 5.6 * len(areas) + 0.7)
    grid = figure.subplots(2 * len(areas), len(networks), sharex="row", squeeze=False)
    for k, entry in enumerate(areas):
        when, cells, curves = entry["when"], grid[2 * k], grid[2 * k + 1]
        found = [_values(one) for one in when["networks"].values()]
        limits = (min(0.0, *(part.min() for part in found)), max(part.max() for part in found))
        people = f"{len(entry['subjects'])} subject{'s' if len(entry['subjects']) > 1 else ''}"
        for name, above, below in zip(networks, cells, curves, strict=True):
            drawn = _draw_cells(above, when, name, limits)
            above.set_title(f"{entry['area']}, {short_name(name)}: {people}", fontsize=9)
            lines = _draw_curves(below, when, name)
        cells[0].set_ylabel("layer")
        curves[0].set_ylabel("similarity, Spearman")
        figure.colorbar(drawn, ax=list(cells), label="similarity, Spearman")
        figure.colorbar(lines, ax=list(curves), label="relative depth of the layer")
    for axes in grid[-1]:
        axes.set_xlabel("time after onset, ms (middle of the window)")
    settings = result["settings"]
    figure.suptitle(
        f"windows of {1000 * settings['width']:.0f} ms; rank correlation of dissimilarities ({settings['distance']}, "
        f"pooling {result['pooling']})\nwhite line: clusters with p ≤ {SIGNIFICANT}; triangle: onset; dot: peak; grey: "
        "noise ceiling; band: 95 % of the layer that is most alike",
        fontsize=9,
    )
    return figure


def _values(one: Mapping[str, Any]) -> np.ndarray:
    """(L, W) of a network."""
    return np.array([[point["similarity"] for point in curve["points"]] for curve in one["layers"].values()])


def _draw_cells(axes: Any, when: Mapping[str, Any], name: str, limits: tuple[float, float]) -> Any:
    one, time = when["networks"][name], _time(when)
    layers = list(one["layers"])
    above = np.zeros((len(layers), len(time)), dtype=bool)
    for k, curve in enumerate(one["layers"].values()):
        for cluster in curve["clusters"]:
            if cluster["p"] <= SIGNIFICANT:
                above[k, cluster["first_window"] : cluster["last_window"] + 1] = True
    drawn = draw_cells(axes, time, np.arange(len(layers)), _values(one), above, limits)
    style = {"color": "white", "markeredgecolor": "black", "linestyle": "none", "markersize": 5}
    for k, curve in enumerate(one["layers"].values()):
        if curve["onset"]:
            axes.plot(1000 * curve["onset"]["centre"], k, marker=">", **style)
            axes.plot(1000 * curve["peak"]["centre"], k, marker="o", **style)
    axes.set_yticks(range(len(layers)), layers, fontsize=6 if len(layers) > 12 else 8)
    _draw_stimulus(axes, time)
    return drawn


def _draw_curves(axes: Any, when: Mapping[str, Any], name: str) -> Any:
    """Layers in the colour of their depth, the band of the best one, the ceiling; returns what a colour bar needs."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    layers, time = when["networks"][name]["layers"], _time(when)
    colours = ScalarMappable(Normalize(0, 1), "viridis")
    ceilings = [window["ceiling"] for window in when["windows"]]
    if all(ceiling["lower"] is not None for ceiling in ceilings):
        axes.fill_between(time, *([c[end] for c in ceilings] for end in ("lower", "upper")), color="0.85", linewidth=0)
    best = max(layers, key=lambda layer: layers[layer]["peak"]["similarity"])
    for k, (layer, curve) in enumerate(layers.items()):
        colour = colours.cmap(k / max(len(layers) - 1, 1))
        if layer == best:
            low, high = ([point["ci95"][end] for point in curve["points"]] for end in (0, 1))
            axes.fill_between(time, low, high, color=colour, alpha=0.25, linewidth=0)
        axes.plot(time, [point["similarity"] for point in curve["points"]], color=colour, linewidth=1.2)
    axes.axhline(0, color="0.35", linestyle=":", linewidth=1)
    _draw_stimulus(axes, time)
    tidy(axes)
    return colours


def _draw_stimulus(axes: Any, time: np.ndarray) -> None:
    if time[0] < 0 < time[-1]:
        axes.axvline(0, color="0.6", linewidth=1)


def _time(when: Mapping[str, Any]) -> np.ndarray:
    """Middles of windows, ms."""
    return 1000 * np.array([window["centre"] for window in when["windows"]])
