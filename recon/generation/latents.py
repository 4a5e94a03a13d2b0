"""Between the latents of a VAE and those that a UNet reads, as the stock pipelines of SD and SDXL scale them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class LatentScale:
    """(raw - ``mean``) * ``factor`` / ``std``; mean and std (1, C, 1, 1), or numbers."""

    factor: float
    mean: torch.Tensor | float = 0.0
    std: torch.Tensor | float = 1.0

    @classmethod
    def of(cls, vae: Any) -> LatentScale:
        """Of the VAE's config: its ``scaling_factor``, and ``latents_mean`` and ``latents_std`` where it has both.
        A ``shift_factor`` plays no part: the pipelines of SD and SDXL do not read it."""
        mean, std = (getattr(vae.config, name, None) for name in ("latents_mean", "latents_std"))
        if mean is None or std is None:
            return cls(vae.config.scaling_factor)
        return cls(vae.config.scaling_factor, *(torch.tensor(row).view(1, -1, 1, 1) for row in (mean, std)))

    def scaled(self, raw: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, h, w) as the UNet reads them."""
        return (raw - _at(self.mean, raw)) * self.factor / _at(self.std, raw)

    def raw(self, scaled: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, h, w) as the VAE decodes them."""
        return scaled * _at(self.std, scaled) / self.factor + _at(self.mean, scaled)


def _at(value: torch.Tensor | float, near: torch.Tensor) -> torch.Tensor | float:
    return value.to(near) if isinstance(value, torch.Tensor) else value
