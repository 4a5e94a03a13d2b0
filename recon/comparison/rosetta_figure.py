"""The figure of `recon rosetta`: how many matches are above each r, next to shuffled pictures; between which layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from align.comparison.rosetta import Matches, Rosetta
from recon.analysis.figures import COLOURS, new_figure, tidy
from recon.comparison.maps import Maps
from recon.comparison.networks import short_name


def draw_counts(result: Mapping[str, Any], found: Rosetta, maps: Mapping[str, Maps]) -> Any:
    """A column for each pair of networks: counts above r; surviving matches by layers."""
    figure = new_figure(max(5.5, 4.6 * len(found.pairs)), 8.2)
    grid = figure.subplots(2, len(found.pairs), squeeze=False)
    for column, ((a, b), one) in enumerate(found.pairs.items()):
        _draw_above(grid[0][column], one, result)
        grid[0][column].set_title(f"{short_name(a)} and {short_name(b)}", fontsize=9)
        _draw_layers(figure, grid[1][column], one, (a, b), maps)
    return figure


def _draw_above(axes: Any, one: Matches, result: Mapping[str, Any]) -> None:
    edges = np.linspace(0, 1, 101)
    label = f"pictures as they stand: {int(one.kept.sum())} with q ≤ {result['level']:g}"
    axes.plot(
        edges,
        _above(one.r, edges),
        color=COLOURS[0],
        label=label,
    )
    if one.null_r:
        null = np.array([_above(r, edges) for r in one.null_r])
        axes.fill_between(edges, null.min(axis=0), null.max(axis=0), color="0.8", linewidth=0)
        axes.plot(edges, null.mean(axis=0), color="0.4", label=f"shuffled: mean and range of {len(null)}")
    axes.set_yscale("symlog", linthresh=1)
    axes.set(xlabel="r over pictures and places", ylabel="matches with at least this r", xlim=(0, 1), ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    tidy(axes)


def _above(r: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.asarray(len(r) - np.searchsorted(np.sort(r), edges, side="left"))


def _draw_layers(figure: Any, axes: Any, one: Matches, pair: tuple[str, str], maps: Mapping[str, Maps]) -> None:
    names = [list(dict.fromkeys(maps[entry].layer.tolist())) for entry in pair]
    table = np.zeros((len(names[0]), len(names[1])))
    for i, j in zip(one.first[one.kept], one.second[one.kept], strict=True):
        table[names[0].index(maps[pair[0]].layer[i]), names[1].index(maps[pair[1]].layer[j])] += 1
    drawn = axes.imshow(table, cmap="viridis", origin="lower", aspect="auto")
    axes.set_yticks(range(len(names[0])), names[0], fontsize=6)
    axes.set_xticks(range(len(names[1])), names[1], fontsize=6, rotation=90)
    axes.set(ylabel=short_name(pair[0]), xlabel=short_name(pair[1]))
    figure.colorbar(drawn, ax=axes, label="surviving matches")
