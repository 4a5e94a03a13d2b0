"""How a study shows its pictures: in grey, behind a soft aperture. Found in the training pictures, put on all others.

An encoder has seen nothing else. A coloured square picture is outside of what it knows, and its prediction there says
little; two encoders of the same unit then disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import interpolate

from align.data.signals import Stimuli, pixel_hash

_SAME = 3.0  # mean difference of channels (of 255) up to which a picture is grey, as JPEG leaves it
_CLOSED, _OPEN = 0.05, 0.9  # of the usual deviation from the corners: below it nothing is seen, from there on all
_LEAST = 0.02  # share of closed pixels from which there is an aperture


@dataclass(frozen=True)
class Frame:
    """``grey``: pictures without colour. ``aperture`` (H, W) in [0, 1]: how much of a picture is seen; None = all.
    ``around`` (3,) in [0, 1]: what is seen elsewhere."""

    grey: bool = False
    aperture: np.ndarray | None = None
    around: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @classmethod
    def of(cls, stimuli: Stimuli, rows: Sequence[int] | np.ndarray) -> Frame:
        """Of the pictures ``rows``. Outside of an aperture every picture has one tone, that of its corners, which may
        differ between pictures; ``around`` is its mean. Pictures of several sizes are taken to have no aperture."""
        colour, count, corners = 0.0, 0, np.zeros(3)
        squared: np.ndarray | None = None
        alike = True
        for row in rows:
            picture = stimuli.load(int(row)).astype(np.float64)
            colour = max(colour, float(np.ptp(picture, axis=2).mean()))
            squared = np.zeros(picture.shape[:2]) if squared is None else squared
            alike = alike and picture.shape[:2] == squared.shape
            if alike:
                corner = _corner(picture)
                squared, corners, count = squared + ((picture - corner) ** 2).mean(axis=2), corners + corner, count + 1
        grey = colour <= _SAME
        if squared is None or not alike:
            return cls(grey and squared is not None)
        deviation = np.sqrt(squared / count)
        share = deviation / max(float(np.quantile(deviation, _OPEN)), 1e-9)
        if float((share < _CLOSED).mean()) < _LEAST:
            return cls(grey)
        red, green, blue = (float(value) for value in corners / count / 255)
        return cls(grey, np.clip((share - _CLOSED) / (_OPEN - _CLOSED), 0, 1), (red, green, blue))

    @property
    def changes(self) -> bool:
        """Whether it changes any picture."""
        return self.grey or self.aperture is not None

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Pictures (B, 3, H, W) in [0, 1] as the study would show them."""
        if self.grey:
            weights = images.new_tensor([0.299, 0.587, 0.114])[:, None, None]
            images = (images * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1)
        if self.aperture is None:
            return images
        whole = torch.as_tensor(self.aperture, dtype=images.dtype, device=images.device)[None, None]
        seen = interpolate(whole, tuple(images.shape[-2:]), mode="bilinear", align_corners=False, antialias=True)
        return seen * images + (1 - seen) * images.new_tensor(self.around)[:, None, None]

    def shown(self, stimuli: Stimuli) -> Stimuli:
        """The same pictures in this frame, with hashes of their own."""
        if not self.changes:
            return stimuli

        def load(row: int) -> np.ndarray:
            picture = torch.from_numpy(stimuli.load(row).copy()).permute(2, 0, 1)[None].float() / 255
            found: np.ndarray = (self(picture)[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
            return found

        def hashes() -> tuple[str, ...]:
            return tuple(pixel_hash(load(row)) for row in range(len(stimuli)))

        return Stimuli(stimuli.ids, load, stimuli.groups, stimuli.concepts, stimuli.captions, hashes)

    def described(self) -> dict[str, object]:
        """For a result."""
        seen = None if self.aperture is None else float(self.aperture.mean())
        return {"grey": self.grey, "aperture": seen}


def _corner(picture: np.ndarray) -> np.ndarray:
    """(3,) mean tone of the four corners."""
    size = max(1, min(picture.shape[:2]) // 28)
    ends = (slice(0, size), slice(-size, None))
    return np.asarray(np.mean([picture[a, b].mean(axis=(0, 1)) for a in ends for b in ends], axis=0))
