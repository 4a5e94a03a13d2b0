"""What a run may hold beside scored pictures: samples of further seeds, low-level pictures, maps of evidence.

    <run>/reconstructions/<generator>/sub-XX/index.csv     rows of other seeds than the scored one
    <run>/low_level/<generator>/sub-XX/index.csv           one picture per stimulus
    <run>/evidence/<generator>/sub-XX/index.csv            grey maps, white = decided by the brain
    <run>/evidence/<generator>/sub-XX/evidence.json        {"rule": text, "rows": {stimulus_id: {"lit": share}}}

All of it is optional, also for single stimuli: what is not there is not shown, nor what belongs to pictures that were
drawn with other settings than the scored ones. What is there and cannot be read, or is of another training of the run,
raises `UserError`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from align.errors import UserError
from align.files import read_json
from recon.drawing.folders import DRAWING, PictureFolders, picture_bytes, read_index

LONGEST = 256  # px; larger pictures are reduced, no gallery shows them larger
MOST_SEEDS = 8  # shown; a page of more is no longer looked at
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Extras:
    """Pictures uint8 (H, W, 3) and maps uint8 (H, W) by stimulus id; ``others``: by seed, without the scored one."""

    others: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    low_level: dict[str, np.ndarray] = field(default_factory=dict)
    evidence: dict[str, np.ndarray] = field(default_factory=dict)
    lit: dict[str, float] = field(default_factory=dict)
    rule: str = ""
    seeds_left_out: int = 0


def read_extras(folders: PictureFolders, ids: Sequence[str], seed: int, run_id: str) -> Extras:
    """Everything optional of ``ids``. Evidence is of the scored ``seed`` only: a map explains one picture."""
    own = safe_rows(folders.reconstructions, run_id)
    drawing = {row.get(DRAWING) or "" for row in own if int(row["seed"]) == seed and row["stimulus_id"] in set(ids)}
    rows = _drawn_alike(own, drawing, folders.reconstructions)
    low = _drawn_alike(safe_rows(folders.low_level, run_id), {*drawing, ""}, folders.low_level)
    maps = _drawn_alike(safe_rows(folders.evidence, run_id), {*drawing, ""}, folders.evidence)
    seeds = sorted({int(row["seed"]) for row in rows} - {seed})
    kept = seeds[: MOST_SEEDS - 1]
    rule, lit = _evidence_facts(folders.evidence / "evidence.json") if maps else ("", {})
    low_seeds = sorted({int(row["seed"]) for row in low}, key=lambda s: (s != seed, s))
    return Extras(
        others={other: _pictures(folders.reconstructions, rows, ids, other) for other in kept},
        low_level=_pictures(folders.low_level, low, ids, low_seeds[0]) if low_seeds else {},
        evidence={key: pixels[..., 0] for key, pixels in _pictures(folders.evidence, maps, ids, seed).items()},
        lit={key: value for key, value in lit.items() if key in set(ids)},
        rule=rule,
        seeds_left_out=len(seeds) - len(kept),
    )


def read_seed_pictures(folder: Path, ids: Sequence[str], seed: int, run_id: str) -> dict[str, np.ndarray]:
    """Pictures uint8 (H, W, 3) of one seed by stimulus id, at most `LONGEST` px; only those the index lists."""
    return _pictures(folder, safe_rows(folder, run_id), ids, seed)


def _pictures(folder: Path, rows: Sequence[dict[str, str]], ids: Sequence[str], seed: int) -> dict[str, np.ndarray]:
    """`read_seed_pictures` of rows that were read already."""
    from align.data.reading.safe_load import decode_image

    listed = {row["stimulus_id"]: row for row in rows if int(row["seed"]) == seed}
    return {
        key: reduced(decode_image(picture_bytes(folder, listed[key]), str(folder / listed[key]["file"])))
        for key in ids
        if key in listed
    }


def _drawn_alike(rows: list[dict[str, str]], drawings: set[str], folder: Path) -> list[dict[str, str]]:
    """The rows of these drawings (`recon.decoding.plan.Plan.drawing`); that there are others is said in the log."""
    alike = [row for row in rows if (row.get(DRAWING) or "") in drawings]
    if len(alike) < len(rows):
        log.warning("%s: pictures drawn with other settings than the scored ones are not shown", folder)
    return alike


def reduced(pixels: np.ndarray) -> np.ndarray:
    """The picture itself, or where its longer side is above `LONGEST` px a smaller one."""
    if max(pixels.shape[:2]) <= LONGEST:
        return pixels
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    return np.asarray(image)


def safe_rows(folder: Path, run_id: str) -> list[dict[str, str]]:
    """Rows of a folder's index.csv ([] without one), refused where they are of another training or leave the folder."""
    rows = read_index(folder)
    for row in rows:
        if row["run"] != run_id:
            raise UserError(
                f"{str(folder)!r} holds pictures of {row['run']!r}, but this run is {run_id}; make them again"
            )
    return rows


def _evidence_facts(path: Path) -> tuple[str, dict[str, float]]:
    """The rule in words and the lit share of every stimulus; nothing where there is no file."""
    if not path.is_file():
        return "", {}
    stored = read_json(path)
    rows = stored.get("rows") if isinstance(stored, dict) else None
    if not isinstance(rows, dict) or not isinstance(stored.get("rule"), str):
        raise UserError(f"{str(path)!r} should hold a rule (text) and rows (by stimulus id)")
    return stored["rule"], {key: _share(path, key, row) for key, row in rows.items()}


def _share(path: Path, key: str, row: Any) -> float:
    lit = row.get("lit") if isinstance(row, dict) else None
    if isinstance(lit, bool) or not isinstance(lit, int | float) or not 0 <= lit <= 1:
        raise UserError(f"{str(path)!r}: lit of {key!r} is {lit!r}; a share from 0 to 1 is needed")
    return float(lit)
