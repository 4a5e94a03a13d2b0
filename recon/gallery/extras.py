"""What a run may hold beside scored pictures: samples of further seeds, low-level pictures, maps of evidence.

    <run>/reconstructions/<generator>/sub-XX/index.csv     rows of other seeds than the scored one
    <run>/low_level/<generator>/sub-XX/index.csv           one picture per stimulus
    <run>/evidence/<generator>/sub-XX/index.csv            grey maps, white = decided by the brain
    <run>/evidence/<generator>/sub-XX/evidence.json        {"rule": text, "rows": {stimulus_id: {"lit": share}}}

All of it is optional, also for single stimuli: what is not there is not shown. What is there and cannot be read, or is
of another training of the run, raises `UserError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from align.errors import UserError
from align.files import read_json
from recon.drawing.folders import PictureFolders, listed_picture, read_index

LONGEST = 256  # px; larger pictures are reduced, no gallery shows them larger
MOST_SEEDS = 8  # shown; a page of more is no longer looked at


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
    rows = safe_rows(folders.reconstructions, run_id)
    seeds = sorted({int(row["seed"]) for row in rows} - {seed})
    kept = seeds[: MOST_SEEDS - 1]
    low, maps = folders.low_level, folders.evidence
    rule, lit = _evidence_facts(maps / "evidence.json")
    low_seeds = sorted({int(row["seed"]) for row in safe_rows(low, run_id)}, key=lambda s: (s != seed, s))
    return Extras(
        others={other: read_seed_pictures(folders.reconstructions, ids, other, run_id) for other in kept},
        low_level=read_seed_pictures(low, ids, low_seeds[0], run_id) if low_seeds else {},
        evidence={key: pixels[..., 0] for key, pixels in read_seed_pictures(maps, ids, seed, run_id).items()},
        lit={key: value for key, value in lit.items() if key in set(ids)},
        rule=rule,
        seeds_left_out=len(seeds) - len(kept),
    )


def read_seed_pictures(folder: Path, ids: Sequence[str], seed: int, run_id: str) -> dict[str, np.ndarray]:
    """Pictures uint8 (H, W, 3) of one seed by stimulus id, at most `LONGEST` px; only those the index lists."""
    listed = {row["stimulus_id"]: row for row in safe_rows(folder, run_id) if int(row["seed"]) == seed}
    return {key: read_small(listed_picture(folder, listed[key])) for key in ids if key in listed}


def read_small(path: Path) -> np.ndarray:
    """One picture file, reduced; raises `UserError` when it is missing or no picture."""
    from align.data.reading.safe_load import decode_image

    return reduced(decode_image(path))


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
