"""Does the decoder of one window read the picture in another window, too? Temporal generalisation.

Source: King & Dehaene 2014, Trends in Cognitive Sciences 18(4). A square around the diagonal says that one code lasts;
a narrow diagonal says that one code follows another. The decoder stays as it was fitted: its weights, and the mean and
deviation of its own window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recon.analysis.clusters import LEVEL, cluster_map
from recon.analysis.windows import Window


def diagonal(flat: np.ndarray) -> np.ndarray:
    """(..., W) of what lies in (..., W * W): every decoder in its own window."""
    return flat[..., :: round(flat.shape[-1] ** 0.5) + 1]


def generalisation(hits: np.ndarray, null: np.ndarray, draws: np.ndarray, windows: Sequence[Window]) -> dict[str, Any]:
    """The matrix: row = window in which the decoder was fitted, column = window in which it is scored.

    ``hits`` (n, W * W) of every picture, ``null`` (B, W * W) under permuted pairings, ``draws`` (R, W * W) means of
    pictures drawn with replacement. ``p_cluster``: None in cells of no cluster. ``reach``: see `_reach`.
    """
    shape = (len(windows), len(windows))
    top1 = hits.mean(axis=0)
    p = (1 + (null >= top1 - 1e-9).sum(axis=0)) / (1 + len(null))
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    clusters = cluster_map(top1.reshape(shape), null.reshape(-1, *shape))
    return {
        "top1": top1.reshape(shape).tolist(),
        "ci95": np.stack([low, high], axis=1).reshape(*shape, 2).tolist(),
        "p_uncorrected": p.reshape(shape).tolist(),
        "p_cluster": [[None if np.isnan(value) else float(value) for value in row] for row in clusters],
        "reach": [_reach(row <= LEVEL, at, windows) for at, row in enumerate(clusters)],
    }


def _reach(above: np.ndarray, at: int, windows: Sequence[Window]) -> list[float] | None:
    """Middle of the first and of the last window, s, of the stretch above chance around the decoder's own window.

    None where the decoder is not above chance there.
    """
    if not above[at]:
        return None
    first = last = at
    while first > 0 and above[first - 1]:
        first -= 1
    while last + 1 < len(above) and above[last + 1]:
        last += 1
    return [windows[first].centre, windows[last].centre]
