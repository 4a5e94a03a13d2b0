"""The residual MLP of MindEye (Scotti et al. 2023, arXiv 2305.18274), made for voxels; reads signals of any shape."""

from __future__ import annotations

import math

import torch
from torch import nn

from align.config import EncoderConfig


class NormedBlock(nn.Module):
    """x + Dropout(GELU(LayerNorm(Linear(x)))), (B, E) -> (B, E)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = _layer(width, width, dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


def _layer(in_width: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_width, width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout))


def build(in_shape: tuple[int, ...], config: EncoderConfig) -> nn.Module:
    """Flatten, Linear-LayerNorm-GELU-Dropout, ``config.blocks`` residual blocks: (B, *in_shape) -> (B, E).

    As published: ``width=4096 dropout=0.5 blocks=4 block_dropout=0.15``. The linear layer to the target tokens that
    follows it there is the token head here.
    """
    first = _layer(math.prod(in_shape), config.width, config.dropout)
    blocks = [NormedBlock(config.width, config.block_dropout) for _ in range(config.blocks)]
    return nn.Sequential(nn.Flatten(), first, *blocks)
