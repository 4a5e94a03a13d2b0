"""`recon rsa --width`: when dissimilarities of a brain are those of a layer, in sliding windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from align.comparison.rdm import RankedRdm
from align.comparison.rsa import Resamples, between_subjects, noise_ceiling
from align.comparison.rsa_windows import Brains, resampled_windows, shuffled_windows, window_similarities
from recon.analysis.clusters import cluster_test
from recon.analysis.onsets import cluster_entries, earliest_onset, later, moment, placed
from recon.analysis.windows import Window

Networks = Mapping[str, Mapping[str, RankedRdm]]  # network -> layer -> its dissimilarities


def over_time(
    networks: Networks,
    rdms: np.ndarray,
    windows: Sequence[Window],
    drawn: Resamples,
    n_perm: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """The entry ``when`` of an area; ``rdms`` (S, W, pairs) of its subjects.

    Windows with their noise ceiling; per layer the similarity in every window with its interval over ``drawn`` pictures
    and subjects, p against ``n_perm`` orders of the pictures, clusters, onset, peak, and the mean before the stimulus.
    """
    brains: Brains = [[RankedRdm(rdm) for rdm in person] for person in rdms]
    models = [rdm for layers in networks.values() for rdm in layers.values()]
    values = window_similarities(models, brains)
    draws = resampled_windows(models, brains, drawn)
    null = shuffled_windows(models, brains, drawn.pictures.shape[1], n_perm, rng)
    found, start = {}, 0
    for name, layers in networks.items():
        part = slice(start, start + len(layers))
        found[name] = _network(list(layers), windows, values[part], draws[:, part], null[:, part])
        start += len(layers)
    before = _before(windows)
    return {
        "windows": [
            {**placed(window), "ceiling": _ceiling(rdms[:, w]), "between_subjects": between_subjects(people)}
            for w, (window, people) in enumerate(zip(windows, zip(*brains, strict=True), strict=True))
        ],
        "windows_before": len(before),
        "shuffles": n_perm,
        "networks": found,
    }


def _ceiling(rdms: np.ndarray) -> dict[str, float | None]:
    lower, upper = noise_ceiling(rdms)
    return {"lower": lower, "upper": upper if len(rdms) > 1 else None}


def _before(windows: Sequence[Window]) -> list[int]:
    """Windows without a sample after the stimulus."""
    return [w for w, window in enumerate(windows) if window.end <= 1e-9]


def _network(
    layers: Sequence[str], windows: Sequence[Window], values: np.ndarray, draws: np.ndarray, null: np.ndarray
) -> dict[str, Any]:
    """``values`` (L, S, W), ``draws`` (R, L, W), ``null`` (B, L, W) of one network."""
    entries, times = {}, {}
    for k, layer in enumerate(layers):
        entries[layer], times[layer] = _layer(windows, values[k], draws[:, k], null[:, k])
    after = {name: later(times[layers[0]], times[name], windows) for name in layers[1:]}
    peaks = np.stack([times[layer][1] for layer in layers], axis=1)
    observed = np.array([entry["peak"]["centre"] for entry in entries.values()])
    return {
        "layers": entries,
        "later_than": {"layer": layers[0], "layers": after},
        "peak_with_depth": _rising(observed, peaks),
    }


def _layer(
    windows: Sequence[Window], values: np.ndarray, draws: np.ndarray, null: np.ndarray
) -> tuple[dict[str, Any], tuple[np.ndarray, np.ndarray]]:
    """The entry of one layer, and windows (R,) of onset and peak of every resample."""
    mean = values.mean(axis=0)
    test, shown = cluster_test(mean, null), earliest_onset(windows)
    times = test.onsets(draws, shown), draws.argmax(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    p = (1 + (null >= mean - 1e-12).sum(axis=0)) / (1 + len(null))
    points = [
        {
            **placed(window),
            "similarity": float(mean[w]),
            "ci95": [float(low[w]), float(high[w])],
            "p_uncorrected": float(p[w]),
            "by_subject": values[:, w].tolist(),
        }
        for w, window in enumerate(windows)
    ]
    before = _before(windows)
    rest = None
    if before:
        ends = np.percentile(draws[:, before].mean(axis=1), [2.5, 97.5])
        rest = {"similarity": float(mean[before].mean()), "ci95": ends.tolist()}
    entry = {
        "onset": moment(test.onset(shown), windows, times[0]),
        "peak": {**(moment(int(mean.argmax()), windows, times[1]) or {}), "similarity": float(mean.max())},
        "before_stimulus": rest,
        "clusters": cluster_entries(test, windows),
        "points": points,
    }
    return entry, times


def _rising(observed: np.ndarray, peaks: np.ndarray) -> dict[str, Any] | None:
    """Rank correlation of depth and time of the peak over layers, with its interval over resamples ``peaks`` (R, L).

    None with fewer than three layers, or where all layers peak in one window. Resamples where they do count as 0.
    """
    depth = np.arange(len(observed))
    if len(observed) < 3 or np.ptp(observed) == 0:
        return None
    draws = [0.0 if np.ptp(row) == 0 else stats.spearmanr(depth, row).statistic for row in peaks]
    return {
        "value": float(stats.spearmanr(depth, observed).statistic),
        "ci95": [float(end) for end in np.percentile(draws, [2.5, 97.5])],
    }
