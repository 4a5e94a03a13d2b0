"""The files of learning curves: JSON, CSV, figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.files import write_atomic, write_sealed
from recon.adaptation.figure import plot_curve


def write_results(folder: Path, name: str, result: dict[str, Any], summary: dict[str, Any], title: str) -> None:
    """Table, figure and, last, ``name``: where it is, all is there."""
    stem = name.removesuffix(".json")
    rows = [row for curve in result.get("of_subject", [result]) for row in _flat(curve)]
    chance = float(rows[0]["test_chance_top1"])
    write_atomic(folder / f"{stem}.csv", _csv(rows))
    plot_curve(summary["points"], summary["zero_shot"], chance, f"{result['study']}, {title}", folder / f"{stem}.png")
    write_sealed(folder / name, result)


def _flat(curve: dict[str, Any]) -> list[dict[str, Any]]:
    plain = []
    for row in (*curve["rows"], *filter(None, [curve.get("zero_shot")])):
        one = {"subject": curve["subject"], **{k: v for k, v in row.items() if k not in ("held_out", "test")}}
        for side in filter(row.get, ("held_out", "test")):  # what is not adapted chooses nothing
            one |= {f"{side}_{key}": value for key, value in row[side].items() if key != "ci95_top1"}
        low, high = row["test"]["ci95_top1"] or (None, None)
        plain.append({**one, "test_top1_low": low, "test_top1_high": high})
    return plain


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
