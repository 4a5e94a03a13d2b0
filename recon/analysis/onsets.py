"""When a curve over windows begins and peaks: onset rule, intervals over resampled curves, one layer after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recon.analysis.clusters import LEVEL, ClusterTest
from recon.analysis.windows import Window


def earliest_onset(windows: Sequence[Window]) -> int:
    """Index of the first window whose middle is not before the stimulus (0 s): no onset is earlier.

    Without this rule windows of noise that happen to touch the response begin its interval before the picture is shown.
    """
    return next((i for i, window in enumerate(windows) if window.centre > -1e-9), len(windows))


def placed(window: Window) -> dict[str, float]:
    """Begin, end and middle of a window, s."""
    return {"begin": window.begin, "end": window.end, "centre": window.centre}


def cluster_entries(test: ClusterTest, windows: Sequence[Window]) -> list[dict[str, Any]]:
    """Every cluster with its times, its first and last window, mass and p."""
    return [
        {
            "begin": windows[cluster.first].begin,
            "end": windows[cluster.last].end,
            "first_window": cluster.first,
            "last_window": cluster.last,
            "mass": cluster.mass,
            "p": cluster.p,
        }
        for cluster in test.found
    ]


def moment(at: int | None, windows: Sequence[Window], drawn: np.ndarray) -> dict[str, Any] | None:
    """A time as the window it is in; ``ci95`` of its centre over resampled curves, of those that have one.

    ``drawn`` (R,): window of every resample, -1 where it has none.
    """
    if at is None:
        return None
    held, centres = drawn[drawn >= 0], np.array([window.centre for window in windows])
    interval = [float(end) for end in np.percentile(centres[held], [2.5, 97.5])] if len(held) else None
    window = windows[at]
    return {
        "centre": window.centre,
        "begin": window.begin,
        "end": window.end,
        "ci95": interval,
        "found_in": len(held) / len(drawn),
    }


def later(
    first: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray], windows: Sequence[Window]
) -> dict[str, Any]:
    """By how many s onset and peak come later than those of the first layer, over the same resampled pictures.

    Both: windows (R,) of the onset and of the peak of every resample.
    """
    entry: dict[str, Any] = {}
    centres = np.array([window.centre for window in windows])
    for name, a, b in zip(("onset", "peak"), first, other, strict=True):
        both = (a >= 0) & (b >= 0)
        if both.mean() < 1 - LEVEL:
            entry[name] = None
            continue
        gap = centres[b[both]] - centres[a[both]]
        low, high = np.percentile(gap, [2.5, 97.5])
        entry[name] = {"median": float(np.median(gap)), "ci95": [float(low), float(high)]}
    return entry
