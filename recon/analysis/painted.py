"""A picture in grey with a map of places laid over it: red where it is above 0, blue where it is below."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


def painted(picture: Image.Image, drive: np.ndarray) -> Image.Image:
    """The picture in grey with its drive (N,) in [-1, 1] of a square grid laid over it, smoothed between the cells."""
    from PIL import Image

    side = round(len(drive) ** 0.5)
    cells = Image.fromarray(drive.reshape(side, side).astype(np.float32))
    strength = np.asarray(cells.resize(picture.size, Image.Resampling.BILINEAR), dtype=np.float32)[:, :, None]
    grey = np.asarray(picture.convert("L"), dtype=np.float32)[:, :, None].repeat(3, axis=2)
    colour = np.where(strength > 0, np.array([220, 30, 30]), np.array([30, 60, 220])).astype(np.float32)
    alpha = 0.8 * np.minimum(np.abs(strength), 1)
    return Image.fromarray(((1 - alpha) * grey + alpha * colour).astype(np.uint8))
