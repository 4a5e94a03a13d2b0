"""Tokens as a decoder would predict them: what simulated linear recordings leave of the true tokens.

A generator that was trained on true tokens alone trusts predicted ones too much. So a part of its training tokens pass
through a virtual brain: units respond linearly to the tokens (each over a part of the picture, with random weights on
the channels), noise is added, and the tokens are estimated from the noisy responses with the lowest squared error. No
recording enters, and no study: number of units, noise and size of the receptive fields are drawn anew for each brain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

BRAINS, COMPONENTS, PICTURES = 32, 512, 3000
UNITS, SIGNAL_TO_NOISE, FIELD = (20, 400), (0.1, 10.0), (0.1, 0.5)  # FIELD: width of a field, share of the side
SPREAD = 0.4  # of the estimates whose components get the spread of true ones back, as `target.spread` does


@dataclass(frozen=True)
class VirtualBrains:
    """``mean`` (D,), ``basis`` (k, D) and ``variance`` (k,) of the principal components of flat standardised tokens.

    Brain b turns components c into their estimate ``keep[b] @ c + noise[b] @ n`` with n from a standard normal; that
    estimate times ``restore[b]`` has the variance of true components.
    """

    mean: torch.Tensor
    basis: torch.Tensor
    variance: torch.Tensor
    keep: torch.Tensor
    noise: tuple[torch.Tensor, ...]
    restore: torch.Tensor

    @classmethod
    def draw(cls, tokens: torch.Tensor, seed: int, n: int = BRAINS) -> VirtualBrains:
        """From standardised tokens (K, N, D) of some pictures."""
        generator = torch.Generator().manual_seed(seed)
        flat = tokens.flatten(1)
        mean = flat.mean(0)
        k = min(COMPONENTS, len(flat) - 1, flat.shape[1])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            _, scale, basis = torch.pca_lowrank(flat - mean, q=k, center=False, niter=3)
        basis, variance = basis.T.contiguous(), scale.square() / len(flat)
        keep, noise, restore = [], [], []
        for _ in range(n):
            weights = _fields(tokens.shape[1], tokens.shape[2], generator) @ basis.T
            response = weights @ (variance[:, None] * weights.T)
            level = response.diagonal() / _between(SIGNAL_TO_NOISE, generator, len(weights))
            gain = variance[:, None] * torch.linalg.solve(response + torch.diag(level), weights).T  # (k, units)
            keep.append(gain @ weights)
            noise.append(gain * level.sqrt())
            explained = (keep[-1].square() * variance).sum(1) + noise[-1].square().sum(1)
            restore.append((variance / explained.clamp_min(1e-3 * variance)).sqrt())
        return cls(mean, basis, variance, torch.stack(keep), tuple(noise), torch.stack(restore))

    def estimate(self, tokens: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Standardised tokens (B, N, D) as one of the brains, drawn at random, tells of them."""
        b = int(torch.randint(len(self.keep), (1,), generator=generator))
        components = (tokens.flatten(1) - self.mean) @ self.basis.T
        white = torch.randn(len(tokens), self.noise[b].shape[1], generator=generator)
        told = components @ self.keep[b].T + white @ self.noise[b].T
        spread = torch.rand(len(tokens), 1, generator=generator) < SPREAD
        told = torch.where(spread, told * self.restore[b], told)
        return (self.mean + told @ self.basis).view_as(tokens)


def _fields(n_tokens: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """Weights (units, N * D) of one brain's units, each of length 1."""
    units = round(float(_between(UNITS, generator, 1)))
    side = math.isqrt(n_tokens)
    cells = side * side
    axis = (torch.arange(side) + 0.5) / side
    place = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).reshape(-1, 2)
    centre = torch.rand(units, 1, 2, generator=generator)
    size = _between(FIELD, generator, 1)
    near = torch.exp(-(place - centre).square().sum(-1) / (2 * size**2))  # (units, cells)
    if cells < n_tokens:  # a CLS token in front sees the whole picture
        near = torch.cat([near.mean(1, keepdim=True).expand(-1, n_tokens - cells), near], dim=1)
    weights = near[:, :, None] * torch.randn(units, 1, width, generator=generator)
    return torch.nn.functional.normalize(weights.flatten(1), dim=1)


def _between(limits: tuple[float, float], generator: torch.Generator, n: int) -> torch.Tensor:
    """Draws (n,) between the limits, uniform on a logarithmic scale."""
    low, high = np.log(limits)
    return torch.exp(low + (high - low) * torch.rand(n, generator=generator))
