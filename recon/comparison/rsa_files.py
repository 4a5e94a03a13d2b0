"""What `recon rsa` writes: a table by layer and a figure, the same by window where there are windows, and the JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align.files import write_atomic, write_sealed
from recon.comparison.files import csv_text

RESULT, TABLE, FIGURE = "rsa.json", "rsa.csv", "rsa.png"
TABLE_WHEN, FIGURE_WHEN = FORMER = "rsa_when.csv", "rsa_when.png"  # a replaced result may have had them


def write_rsa(out: Path, result: dict[str, Any]) -> None:
    """Tables and figures, and last rsa.json."""
    from recon.comparison.rsa_figure import draw_rsa, save
    from recon.comparison.rsa_when_figure import draw_rsa_when

    rows = []
    for entry in result["areas"]:
        for name, one in entry["networks"].items():
            for point in one["points"]:
                low, high = point["ci95"]
                plain = {key: point[key] for key in ("layer", "depth", "similarity")}
                more = {key: point[key] for key in ("between_subjects_given", "between_networks")}
                rows.append({"area": entry["area"], "network": name, **plain, "low": low, "high": high, **more})
    write_atomic(out / TABLE, csv_text(rows))
    save(draw_rsa(result), out / FIGURE)
    if any("when" in entry for entry in result["areas"]):
        write_atomic(out / TABLE_WHEN, csv_text(_rows_when(result)))
        save(draw_rsa_when(result), out / FIGURE_WHEN)
    write_sealed(out / RESULT, result)


def _rows_when(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per area, network, layer and window; times in s."""
    rows = []
    for entry in result["areas"]:
        ceilings = [window["ceiling"] for window in entry["when"]["windows"]]
        for name, one in entry["when"]["networks"].items():
            for layer, curve in one["layers"].items():
                for w, (point, ceiling) in enumerate(zip(curve["points"], ceilings, strict=True)):
                    plain = {key: point[key] for key in ("begin", "end", "centre", "similarity")}
                    low, high = point["ci95"]
                    inside = [c["p"] for c in curve["clusters"] if c["first_window"] <= w <= c["last_window"]]
                    chance = {"p_uncorrected": point["p_uncorrected"], "p_cluster": inside[0] if inside else None}
                    bounds = {f"ceiling_{end}": ceiling[end] for end in ("lower", "upper")}
                    where = {"area": entry["area"], "network": name, "layer": layer}
                    rows.append({**where, **plain, "low": low, "high": high, **chance, **bounds})
    return rows
