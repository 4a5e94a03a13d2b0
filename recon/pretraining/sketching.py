"""Trains a sketch: true tokens to latents whose pictures resemble the true ones; no brain data, no noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from recon.generation.sketch import Sketch

if TYPE_CHECKING:
    from recon.pretraining.tokens import Tokens

LATENTS, PERCEPTUAL, TEXTURE = 0.3, 0.3, 1.0  # weights beside the pixels' absolute and squared error
Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass
class Teacher:
    """What a sketch learns from: latents as the UNet reads them, and the frozen VAE that turns them into pictures.

    ``moments`` (n, 2 C, S, S) of the pool's pictures; ``perceptual``: distance of pictures in [-1, 1], or None.
    """

    vae: nn.Module
    factor: float
    moments: np.ndarray
    perceptual: Distance | None

    def loss(
        self, sketch: Sketch, source: Tokens, rows: np.ndarray, images: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Of the pool's ``rows`` (B,), whose pictures are ``images`` (B, 3, H, W) in [0, 1]."""
        device = next(sketch.parameters()).device
        tokens = torch.from_numpy(source.values[rows - source.first].astype(np.float32)).to(device)
        mean = torch.from_numpy(self.moments[rows].astype(np.float32)).chunk(2, dim=1)[0].to(device) * self.factor
        told = sketch(source.conditioner.standardised(tokens))
        latents = F.l1_loss(told.float(), mean)
        wanted = images.to(device) * 2 - 1
        shown = self.vae.decode(told / self.factor).sample.float()
        pixels = F.l1_loss(shown, wanted) + F.mse_loss(shown, wanted)
        total, parts = (
            LATENTS * latents + pixels,
            {"latents": float(latents.detach()), "pixels": float(pixels.detach())},
        )
        texture = F.l1_loss(fine_contrast(shown), fine_contrast(wanted))
        total, parts = total + TEXTURE * texture, parts | {"texture": float(texture.detach())}
        if self.perceptual is not None:
            seen = self.perceptual(shown, wanted)
            total, parts = total + PERCEPTUAL * seen, parts | {"perceptual": float(seen.detach())}
        return total, parts


def fine_contrast(pictures: torch.Tensor) -> torch.Tensor:
    """(B, 1, H / 8, W / 8): strength of what a 5 x 5 mean removes, by cells. Errors of place cost nothing here, so that
    regression does not blur what it cannot place."""
    mean = F.avg_pool2d(F.pad(pictures, (2, 2, 2, 2), mode="reflect"), 5, stride=1)
    return (F.avg_pool2d((pictures - mean).square().mean(1, keepdim=True), 8) + 1e-4).sqrt()
