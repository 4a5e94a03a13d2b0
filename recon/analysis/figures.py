"""Figures of the analyses, drawn from the JSON objects that are written beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from align.files import atomic_path

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito
SIGNIFICANT = 0.05


def plot_time_course(result: dict[str, Any], path: Path) -> None:
    """Write the figure of `draw_time_course`."""
    save(draw_time_course(result), path)


def draw_time_course(result: dict[str, Any]) -> Any:
    """One panel per subject (and their mean): accuracy over time with its interval, chance, significant stretches."""
    subjects = result["subjects"]
    figure = new_figure(max(6.2, 3.9 * min(len(subjects), 4) + 0.9), 3.6 * (1 + (len(subjects) - 1) // 4) + 0.6)
    rows, columns = 1 + (len(subjects) - 1) // 4, min(len(subjects), 4)
    grid = figure.subplots(rows, columns, sharey=True, sharex=True, squeeze=False)
    top = max(100 * p["ci95"][1] for e in subjects.values() for c in e["layers"].values() for p in c["points"])
    for place, axes in enumerate(grid.flat):
        if place >= len(subjects):
            axes.axis("off")
            continue
        subject, entry = list(subjects.items())[place]
        for k, (layer, curve) in enumerate(entry["layers"].items()):
            _draw_course(axes, layer, curve, COLOURS[k % len(COLOURS)], -top * (0.05 + 0.045 * k))
        chance = 100 * next(iter(entry["layers"].values()))["chance"]
        axes.axhline(chance, color="0.35", linestyle="--", linewidth=1, label=f"chance {chance:.2g} %")
        axes.set_title("mean of subjects" if subject == "mean" else f"subject {subject}", fontsize=10)
        axes.set_xlabel("time after onset, ms (middle of the window)", fontsize=9)
        tidy(axes)
        axes.legend(frameon=False, fontsize=7.5, loc="upper right")
    grid[0][0].set_ylabel("brain → image top-1, %")
    code = f" ({result['code']})" if "code" in result else ""
    first = next(iter(next(iter(subjects.values()))["layers"].values()))
    figure.suptitle(
        f"{result['study']}{code}, {result['backbone']}: windows of {1000 * result['width']:.0f} ms, n {first['n']}, "
        f"{'TEST rows' if result['split'] == 'test' else 'cross-validated training rows'}\n"
        f"band: 95 % over pictures; bars: clusters with p ≤ {SIGNIFICANT}; triangle: onset; dot: peak",
        fontsize=9,
    )
    return figure


def _draw_course(axes: Any, layer: str, curve: dict[str, Any], colour: str, height: float) -> None:
    time = [1000 * point["centre"] for point in curve["points"]]
    low, high = ([100 * point["ci95"][end] for point in curve["points"]] for end in (0, 1))
    axes.fill_between(time, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(time, [100 * point["top1"] for point in curve["points"]], color=colour, label=f"layer {layer}")
    axes.plot(1000 * curve["peak"]["centre"], 100 * curve["peak"]["top1"], "o", color=colour, markersize=5)
    for cluster in curve["clusters"]:
        if cluster["p"] <= SIGNIFICANT:
            ends = [time[cluster["first_window"]], time[cluster["last_window"]]]
            axes.plot(ends, [height, height], color=colour, linewidth=3, solid_capstyle="butt")
    if curve["onset"]:
        axes.plot(1000 * curve["onset"]["centre"], height, ">", color=colour, markersize=6, markeredgecolor="black")


def new_figure(width: float, height: float) -> Any:
    """An empty figure of so many inches that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Any) -> None:
    """Light grid, no frame."""
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Any, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=140)


def plot_repeats(result: dict[str, Any], path: Path) -> None:
    """Accuracy against repetitions beside brain-to-brain; reliability by channel and, where there is time, by time."""
    reliability = result["noise_ceiling"]["reliability"]
    figure = new_figure(13.5 if reliability["by_time"] else 9.5, 4.6)
    panels = figure.subplots(1, 3 if reliability["by_time"] else 2)
    _draw_repeats(panels[0], result)
    _draw_channels(panels[1], reliability)
    if reliability["by_time"]:
        time = [1000 * point["time"] for point in reliability["by_time"]]
        _draw_band(panels[2], time, reliability["by_time"], "full", "ci95_full", COLOURS[2], "mean over channels", 1)
        panels[2].axhline(0, color="0.35", linestyle="--", linewidth=1)
        panels[2].set(xlabel="time after onset, ms", ylabel=f"reliability of {reliability['repetitions']} repetitions")
        panels[2].legend(frameon=False, fontsize=8)
    for axes in panels:
        tidy(axes)
    figure.suptitle(
        f"{result['study']}, subject {result['subject']}: TEST rows, {result['n_stimuli']} pictures; "
        f"{result['encoder']} on layer {result['layer']} of {result['backbone']}; bands: 95 % over pictures",
        fontsize=10,
    )
    save(figure, path)


def _draw_repeats(axes: Any, result: dict[str, Any]) -> None:
    curve, between = result["repeats"], result["noise_ceiling"]["brain_to_brain"]
    lines: list[tuple[list[dict[str, Any]], str, str]] = [
        (curve, "brain_to_image", "brain → image"),
        (curve, "image_to_brain", "image → brain"),
        (between, "signals", "brain → brain, signals"),
        (between, "embeds", "brain → brain, embeds"),
    ]
    for k, (points, name, label) in enumerate(lines):
        scores = [point[name] for point in points]
        style = "-" if points is curve else ":"
        x = [point["repetitions"] for point in points]
        _draw_band(axes, x, scores, "top1", "ci95_top1", COLOURS[k], label, 100, style)
    axes.axhline(100 / result["n_stimuli"], color="0.35", linestyle="--", linewidth=1, label="chance")
    axes.set_xscale("log")
    ticks = [point["repetitions"] for point in curve]
    axes.set_xticks(ticks if len(ticks) <= 8 else ticks[::2] + ticks[-1:], minor=False)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.minorticks_off()
    axes.set(xlabel="repetitions averaged (brain → brain: on each side)", ylabel="top-1, %", ylim=(0, None))
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def _draw_band(
    axes: Any,
    x: list[float],
    points: list[dict[str, Any]],
    value: str,
    interval: str,
    colour: str,
    label: str,
    scale: float,
    style: str = "-",
) -> None:
    low, high = ([scale * point[interval][end] for point in points] for end in (0, 1))
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    marker = "o" if len(x) < 25 else ""
    axes.plot(
        x, [scale * point[value] for point in points], style, marker=marker, markersize=4, color=colour, label=label
    )


def _draw_channels(axes: Any, reliability: dict[str, Any]) -> None:
    """Channels (or voxels) from the most to the least reliable; named where there are few."""
    rows = sorted(reliability["by_channel"], key=lambda row: -row["full"])
    _draw_band(axes, list(range(len(rows))), rows, "full", "ci95_full", COLOURS[2], "mean over samples", 1)
    axes.axhline(0, color="0.35", linestyle="--", linewidth=1)
    overall = reliability["overall"]
    axes.axhline(overall["full"], color=COLOURS[1], linewidth=1, label=f"mean {overall['full']:.3f}")
    if len(rows) <= 70:
        axes.set_xticks(
            range(len(rows)), [row["channel"] for row in rows], rotation=90, fontsize=5 if len(rows) > 30 else 8
        )
    axes.set(xlabel="channel, sorted", ylabel=f"reliability of {reliability['repetitions']} repetitions")
    axes.legend(frameon=False, fontsize=8)
