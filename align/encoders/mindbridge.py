"""The encoder of MindBridge (Wang et al., CVPR 2024): signals of any length are pooled to one length for all people.

As published: ``width=2048 blocks=4 dropout=0.5 block_dropout=0.15 pooled=8192 adapter=128``, for voxels. Pooling takes
neighbours in the order of the channels or voxels, so that order is part of the model: other orders, other results.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from align.config import EncoderConfig
from align.encoders.adapters import Adapter
from align.encoders.residual_mlp import NormedBlock

_POOLED = 8192  # published


class Pool(nn.Module):
    """The maximum of each of ``size`` stretches of neighbours, (B, P) -> (B, size), in the order of the values.

    Stretch i goes from floor(i P / size) to ceil((i + 1) P / size); with P < size some are alike.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_max_pool1d(x, self.size)


def pooled_size(places: int, config: EncoderConfig) -> int:
    """What ``places`` values are pooled to: ``encoder.pooled``, or 8192 and no more than there are."""
    return min(_POOLED, places) if config.pooled is None else config.pooled


def embedder(size: int, config: EncoderConfig) -> nn.Sequential:
    """The personal part after pooling: (B, size) -> (B, E)."""
    layers = (nn.Linear(size, config.width), nn.LayerNorm(config.width), nn.GELU(), nn.Dropout(config.dropout))
    return nn.Sequential(Adapter(size, config.adapter), *layers)


def builder(size: int, config: EncoderConfig) -> nn.Sequential:
    """The way back, for training alone: (B, E) -> (B, size)."""
    layers = (nn.Linear(config.width, size), nn.LayerNorm(size), nn.GELU())
    return nn.Sequential(*layers, Adapter(size, config.adapter))


def build(in_shape: tuple[int, ...], config: EncoderConfig) -> nn.Module:
    """Flatten, pool and embed (personal), ``config.blocks`` residual blocks (shared): (B, *in_shape) -> (B, E)."""
    size = pooled_size(math.prod(in_shape), config)
    front = nn.Sequential(Pool(size), embedder(size, config))
    blocks = [NormedBlock(config.width, config.block_dropout) for _ in range(config.blocks)]
    return nn.Sequential(nn.Flatten(), front, *blocks)
