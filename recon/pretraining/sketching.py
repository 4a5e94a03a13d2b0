"""Trains a sketch: true tokens to latents whose pictures resemble the true ones; no brain data, no noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from recon.generation.latents import LatentScale
from recon.generation.sketch import Sketch

LATENTS, PERCEPTUAL, TEXTURE = 1.0, 0.3, 1.0  # weights beside the pixels' absolute and squared error
Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass
class Teacher:
    """What a sketch learns from: latents in the UNet's ``scale``, and the frozen VAE that makes pictures of them.

    ``moments`` (n, 2 C, S, S) of the pool's pictures; ``perceptual``: distance of pictures in [-1, 1], or None.
    """

    vae: nn.Module
    scale: LatentScale
    moments: np.ndarray
    perceptual: Distance | None

    def loss(
        self, sketch: Sketch, given: torch.Tensor, rows: np.ndarray, few: np.ndarray, images: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Of standardised tokens ``given`` (B, N, D) of the pool's ``rows`` (B,): latents of all of them, pictures of
        the rows ``few`` (b,) among them, which are ``images`` (b, 3, H, W) in [0, 1]."""
        mean = self.scale.scaled(torch.from_numpy(self.moments[rows].astype(np.float32)).chunk(2, dim=1)[0].to(given))
        told = sketch(given)
        latents = F.l1_loss(told.float(), mean)
        wanted = images.to(given.device) * 2 - 1
        shown = self.vae.decode(self.scale.raw(told[few])).sample.float()
        pixels = F.l1_loss(shown, wanted) + F.mse_loss(shown, wanted)
        texture = F.l1_loss(fine_contrast(shown), fine_contrast(wanted))
        total = LATENTS * latents + pixels + TEXTURE * texture
        parts = {"latents": float(latents.detach()), "pixels": float(pixels.detach())}
        parts["texture"] = float(texture.detach())
        if self.perceptual is not None:
            seen = self.perceptual(shown, wanted)
            total, parts = total + PERCEPTUAL * seen, parts | {"perceptual": float(seen.detach())}
        return total, parts


def fine(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures (B, C, H, W) less their 5 x 5 means."""
    return pictures - F.avg_pool2d(F.pad(pictures, (2, 2, 2, 2), mode="reflect"), 5, stride=1)


def fine_contrast(pictures: torch.Tensor) -> torch.Tensor:
    """(B, 1, H / 8, W / 8): strength of `fine`, by cells. Errors of place cost nothing here, so that regression does
    not blur what it cannot place."""
    return (F.avg_pool2d(fine(pictures).square().mean(1, keepdim=True), 8) + 1e-4).sqrt()
