"""Pictures inside a page: WebP as data addresses, each kept once, as good as the page's size allows."""

from __future__ import annotations

import base64
import hashlib
import io
import logging

import numpy as np

BUDGET = 28_000_000  # characters of all addresses together, so that a page with its text stays below 30 MB
RUNGS = ((256, 88), (256, 76), (256, 60), (256, 45), (192, 60), (192, 45), (128, 70), (128, 50), (96, 50), (64, 40))
_TRIED = 48  # pictures a rung is estimated with
_START = "data:image/webp;base64,"
log = logging.getLogger(__name__)


class Album:
    """Pictures by number, stored at the first of `RUNGS` (longest side in px, WebP quality)."""

    def __init__(self) -> None:
        self._pictures: list[bytes] = []
        self._known: dict[bytes, int] = {}

    def add(self, pixels: np.ndarray) -> int:
        """Number of a uint8 picture (H, W, 3) or map (H, W); the same for equal pixels."""
        key = hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).digest()
        if key not in self._known:
            self._known[key] = len(self._pictures)
            self._pictures.append(encode(pixels, *RUNGS[0]))
        return self._known[key]

    def addresses(self, budget: int = BUDGET) -> list[str]:
        """All pictures as addresses of together at most ``budget`` characters: the first rung that keeps to it.

        Where not even the last one does, that is taken, with a warning.
        """
        found = self._pictures
        for rung in RUNGS[1:]:
            if _length(found) <= budget:
                break
            tried = self._pictures[:: -(-len(self._pictures) // _TRIED)]
            estimate = _length([_again(data, *rung) for data in tried]) / len(tried) * len(self._pictures)
            if estimate <= budget or rung == RUNGS[-1]:
                found = [_again(data, *rung) for data in self._pictures]
        if _length(found) > budget:
            log.warning("%d pictures make a page of %.0f MB; show fewer runs", len(found), _length(found) / 1e6)
        return [_START + base64.b64encode(data).decode() for data in found]


def encode(pixels: np.ndarray, longest: int, quality: int) -> bytes:
    """WebP bytes of a uint8 picture, reduced where a side is above ``longest`` px."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def _again(data: bytes, longest: int, quality: int) -> bytes:
    """The picture, reduced and encoded again."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return encode(np.asarray(image), longest, quality)


def _length(pictures: list[bytes]) -> int:
    """Characters of all addresses, with two quotes and a comma each."""
    return sum(len(_START) + 4 * (-(-len(data) // 3)) + 3 for data in pictures)
