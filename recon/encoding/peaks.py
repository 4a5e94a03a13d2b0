"""Where in a network responses are predicted best, and where pictures are found best; both against its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from align.comparison.null import rank_correlation
from recon.encoding.features import FeatureSet
from recon.metrics.stats import t_interval

LEAST = 3  # layers of a network
N_BOOT = 500


def peaks(entries: Mapping[str, Any], sets: Sequence[FeatureSet]) -> list[dict[str, Any]]:
    """For every network of `LEAST` layers or more, method and number: each subject's best layer, by r and by top-1.

    ``depth``: relative, 0 to 1. JSON-ready.
    """
    layers = {one.label: one for one in sets if one.depth is not None}
    found = []
    keys = dict.fromkeys(
        (layers[s["set"]].network, s["method"], s["pictures"])
        for entry in entries.values()
        for s in entry["scores"]
        if s["set"] in layers
    )
    for network, method, pictures in keys:
        own = {label for label, one in layers.items() if one.network == network}
        if len(own) < LEAST:
            continue
        rows = []
        for subject, entry in entries.items():
            scores = [
                s for s in entry["scores"] if s["set"] in own and (s["method"], s["pictures"]) == (method, pictures)
            ]
            rows.append({"subject": subject, **_best(scores, layers)})
        found.append({"network": network, "method": method, "pictures": pictures, "subjects": rows, **_means(rows)})
    return found


def _best(scores: Sequence[dict[str, Any]], layers: Mapping[str, FeatureSet]) -> dict[str, Any]:
    top = max(scores, key=lambda s: s["r"])
    found = {"layer": top["set"], "depth": layers[top["set"]].depth, "r": top["r"]}
    named = [s for s in scores if s["identification"]]
    if not named:
        return {**found, "identification_layer": None, "identification_depth": None, "top1": None}
    hit = max(named, key=lambda s: s["identification"]["top1"])
    place = {"identification_layer": hit["set"], "identification_depth": layers[hit["set"]].depth}
    return {**found, **place, "top1": hit["identification"]["top1"]}


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("r", "depth", "top1", "identification_depth"):
        values = np.array([row[name] for row in rows if row[name] is not None], dtype=np.float64)
        found[name] = float(values.mean()) if len(values) else None
        found[f"{name}_t95"] = t_interval(values) if len(values) > 1 else None
    return found


def scaling(peaks_of: Sequence[dict[str, Any]], parameters: Mapping[str, int], seed: int = 0) -> dict[str, Any]:
    """How peaks go with the size of networks, and encoding peaks with identification peaks.

    ``peaks_of``: of one method. Rank correlations; intervals by drawing subjects with replacement, networks as they
    are: they hold for these networks alone.
    """
    networks = [peak["network"] for peak in peaks_of]
    size = np.log10([parameters[name] for name in networks])
    names = ("r", "depth", "top1", "identification_depth")
    table = {n: np.array([[row[n] for row in peak["subjects"]] for peak in peaks_of], dtype=np.float64) for n in names}
    count = table["r"].shape[1]
    drawn = np.random.default_rng(seed).integers(0, count, size=(N_BOOT, count))

    def with_interval(measure: Any) -> dict[str, Any]:
        values = np.array([measure(rows) for rows in drawn])
        low, high = np.nanpercentile(values, [2.5, 97.5])
        return {"rho": float(measure(np.arange(count))), "ci95": [float(low), float(high)]}

    def of_size(name: str) -> dict[str, Any]:
        return with_interval(lambda rows: rank_correlation(size, table[name][:, rows].mean(axis=1)))

    def together(a: str, b: str) -> dict[str, Any]:
        return with_interval(lambda rows: rank_correlation(table[a][:, rows].ravel(), table[b][:, rows].ravel()))

    return {
        "networks": dict(zip(networks, (10**size).round().astype(int).tolist(), strict=True)),
        "subjects": count,
        "against_size": {name: of_size(name) for name in names},
        "peak_depths": together("depth", "identification_depth"),
        "peak_scores": together("r", "top1"),
    }
