"""The encoder of Shallow Alignment (Du et al. 2026, arXiv 2601.21948, section 3), for signals of any shape.

With one residual block and dropout 0.3 (the defaults) this is their EEGProject, which is also that of UBP (Wu et al.,
CVPR 2025) and NeuroBridge: it needs no name of its own here.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from align.config import EncoderConfig


class ResidualBlock(nn.Module):
    """x + Dropout(Linear(GELU(x))), (B, E) -> (B, E)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.dropout(self.linear(nn.functional.gelu(x)))


def build(in_shape: tuple[int, ...], config: EncoderConfig) -> nn.Sequential:
    """Flatten, linear, ``config.blocks`` residual blocks, LayerNorm: (B, *in_shape) -> (B, E)."""
    width = config.width
    blocks = [ResidualBlock(width, config.dropout) for _ in range(config.blocks)]
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(in_shape), width), *blocks, nn.LayerNorm(width))
