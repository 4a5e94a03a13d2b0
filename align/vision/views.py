"""Altered copies of a picture, made before the backbone sees it; the mean of their tokens is the target.

A view is written ``name`` or ``name:strength``, for example ``target.views=[original,blur:15,noise:25]``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from align.fields.syntax import parse_view

PUBLISHED_SIDE = 224  # px: strengths in px are meant for a picture of this (shorter) side and grow with it


def views_of(picture: np.ndarray, views: Sequence[str]) -> list[np.ndarray]:
    """The views of a picture, uint8 RGB (H, W, 3), in the given order.

    NeuroBridge (arXiv 2511.06836) takes the mean of blur:15, noise:25, lowres:0.1 and
    mosaic:5, also for the candidates at test; UBP (arXiv 2503.04207) takes foveal:51, likewise, and in training
    foveal:45 or foveal:57 for some pairs (see `align.training.uncertainty`).

    Raises
    ------
    UserError
        A name or a strength that is not known.
    """
    return [DRAWN[name](picture, strength) for name, strength in map(parse_view, views)]


def canonical(views: Sequence[str]) -> list[str]:
    """The views as they enter the cache key, in order of name: equal for lists that mean the same."""
    return sorted(f"{name}:{strength:g}" for name, strength in map(parse_view, views))


def _original(picture: np.ndarray, strength: float) -> np.ndarray:
    return picture


def _blur(picture: np.ndarray, kernel: float) -> np.ndarray:
    """Gaussian blur with the deviation that OpenCV and torchvision give to a kernel of this many px."""
    from scipy.ndimage import gaussian_filter

    sigma = (0.3 * ((kernel - 1) / 2 - 1) + 0.8) * _enlarged(picture)
    return _bytes(gaussian_filter(picture.astype(np.float32), (sigma, sigma, 0), mode="reflect"))


def _noise(picture: np.ndarray, deviation: float) -> np.ndarray:
    """Gaussian noise in grey levels (of 255); the same picture always gets the same noise."""
    seed = int.from_bytes(hashlib.sha256(np.ascontiguousarray(picture).tobytes()).digest()[:8], "big")
    return _bytes(picture + np.random.default_rng(seed).normal(0, deviation, picture.shape))


def _lowres(picture: np.ndarray, part: float) -> np.ndarray:
    """Made smaller to this part of its sides (means of areas), then enlarged again, bilinear."""
    from PIL import Image

    height, width = picture.shape[:2]
    size = max(1, round(width * part)), max(1, round(height * part))
    small = Image.fromarray(picture).resize(size, Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))


def _mosaic(picture: np.ndarray, cell: float) -> np.ndarray:
    """Square cells of this many px, each in its mean colour; those at the far edges may be smaller."""
    side = max(1, round(cell * _enlarged(picture)))
    height, width = picture.shape[:2]
    tops, lefts = np.arange(0, height, side), np.arange(0, width, side)
    sums = np.add.reduceat(np.add.reduceat(picture.astype(np.float64), tops, axis=0), lefts, axis=1)
    tall, wide = np.diff([*tops, height]), np.diff([*lefts, width])
    means = sums / (tall[:, None] * wide)[..., None]
    return _bytes(means.repeat(tall, axis=0).repeat(wide, axis=1))


def _foveal(picture: np.ndarray, kernel: float) -> np.ndarray:
    """Sharp where one looks: the share of the blurred picture grows linearly from 0 (centre) to 1 (near edge)."""
    height, width = picture.shape[:2]
    y, x = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    share = np.minimum(np.hypot(y[:, None], x) / (min(height, width) / 2), 1)[..., None]
    return _bytes((1 - share) * picture + share * _blur(picture, kernel))


def _enlarged(picture: np.ndarray) -> float:
    return min(picture.shape[:2]) / PUBLISHED_SIDE


def _bytes(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


DRAWN: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "original": _original,
    "blur": _blur,
    "noise": _noise,
    "lowres": _lowres,
    "mosaic": _mosaic,
    "foveal": _foveal,
}
