"""A shallow personal adapter before shared layers, after See Through Their Minds (AAAI 2025, arXiv 2403.06361).

The authors' repository holds hardly any code of the model, so the sizes inside are ours: a residual adapter, one linear
layer, then the blocks of `mlp`. This is a re-implementation of the idea, not of the published network.
"""

from __future__ import annotations

import math

from torch import nn

from align.config import EncoderConfig
from align.encoders import mlp
from align.encoders.adapters import Adapter


def build(in_shape: tuple[int, ...], config: EncoderConfig) -> nn.Module:
    """Flatten, adapter and linear layer (personal), blocks and LayerNorm of `mlp`: (B, *in_shape) -> (B, E)."""
    layers = mlp.build(in_shape, config)
    layers[1] = nn.Sequential(Adapter(math.prod(in_shape), config.adapter), layers[1])
    return layers
