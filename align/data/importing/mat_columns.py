"""A ``.mat`` with one matrix per split (signals, pictures as columns of pixels, labels) to the `folder` layout.

    recon data import --mat digit69_28x28.mat --out digits69

The names are those of the handwritten sixes and nines (van Gerven et al. 2010) as the public repository
ChangdeDu/DGMM holds them: ``fmriTrn`` (90, 3092), ``fmriTest`` (10, 3092), ``stimTrn``, ``stimTest`` uint8 (n, 784) =
28 x 28 pixels column by column as MATLAB stores them, ``labelTrn``, ``labelTest`` (1 = six, 2 = nine). The label
becomes the caption, not the concept: with two concepts no fold could hold out one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from align.data.importing.layout import Shown, write_layout
from align.data.reading.safe_load import load_array, require_finite
from align.errors import UserError

DIGITS = {1: "6", 2: "9"}  # label -> caption


@dataclass(frozen=True)
class Names:
    """Arrays of one split: signals (n, voxels), pictures uint8 (n, pixels), labels (n, 1)."""

    split: str
    signals: str
    pictures: str
    labels: str


SPLITS = (Names("train", "fmriTrn", "stimTrn", "labelTrn"), Names("test", "fmriTest", "stimTest", "labelTest"))


def import_columns(
    path: str | Path,
    out: str | Path,
    subject: str = "01",
    captions: Mapping[int, str] = DIGITS,
    splits: tuple[Names, ...] = SPLITS,
) -> Path:
    """Write folder ``out`` from the ``.mat`` file and return it; pictures become upright 8-bit PNG.

    Raises `UserError` for a missing array, shapes that do not belong together, pictures that are not square, a label
    without caption, and an ``out`` that exists.
    """
    path, out = Path(path), Path(out)
    signals: list[np.ndarray] = []
    trials: list[Shown] = []
    images: dict[str, np.ndarray | Path] = {}
    for names in splits:
        x, pictures, labels = _arrays(path, names)
        if signals and x.shape[1] != signals[0].shape[1]:
            raise UserError(f"{names.signals} has {x.shape[1]} voxels, {splits[0].signals} {signals[0].shape[1]}")
        signals.append(x)
        for i, (picture, label) in enumerate(zip(pictures, labels.tolist(), strict=True)):
            if label not in captions:
                known = ", ".join(str(name) for name in captions)
                raise UserError(f"{names.labels} holds label {label}; known labels: {known}")
            name = f"{names.split}_{i:03d}.png"
            images[name] = picture
            trials.append(Shown(name, names.split, subject, caption=captions[label]))
    return write_layout(out, np.concatenate(signals), trials, images)


def _arrays(path: Path, names: Names) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signals float32 (n, voxels), pictures uint8 (n, side, side, 3), labels int64 (n,) of one split."""
    x, flat, labels = (load_array(path, key) for key in (names.signals, names.pictures, names.labels))
    if x.ndim != 2 or 0 in x.shape:
        raise UserError(f"{names.signals} has shape {x.shape}; expected (n, voxels)")
    side = math.isqrt(flat.shape[-1])
    if flat.ndim != 2 or flat.dtype != np.uint8 or side * side != flat.shape[1] or side == 0:
        raise UserError(f"{names.pictures} is {flat.dtype} {flat.shape}; expected uint8 (n, side * side)")
    labels = labels.reshape(-1)
    if not len(x) == len(flat) == len(labels):
        raise UserError(f"{names.split}: {len(x)} responses, {len(flat)} pictures, {len(labels)} labels; must be equal")
    with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite and is named
        x = x.astype(np.float32)
    require_finite(x, names.signals)
    upright = flat.reshape(-1, side, side).transpose(0, 2, 1)  # columns first, as MATLAB counts
    return x, np.repeat(upright[..., None], 3, axis=3), labels.astype(np.int64)
