"""A matrix as coloured cells, with a line around those above chance."""

from __future__ import annotations

from typing import Any

import numpy as np


def draw_cells(
    axes: Any, x: np.ndarray, y: np.ndarray, values: np.ndarray, above: np.ndarray, limits: tuple[float, float]
) -> Any:
    """``values`` (Y, X) at the middles ``x`` and ``y``, evenly spaced; a line around the cells of ``above`` (Y, X).

    ``limits``: values of the first and the last colour. Returns what a colour bar needs.
    """
    extent = (*_edges(x), *_edges(y))
    drawn = axes.imshow(
        values, extent=extent, origin="lower", aspect="auto", cmap="magma", vmin=limits[0], vmax=limits[1]
    )
    if above.any():
        fine = np.kron(np.pad(above, 1), np.ones((8, 8)))  # so that the line follows the sides of cells
        axes.contour(_fine(x), _fine(y), fine, levels=[0.5], colors="white", linewidths=1.0)
        axes.set(xlim=extent[:2], ylim=extent[2:])
    return drawn


def _fine(values: np.ndarray) -> np.ndarray:
    """Middles of eight parts of every cell, with a cell more at either end."""
    low, high = _edges(values)
    step = (high - low) / len(values)
    return low - step + (np.arange(8 * (len(values) + 2)) + 0.5) * step / 8


def _edges(values: np.ndarray) -> tuple[float, float]:
    """Outer ends of the first and the last cell; a single cell is 2 wide."""
    half = (values[-1] - values[0]) / (2 * (len(values) - 1)) if len(values) > 1 else 1.0
    return float(values[0] - half), float(values[-1] + half)
