"""What `recon universality` writes and `recon rsa` reads again: table, facts, axes of the dimensions."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.comparison.components import Components
from align.data.signals import Stimuli
from align.errors import UserError
from align.files import read_json, read_tensors, save_tensors, write_atomic, write_sealed
from align.files.table import finite, harmless, read_rows

RESULT, TABLE, AXES = "universality.json", "universality.csv", "components.safetensors"
DENSITY, EXTREMES, WHEN, WHEN_TABLE = "density.png", "extremes.png", "when.png", "when.csv"
_KEY = "{}/{}/{}"  # network, layer, what
_AXES = ("mean", "scale", "axes")
_SHAPE = {"networks": {str: {"weights_sha256": str}}, "settings": {"pooling": str}, "table_sha256": str}
_AGAIN = "run recon universality again"


def write_universality(
    folder: Path,
    result: Mapping[str, Any],
    table: Mapping[str, np.ndarray],
    bases: Mapping[str, Mapping[str, Components]],
    scored: Stimuli,
    scores: Mapping[str, np.ndarray],
) -> None:
    """The table, the axes, the figures, and last universality.json."""
    from recon.comparison.extremes import draw_extremes
    from recon.comparison.figures import draw_density, draw_when, save

    rows = [
        dict(zip(table, line, strict=True))
        for line in zip(*(column.tolist() for column in table.values()), strict=True)
    ]
    text = csv_text(rows)
    write_atomic(folder / TABLE, text)
    write_axes(folder / AXES, bases)
    save(draw_density(result, table), folder / DENSITY)
    draw_extremes(table, scored, scores, folder / EXTREMES)
    if result.get("when"):
        save(draw_when(result), folder / WHEN)
        write_atomic(folder / WHEN_TABLE, csv_text(_rows_when(result["when"])))
    else:
        for name in (WHEN, WHEN_TABLE):  # of an earlier result that is replaced
            (folder / name).unlink(missing_ok=True)
    write_sealed(folder / RESULT, {**result, "table_sha256": _digest(text.encode())})


def _rows_when(course: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per window; times in s; p of the cluster that a window is in."""
    rows = []
    for point in course["points"]:
        row = {key: point[key] for key in ("begin", "end", "centre", "most", "least", "rank_correlation")}
        for name in ("most", "least", "association"):
            inside = [
                c["p"] for c in course[name]["clusters"] if c["begin"] <= point["begin"] and point["end"] <= c["end"]
            ]
            row[f"p_cluster_{name}"] = inside[0] if inside else None
        rows.append(row)
    return rows


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of one form as CSV."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(harmless(row) for row in rows)
    return out.getvalue()


def write_axes(path: Path, bases: Mapping[str, Mapping[str, Components]]) -> None:
    """Mean, scale and axes of every layer, float32."""
    import torch

    tensors = {
        _KEY.format(network, layer, what): torch.from_numpy(np.ascontiguousarray(getattr(one, what), dtype=np.float32))
        for network, layers in bases.items()
        for layer, one in layers.items()
        for what in _AXES
    }
    save_tensors(path, tensors)


@dataclass(frozen=True)
class StoredDimensions:
    """A result of `recon universality`: ``facts`` (its JSON), universality (k,) of the components of a layer."""

    folder: Path
    facts: dict[str, Any]
    universal: dict[tuple[str, str], np.ndarray]
    tensors: dict[str, Any]

    def components(self, network: str, layer: str, width: int) -> Components:
        """Axes of a layer of ``width`` channels; variances are not stored with them. Raises `UserError` for others."""
        mean, scale, axes = (self.tensors[_KEY.format(network, layer, what)].double().numpy() for what in _AXES)
        if mean.shape != (width,):
            raise UserError(
                f"{str(self.folder)!r}: {network} {layer} has {len(mean)} channels there and {width} here; {_AGAIN}"
            )
        unknown = np.full(len(axes), np.nan)
        return Components(mean, scale, axes, unknown, unknown)

    def require(self, network: str, weights: str) -> None:
        """Raise `UserError` unless the network was among those compared, with the same weights."""
        known = self.facts["networks"]
        if network not in known:
            raise UserError(f"{str(self.folder)!r} has no dimensions of {network!r}; known: {', '.join(known)}")
        if known[network]["weights_sha256"] != weights:
            raise UserError(f"{str(self.folder)!r} has dimensions of {network!r} with other weights; make them again")


def read_universality(folder: Path) -> StoredDimensions:
    """Raises `UserError` where the folder holds no whole result: facts, table and axes that were written together."""
    facts = read_json(folder / RESULT, _SHAPE)
    rows = read_rows(folder / TABLE, ("network", "layer", "component", "universality"), _AGAIN)
    if _digest((folder / TABLE).read_bytes()) != facts["table_sha256"]:
        raise UserError(f"{str(folder / TABLE)!r} is not the table that {RESULT} was written with; {_AGAIN}")
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        found.setdefault((row["network"], row["layer"]), []).append(finite(row["universality"], folder / TABLE))
    tensors, _ = read_tensors(folder / AXES)
    if not (folder / RESULT).is_file() or read_json(folder / RESULT) != facts:  # what replaces it removes it first
        raise UserError(f"{str(folder)!r} was replaced while it was read; give the command again")
    for key, part in found.items():
        _require_axes(folder / AXES, key, tensors, len(part))
    return StoredDimensions(folder, facts, {key: np.array(part) for key, part in found.items()}, tensors)


def _require_axes(path: Path, key: tuple[str, str], tensors: Mapping[str, Any], count: int) -> None:
    """Raise `UserError` unless ``count`` axes of a layer are there, finite, with mean and scale of their width."""
    mean, scale, axes = (tensors.get(_KEY.format(*key, what)) for what in _AXES)
    fault = None
    if mean is None or scale is None or axes is None:
        fault = "lacks " + next(w for w, one in zip(_AXES, (mean, scale, axes), strict=True) if one is None)
    elif mean.ndim != 1 or scale.shape != mean.shape or axes.shape != (count, *mean.shape):
        fault = (
            f"has axes {tuple(axes.shape)}, mean {tuple(mean.shape)}, scale {tuple(scale.shape)}, dimensions {count}"
        )
    elif not all(one.is_floating_point() and bool(one.isfinite().all()) for one in (mean, scale, axes)):
        fault = "holds NaN, infinity or no fractions"
    elif not bool((scale > 0).all()):
        fault = "has a scale of 0 or below"
    if fault:
        raise UserError(f"{str(path)!r}: {' '.join(key)} {fault}; {_AGAIN}")
