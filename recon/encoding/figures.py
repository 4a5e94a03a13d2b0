"""Figures of `recon encode`: scores over depth, methods over the number of pictures, units, channels over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.data.names import subject_name
from recon.analysis.figures import COLOURS, new_figure, save, tidy

if TYPE_CHECKING:
    from recon.encoding.scored import Scored
    from recon.encoding.subjects import Subject

_STEM = "encoding_pictures-to-responses"
_LEAST_LAYERS = 3
_MONTAGES = ("colin27_1005", "standard_1005")  # the newer name of the 10-05 system in MNE, and the older
_ON_HEAD = 0.8  # share of channels whose place on the head is known, from which maps are drawn


def draw_encoding(
    folder: Path, result: Mapping[str, Any], scored: Sequence[Scored], subjects: Sequence[Subject]
) -> None:
    """Every figure that the results have material for; those of an earlier run that no longer belong are removed."""
    wanted = {
        f"{_STEM}.png": _units(result, scored, subjects),
        f"{_STEM}_depth.png": _depth(result),
        f"{_STEM}_methods.png": _methods(result),
        **{f"{_STEM}_map_{subject_name(one.name)}.png": _map(one, result, scored) for one in subjects},
    }
    for name, figure in wanted.items():
        if figure is None:
            (folder / name).unlink(missing_ok=True)
        else:
            save(figure, folder / name)


def _title(result: Mapping[str, Any]) -> str:
    rows = "TEST pictures" if result["split"] == "test" else "cross-validated training pictures"
    return f"{result['study']}, pictures → responses, {rows}; {_counts(result)}"


def _counts(result: Mapping[str, Any]) -> str:
    entries = result["subjects"].values()
    units, pictures = sum(e["units"] for e in entries), sorted({e["scored_pictures"] for e in entries})
    span = f"{pictures[0]}" if len(pictures) == 1 else f"{pictures[0]} to {pictures[-1]}"
    return f"n {len(result['subjects'])} subject(s), {units} units, {span} pictures scored"


def _depth(result: Mapping[str, Any]) -> Any:
    """Mean r over relative depth: a line for each network and method, with t intervals over subjects."""
    sets = {one["label"]: one for one in result["sets"] if one["depth"] is not None}
    lines: dict[tuple[str, str, Any], list[dict[str, Any]]] = {}
    for row in result["mean"]:
        if row["set"] in sets:
            key = (sets[row["set"]]["network"], row["method"], row["pictures"])
            lines.setdefault(key, []).append({**row, "depth": sets[row["set"]]["depth"]})
    lines = {key: sorted(rows, key=lambda r: r["depth"]) for key, rows in lines.items() if len(rows) >= _LEAST_LAYERS}
    if not lines:
        return None
    figure = new_figure(9.6, 4.2)
    left, right = figure.subplots(1, 2)
    for k, ((network, method, pictures), rows) in enumerate(lines.items()):
        colour, x = COLOURS[k % len(COLOURS)], [row["depth"] for row in rows]
        more = "" if pictures == "all" else f", {pictures} pictures"
        for axes, name, interval in ((left, "r", "t95"), (right, "identification", "identification_t95")):
            if any(row[name] is None for row in rows):
                continue
            axes.plot(
                x, [row[name] for row in rows], "o-", color=colour, markersize=3, label=f"{network}, {method}{more}"
            )
            if all(row[interval] for row in rows):
                low, high = ([row[interval][end] for row in rows] for end in (0, 1))
                axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
    known = [e["ceiling"]["ceiling_mean"] for e in result["subjects"].values() if e["ceiling"]]
    if known:
        told = f"ceiling, {len(known)} of {len(result['subjects'])} subjects"
        left.axhline(float(np.mean(known)), color="0.35", linestyle="--", linewidth=1, label=told)
    left.set(xlabel="relative depth of the layer", ylabel="r, mean over units")
    right.set(xlabel="relative depth of the layer", ylabel="picture found by its predicted response, top-1")
    left.legend(frameon=False, fontsize=6.5)
    for axes in (left, right):
        tidy(axes)
    figure.suptitle(f"{_title(result)}\nbands: 95 % (t) over subjects", fontsize=9)
    return figure


def _methods(result: Mapping[str, Any]) -> Any:
    """Mean r of every method over the number of pictures, on the best set."""
    rows = result["mean"]
    counts = list(dict.fromkeys(row["pictures"] for row in rows))
    if len(counts) < 2:
        return None
    label = max(rows, key=lambda row: row["r"])["set"]
    figure = new_figure(6.6, 4.0)
    axes = figure.subplots()
    for k, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
        own = {row["pictures"]: row for row in rows if (row["method"], row["set"]) == (method, label)}
        x = [place + 0.05 * k for place, count in enumerate(counts) if count in own]
        r = [own[count]["r"] for count in counts if count in own]
        ends = [own[count]["t95"] for count in counts if count in own]
        colour = COLOURS[k % len(COLOURS)]
        if all(ends):
            reach = np.abs(np.array(ends).T - np.array(r))
            axes.errorbar(x, r, reach, color=colour, marker="o", markersize=4, capsize=2, linewidth=1.2, label=method)
        else:
            axes.plot(x, r, "o-", color=colour, markersize=4, label=method)
    axes.set_xticks(range(len(counts)), [str(count) for count in counts])
    axes.set(xlabel="pictures that were fitted", ylabel="r, mean over units")
    axes.legend(frameon=False, fontsize=8)
    tidy(axes)
    figure.suptitle(f"{_title(result)}\nfeatures {label}; bars: 95 % (t) over subjects", fontsize=9)
    return figure


def _units(result: Mapping[str, Any], scored: Sequence[Scored], subjects: Sequence[Subject]) -> Any:
    """Every unit of the best set and method: against its ceiling where it has one, and the distribution."""
    best = max(result["mean"], key=lambda row: row["r"])
    own = [one for one in scored if (one.label, one.method, one.pictures or "all") == _key(best)]
    figure = new_figure(8.6, 3.9)
    left, right = figure.subplots(1, 2)
    values = np.concatenate([one.units.r for one in own])
    significant = np.concatenate([one.units.q <= 0.05 for one in own])
    bins = np.linspace(min(-0.1, values.min()), max(1e-3, values.max()), 30).tolist()
    left.hist([values[significant], values[~significant]], bins, stacked=True, color=[COLOURS[0], "0.75"])
    left.legend(["q ≤ .05", "not"], frameon=False, fontsize=8)
    left.set(xlabel="r of a unit", ylabel="units")
    ceilings = {one.name: one.ceiling for one in subjects}
    drawn = False
    for k, one in enumerate(own):
        ceiling = ceilings[one.subject]
        if ceiling is not None:
            drawn = True
            colour = COLOURS[k % len(COLOURS)]
            right.plot(ceiling.highest, one.units.r, "o", color=colour, markersize=3, label=f"subject {one.subject}")
    if drawn:
        right.plot([0, 1], [0, 1], color="0.5", linewidth=0.8)
        right.set(xlabel="ceiling: root of split-half reliability", ylabel="r of a unit")
        right.legend(frameon=False, fontsize=8)
    else:
        right.axis("off")
        right.text(0.5, 0.5, "no repetitions: no ceiling", ha="center", va="center", fontsize=9, color="0.4")
    for axes in (left, right):
        tidy(axes)
    figure.suptitle(
        f"{_title(result)}\n{best['set']}, {best['method']}, {best['pictures']} pictures fitted", fontsize=9
    )
    return figure


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["set"], row["method"], row["pictures"]


def _map(subject: Subject, result: Mapping[str, Any], scored: Sequence[Scored]) -> Any:
    """Channels over time of the best set and method, and the head at its best window; None without time."""
    layout = subject.layout
    if len(layout.windows) < 2:
        return None
    best = _key(max(result["mean"], key=lambda row: row["r"]))
    one = next(s for s in scored if s.subject == subject.name and (s.label, s.method, s.pictures or "all") == best)
    table = one.units.r.reshape(len(layout.channels), len(layout.windows))
    figure = new_figure(9.4, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=[2, 1])
    most = max(1e-3, float(np.abs(table).max()))
    ends = (1000 * layout.windows[0].begin, 1000 * layout.windows[-1].end, len(layout.channels) - 0.5, -0.5)
    image = left.imshow(
        table, aspect="auto", cmap="RdBu_r", vmin=-most, vmax=most, extent=ends, interpolation="nearest"
    )
    figure.colorbar(image, ax=left, label="r")
    left.set(xlabel="time after onset, ms", ylabel="channel")
    peak = int(table.mean(axis=0).argmax())
    if not _topography(right, layout.channels, table[:, peak]):
        right.axis("off")
    else:
        right.set_title(f"{1000 * layout.windows[peak].centre:.0f} ms", fontsize=9)
    figure.suptitle(f"{_title(result)}\nsubject {subject.name}, {best[0]}, {best[1]}", fontsize=9)
    return figure


def _topography(axes: Any, channels: Sequence[str], values: np.ndarray) -> bool:
    """Values on the head where the 10-05 system knows the channels; False where it knows too few."""
    import mne

    named = next(name for name in _MONTAGES if name in mne.channels.get_builtin_montages())
    montage = mne.channels.make_standard_montage(named)
    known = {name.lower(): name for name in montage.ch_names}
    rows = [i for i, name in enumerate(channels) if name.lower() in known]
    if len(rows) < max(8, _ON_HEAD * len(channels)):
        return False
    info = mne.create_info([known[channels[i].lower()] for i in rows], 100.0, "eeg")
    info.set_montage(montage, verbose="error")
    mne.viz.plot_topomap(values[rows], info, axes=axes, show=False)
    return True
