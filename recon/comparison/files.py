"""What `recon universality` writes and `recon rsa` reads again: table, facts, axes of the dimensions."""

from __future__ import annotations

import csv
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
DENSITY, EXTREMES, WHEN = "density.png", "extremes.png", "when.png"
_KEY = "{}/{}/{}"  # network, layer, what


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
    write_atomic(folder / TABLE, csv_text(rows))
    write_axes(folder / AXES, bases)
    save(draw_density(result, table), folder / DENSITY)
    draw_extremes(table, scored, scores, folder / EXTREMES)
    if result.get("when"):
        save(draw_when(result), folder / WHEN)
    else:
        (folder / WHEN).unlink(missing_ok=True)
    write_sealed(folder / RESULT, dict(result))


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
        for what in ("mean", "scale", "axes")
    }
    save_tensors(path, tensors)


@dataclass(frozen=True)
class StoredDimensions:
    """A result of `recon universality`: ``facts`` (its JSON), universality (k,) of the components of a layer."""

    folder: Path
    facts: dict[str, Any]
    universal: dict[tuple[str, str], np.ndarray]
    tensors: dict[str, Any]

    def components(self, network: str, layer: str) -> Components:
        """Axes of a layer; variances are not stored with them."""
        mean, scale, axes = (
            self.tensors[_KEY.format(network, layer, what)].double().numpy() for what in ("mean", "scale", "axes")
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
    """Raises `UserError` where the folder holds no whole result."""
    facts = read_json(folder / RESULT, {})
    remedy = "run recon universality again"
    rows = read_rows(folder / TABLE, ("network", "layer", "component", "universality"), remedy)
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        found.setdefault((row["network"], row["layer"]), []).append(finite(row["universality"], folder / TABLE))
    tensors, _ = read_tensors(folder / AXES)
    short = [key for key, part in found.items() if len(part) != len(tensors.get(_KEY.format(*key, "axes"), ()))]
    if short or "networks" not in facts:
        raise UserError(f"{str(folder)!r}: table, axes and facts do not belong together; {remedy}")
    return StoredDimensions(folder, facts, {key: np.array(part) for key, part in found.items()}, tensors)
