"""`mlp` with Skip-LoRA, the low-rank paths of MindTuner (Gong et al., AAAI 2025, arXiv 2404.12630).

A path leads from the trial itself to the output of the first linear layer and to that of every block. It stands for
the part of the difference between two people that is not linear. No official code exists; this is a re-implementation
after the paper and the description of others.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from align.config import EncoderConfig
from align.encoders import mlp

_START = 0.01  # standard deviation of the second matrix at the start; the first is 0, so that nothing is added at first


class SkipPath(nn.Module):
    """GELU(B A v): v (n, P) -> (n, E), with A of ``rank`` rows. The scale alpha / rank is 1, as published (8 / 8)."""

    def __init__(self, in_width: int, width: int, rank: int) -> None:
        super().__init__()
        self.reads = nn.Linear(in_width, rank, bias=False)
        self.writes = nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.reads.weight)
        nn.init.normal_(self.writes.weight, std=_START)

    def forward(self, v: torch.Tensor) -> torch.Tensor:
        return nn.functional.gelu(self.writes(self.reads(v)))


class SkipMlp(nn.Module):
    """The layers of `mlp` as ``plain``, and one path of ``skips`` for its first linear layer and for each block."""

    def __init__(self, in_shape: tuple[int, ...], config: EncoderConfig) -> None:
        super().__init__()
        self.plain = mlp.build(in_shape, config)
        places = math.prod(in_shape)
        self.skips = nn.ModuleList(SkipPath(places, config.width, config.skip_rank) for _ in range(1 + config.blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        trial = hidden = self.plain[0](x)
        for layer, skip in zip(self.plain[1:-1], self.skips, strict=True):
            hidden = layer(hidden) + skip(trial)
        out: torch.Tensor = self.plain[-1](hidden)
        return out


def build(in_shape: tuple[int, ...], config: EncoderConfig) -> nn.Module:
    """(B, *in_shape) -> (B, E); at the start it is `mlp`: every path adds 0."""
    return SkipMlp(in_shape, config)
