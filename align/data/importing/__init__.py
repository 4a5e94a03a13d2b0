"""Foreign files to the layout of the `folder` study: signals.npy, stimuli.csv, images/. One module per kind of file."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from PIL import Image

from align.errors import UserError
from align.files import write_atomic


@dataclass(frozen=True)
class Shown:
    """One trial of the table: picture file, split (train, test or unused) and what is known of it."""

    image: str
    split: str
    subject: str
    concept: str = ""
    caption: str = ""
    session: str = ""


def write_layout(
    out: Path, signals: np.ndarray, trials: Sequence[Shown], images: Mapping[str, np.ndarray | Path]
) -> Path:
    """Write a folder that the `folder` study reads; it appears only when it is complete.

    ``signals`` (n, ...): row i belongs to ``trials[i]``. ``images``: uint8 (H, W, 3) or a file to copy, by file name.
    Raises `UserError` when ``out`` exists already or rows are missing.
    """
    if out.exists():
        raise UserError(f"{str(out)!r} exists already; give another folder or remove it")
    if len(signals) != len(trials):
        raise UserError(f"{len(signals)} rows of signals but {len(trials)} trials; there must be one trial per row")
    temporary = out.with_name(f".{out.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "images").mkdir(parents=True)
    try:
        for name, image in images.items():
            if isinstance(image, Path):
                shutil.copyfile(image, temporary / "images" / name)
            else:
                Image.fromarray(image).save(temporary / "images" / name)
        np.save(temporary / "signals.npy", signals)
        write_atomic(temporary / "stimuli.csv", _table(trials))
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def _table(trials: Sequence[Shown]) -> str:
    """The lines of stimuli.csv; columns that are empty throughout are left out."""
    used = [item.name for item in fields(Shown) if any(getattr(trial, item.name) for trial in trials)]
    text = io.StringIO()
    writer = csv.DictWriter(text, ["row", *used], lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({"row": row, **asdict(trial)} for row, trial in enumerate(trials))
    return text.getvalue()
