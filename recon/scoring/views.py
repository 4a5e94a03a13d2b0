"""A set of pictures as the metrics see it under a preset: which sample, which order, at which size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from align.errors import UserError
from recon.scoring.picture_sets import OpenedPictures
from recon.scoring.presets import Preset

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class View:
    """Stimulus i is row ``order[i]`` of ``pictures`` (i itself without ``order``), its sample ``sample``.

    ``low_level``: pictures blended in where the preset says so.
    """

    pictures: OpenedPictures
    preset: Preset
    sample: int = 0
    order: np.ndarray | None = None
    low_level: OpenedPictures | None = None

    def entered(self, rows: Sequence[int]) -> torch.Tensor:
        """Float (b, 3, S, S) in [0, 1] at the entry size, blended."""
        rows = self._rows(rows)
        size = self.preset.entry_size or self.pictures.size
        images = _tensor_resize(self.pictures.batch(rows, self.sample), size, self.preset)
        if self.low_level is None or self.preset.blend is None:
            return images
        low = _tensor_resize(
            self.low_level.batch(rows, min(self.sample, self.low_level.samples - 1)), size, self.preset
        )
        return self.preset.blend * images + (1 - self.preset.blend) * low

    def pixels(self, rows: Sequence[int]) -> torch.Tensor:
        """Float (b, 3, P, P) for PixCorr and SSIM."""
        if self.preset.resize == "tensor":
            return _tensor_resize(self.entered(rows), self.preset.pixel_size, self.preset)
        return self._pil(rows, self.preset.pixel_size, "BICUBIC")

    def network(self, rows: Sequence[int], size: int) -> torch.Tensor:
        """Float (b, 3, S, S) for a network that reads ``size`` px unless the preset says otherwise."""
        size = self.preset.network_size or size
        if self.preset.resize == "tensor":
            return _tensor_resize(self.entered(rows), size, self.preset)
        return self._pil(rows, size, "BILINEAR")

    def _rows(self, rows: Sequence[int]) -> Sequence[int]:
        return rows if self.order is None else [int(self.order[row]) for row in rows]

    def _pil(self, rows: Sequence[int], size: int, method: str) -> torch.Tensor:
        import torch
        from PIL import Image

        pictures = self.pictures.bytes8(self._rows(rows), self.sample)
        if pictures.shape[1] != size:
            how = Image.Resampling[method]
            pictures = np.stack([np.asarray(Image.fromarray(p).resize((size, size), how)) for p in pictures])
        return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).float().div_(255)


@dataclass(frozen=True)
class GreyView(View):
    """Flat grey .5 in place of every picture: what an empty answer scores."""

    def entered(self, rows: Sequence[int]) -> torch.Tensor:
        """Grey at the entry size."""
        return self._grey(rows, self.preset.entry_size or self.pictures.size)

    def pixels(self, rows: Sequence[int]) -> torch.Tensor:
        """Grey at the size of PixCorr and SSIM."""
        return self._grey(rows, self.preset.pixel_size)

    def network(self, rows: Sequence[int], size: int) -> torch.Tensor:
        """Grey at the size of the network."""
        return self._grey(rows, self.preset.network_size or size)

    def _grey(self, rows: Sequence[int], size: int) -> torch.Tensor:
        import torch

        return torch.full((len(rows), 3, size, size), 0.5)


def require_fit(preset: Preset, name: str, targets: OpenedPictures, low_level: Any) -> None:
    """Raise `UserError` where a preset cannot be followed with these sets."""
    if preset.native_targets and targets.size != preset.pixel_size:
        raise UserError(
            f"preset {name!r} compares with targets at their own {preset.pixel_size} px, {targets.name!r} has "
            f"{targets.size} px; pass the original targets or another preset"
        )
    if low_level is not None and preset.blend is None:
        raise UserError(f"preset {name!r} blends nothing, but a low-level set was given; leave it out, or use mindeye2")


def _tensor_resize(images: torch.Tensor, size: int, preset: Preset) -> torch.Tensor:
    from torch.nn.functional import interpolate

    if images.shape[-2:] == (size, size):
        return images
    return interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=preset.antialias)
