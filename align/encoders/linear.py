"""One linear map: trained by gradient as ``linear``, in closed form as ``ridge`` and ``banded_ridge``."""

from __future__ import annotations

import math

from torch import nn

from align.config import EncoderConfig


def build(in_shape: tuple[int, ...], config: EncoderConfig) -> nn.Module:
    """(B, *in_shape) -> (B, E). For the closed forms E is the number of target components."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(in_shape), config.width))
