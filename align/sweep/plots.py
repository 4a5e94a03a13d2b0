"""The figures of a sweep, from the content of sweep.json alone.

``layers.png``: accuracy over depth, validation and test apart. ``concepts.png``: the right picture against the right
concept. ``losses.png``: training and validation loss. ``scaling.png``: best layer against the size of the backbone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from align.files import atomic_path
from align.sweep.points import MIN_BACKBONES

FIGURES = ("layers.png", "concepts.png", "losses.png", "scaling.png")
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito: set apart by colour-blind readers
_ACROSS = 3  # panels side by side
_TURNED = 4  # letters from which layer names are turned

Value = Callable[[dict[str, Any]], tuple[float, list[float] | None]]  # of a point: height and interval
Draw = Callable[[Any, list[dict[str, Any]], list[str], dict[str, Any]], None]


def draw(summary: dict[str, Any], folder: Path) -> list[Path]:
    """Write the figures that this sweep has something for; returns their paths."""
    trained = any(point["loss"] for curve in summary["curves"] for point in curve["points"])
    panels: list[tuple[str, str, Draw]] = [
        ("layers.png", "brain → image top-1, %", _layers),
        ("concepts.png", "validation top-1, %", _concepts),
        *([("losses.png", "loss (weighted sum of its parts)", _losses)] if trained else []),
    ]
    written = []
    for name, label, inside in panels:
        _save(_over_depth(summary, label, inside), folder / name)
        written.append(folder / name)
    if any(len(found["points"]) >= MIN_BACKBONES for found in summary["scaling"].values()):
        _save(_scaling(summary), folder / "scaling.png")
        written.append(folder / "scaling.png")
    for name in FIGURES:  # of an earlier sweep
        if folder / name not in written:
            (folder / name).unlink(missing_ok=True)
    return written


def _over_depth(summary: dict[str, Any], label: str, inside: Draw) -> Any:
    """One panel per backbone with its layers from left to right, legends below."""
    names = list(dict.fromkeys(curve["backbone"] for curve in summary["curves"]))
    across = min(_ACROSS, len(names))
    down = -(-len(names) // across)
    figure, grid = _figure(7.6 * across, 5.8 * down), None
    grid = figure.subplots(2 * down, across, squeeze=False, height_ratios=[4, 1.2] * down)
    for spare in grid.flat[:]:
        spare.axis("off")
    shared = None
    for place, backbone in enumerate(names):
        row, column = divmod(place, across)
        axes, below = grid[2 * row][column], grid[2 * row + 1][column]
        axes.axis("on")
        if shared is None:
            shared = axes
        else:
            axes.sharey(shared)
        curves = [curve for curve in summary["curves"] if curve["backbone"] == backbone]
        layers = _layer_order(curves)
        inside(axes, curves, layers, summary)
        ticks = [_short(layer) for layer in layers]
        axes.set_xticks(range(len(layers)), ticks, rotation=40 if max(map(len, ticks)) >= _TURNED else 0)
        axes.set(xlabel=f"layer of {backbone} (depth →)", ylabel=label if column == 0 else None)
        _plain(axes)
        legend = below.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=8, ncols=2, loc="upper center")
        legend.set_in_layout(False)  # a wide one would take the room of the panels
    if shared is not None and inside is not _losses:
        shared.set_ylim(bottom=0)  # after all panels: it ends the growth of the common axis
    figure.suptitle(_title(summary), fontsize=11)
    return figure


def _short(layer: str) -> str:
    """Joined layers by the first, the last and their number: their whole name would fill the figure."""
    parts = layer.split("+")
    return layer if len(parts) < 3 else f"{parts[0]} … {parts[-1]} ({len(parts)})"


def _layer_order(curves: list[dict[str, Any]]) -> list[str]:
    """Swept layers by depth; the last layer behind them where it was refitted without being swept."""
    names = list(dict.fromkeys(point["layer"] for curve in curves for point in curve["points"]))
    return [*names, *[curve["last"] for curve in curves[:1] if curve["test"] and curve["last"] not in names]]


def _layers(axes: Any, curves: list[dict[str, Any]], names: list[str], summary: dict[str, Any]) -> None:
    for place, (curve, colour) in enumerate(zip(curves, _COLOURS * len(curves), strict=False)):
        label = f"{curve['encoder']}: validation{_band(curve)}"
        x = _line(axes, curve, names, colour, label, lambda point: (point["top1"], point["ci95"]))
        chosen = [point["layer"] for point in curve["points"]].index(curve["chosen"])
        ring = {"markersize": 13, "markerfacecolor": "none", "markeredgecolor": colour, "markeredgewidth": 1.8}
        top = 100 * curve["points"][chosen]["top1"]
        axes.plot(
            x[chosen], top, "o", label=f"{curve['encoder']}: chosen on validation: {_short(curve['chosen'])}", **ring
        )
        _test_points(axes, curve, names, colour, 0.16 + 0.12 * place)
    _chance(axes, 100 * float(np.mean([point["chance"] for point in curves[0]["points"]])), ":", "validation")
    if curves[0]["test"]:
        score = curves[0]["test"][curves[0]["chosen"]]["brain_to_image"]
        _chance(axes, 100 * score["chance_top1"], "--", "test")


def _test_points(axes: Any, curve: dict[str, Any], names: list[str], colour: str, shift: float) -> None:
    """Test scores stand beside the line, with their own marks and intervals."""
    for layer, score in curve["test"].items():
        found = score["brain_to_image"]
        top, (low, high) = 100 * found["top1"], (100 * end for end in found["ci95_top1"])
        role = "chosen layer" if layer == curve["chosen"] else "last layer"
        axes.errorbar(
            names.index(layer) + shift,
            top,
            yerr=[[max(top - low, 0)], [max(high - top, 0)]],
            fmt="D" if role == "chosen layer" else "s",
            color=colour,
            markeredgecolor="black",
            markersize=8,
            capsize=3,
            linewidth=1.2,
            label=f"{curve['encoder']}: TEST, {role} {top:.1f} % (p {found['p_permutation']:.2g})",
        )


def _concepts(axes: Any, curves: list[dict[str, Any]], names: list[str], summary: dict[str, Any]) -> None:
    points = curves[0]["points"]
    kind, alone = points[0]["concept"]["kind"], all(p["candidates"] == p["concept"]["candidates"] for p in points)
    note = " (one picture each)" if alone else ""
    for curve, colour in zip(curves, _COLOURS * len(curves), strict=False):
        label = f"{curve['encoder']}: the right picture{_band(curve)}"
        _line(axes, curve, names, colour, label, lambda point: (point["top1"], point["ci95"]))
        label = f"{curve['encoder']}: the right {kind}{note}"
        _line(axes, curve, names, colour, label, lambda p: (p["concept"]["top1"], p["concept"]["ci95"]), "s--")
    _chance(axes, 100 * float(np.mean([point["chance"] for point in points])), ":", "pictures")
    _chance(axes, 100 * float(np.mean([point["concept"]["chance_top1"] for point in points])), "--", f"{kind}s")


def _losses(axes: Any, curves: list[dict[str, Any]], names: list[str], summary: dict[str, Any]) -> None:
    trained = [curve for curve in curves if all(point["loss"] for point in curve["points"])]
    for curve, colour in zip(trained, _COLOURS * len(trained), strict=False):
        label = f"{curve['encoder']}: validation (no dropout, no augmentation)"
        _line(axes, curve, names, colour, label, _loss("validation"), scale=1)
        label = f"{curve['encoder']}: training, last epoch, as minimised"
        _line(axes, curve, names, colour, label, _loss("train"), "s--", scale=1)


def _loss(part: str) -> Value:
    return lambda point: (point["loss"][part], point["loss"][f"{part}_ci95"])


def _scaling(summary: dict[str, Any]) -> Any:
    """Depth and accuracy of the best layer against log10(parameters), with r and p where they can be told."""
    figure = _figure(13.5, 5.2)
    panels = figure.subplots(1, 2)
    sides = (("depth", "relative depth of the best layer", 1), ("top1", "best layer: validation top-1, %", 100))
    for axes, (name, label, scale) in zip(panels, sides, strict=True):
        for (encoder, found), colour in zip(summary["scaling"].items(), _COLOURS * 9, strict=False):
            points = found["points"]
            x = [np.log10(point["parameters"]) for point in points]
            axes.plot(
                x, [scale * point[name] for point in points], "o", color=colour, label=_told(encoder, found, name)
            )
            if name == "top1" and all(point["ci95"] for point in points):
                for at, point in zip(x, points, strict=True):
                    axes.plot([at, at], [100 * end for end in point["ci95"]], color=colour, linewidth=1.2)
            for at, point in zip(x, points, strict=True):
                axes.annotate(point["backbone"].rpartition("/")[2], (at, scale * point[name]), (5, 5), fontsize=8,
                              textcoords="offset points")  # fmt: skip
        axes.set(xlabel="log10(parameters of the backbone)", ylabel=label)
        axes.margins(x=0.15, y=0.15)
        axes.legend(frameon=False, fontsize=8)
        _plain(axes)
    panels[0].set_ylim(-0.05, 1.05)
    figure.suptitle(_title(summary), fontsize=11)
    return figure


def _told(encoder: str, found: dict[str, Any], name: str) -> str:
    pearson = found["pearson"][name]
    return encoder if pearson is None else f"{encoder}: r = {pearson['r']:.2f}, p = {pearson['p']:.2g}"


def _line(
    axes: Any,
    curve: dict[str, Any],
    names: list[str],
    colour: str,
    label: str,
    value: Value,
    marks: str = "o-",
    scale: float = 100,
) -> list[int]:
    """Values over the layers of a curve with the band of their intervals; returns the places of the layers."""
    x = [names.index(point["layer"]) for point in curve["points"]]
    found = [value(point) for point in curve["points"]]
    bands = [band for _, band in found if band is not None]
    if len(bands) == len(x):
        low, high = ([scale * band[end] for band in bands] for end in (0, 1))
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(x, [scale * top for top, _ in found], marks, color=colour, markersize=4, label=label)
    return x


def _band(curve: dict[str, Any]) -> str:
    return f" (band: 95 % over {curve['points'][0]['interval_over']})"


def _chance(axes: Any, height: float, style: str, what: str) -> None:
    label = f"chance, {what} {height:.2g} %"
    axes.axhline(height, color="0.35", linestyle=style, linewidth=1.2, label=label)


def _title(summary: dict[str, Any]) -> str:
    code = f", code {summary['code']}" if "code" in summary else ""
    note = "test read once, after the choice" if summary["test_read"] else "test not read"
    return f"{summary['study']}{code}  (subjects: {len(summary['subjects'])}, seeds: {len(summary['seeds'])}; {note})"


def _plain(axes: Any) -> None:
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=140)
