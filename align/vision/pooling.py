"""How the output of a layer becomes tokens: ``tokens | mean | max | cls | grid:n``.

A layer gives patch tokens (B, N, D), a feature map (B, D, H, W) or a pooled vector (B, D). The result is always
(B, N, D), float32, in memory of its own (so that later in-place operations of the network cannot change it).
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import adaptive_avg_pool2d

from align.errors import UserError
from align.fields.syntax import parse_pooling


def pool(features: torch.Tensor, pooling: str, *, prefix: int = 0, has_cls: bool = False) -> torch.Tensor:
    """Pool the output of one layer.

    Parameters
    ----------
    features
        (B, N, D) tokens, of which the first ``prefix`` are no patches (CLS, registers), (B, D, H, W) or (B, D).
    pooling
        ``tokens``: all, CLS included. ``mean``: mean of the patches, N = 1. ``max``: the largest value of every channel
        over the patches, N = 1. ``cls``: token 0, N = 1.
        ``grid:n``: patches averaged onto n x n cells in row-major order, N = n * n.
        A pooled vector (also a 1 x 1 map, the output of a convolutional classifier) stays N = 1 under all but ``cls``.

    Returns
    -------
    torch.Tensor
        (B, N, D) float32.

    Raises
    ------
    UserError
        Unknown pooling, ``cls`` without a CLS token, or a grid finer than the layer's own.
    """
    kind, n = parse_pooling(pooling)
    if kind == "cls" and not has_cls:
        raise UserError("pooling 'cls' needs a backbone with a CLS token; use mean or grid:n")
    if features.ndim == 2:
        features = features[:, :, None, None]
    height, width = features.shape[-2:]
    if features.ndim == 3:
        height = width = math.isqrt(features.shape[1] - prefix)
    if kind == "tokens":
        out = features if features.ndim == 3 else features.flatten(2).transpose(1, 2)
    elif kind == "cls":
        out = features[:, :1]
    elif kind == "mean":
        out = features[:, prefix:].mean(1, keepdim=True) if features.ndim == 3 else features.mean((2, 3))[:, None]
    elif kind == "max":
        out = features[:, prefix:].amax(1, keepdim=True) if features.ndim == 3 else features.amax((2, 3))[:, None]
    else:
        maps = features[:, prefix:].transpose(1, 2).unflatten(2, (height, width)) if features.ndim == 3 else features
        if height * width > 1:
            if n > min(height, width):
                raise UserError(f"pooling 'grid:{n}' is finer than the layer's own {height} x {width} grid")
            maps = adaptive_avg_pool2d(maps.float(), n)
        out = maps.flatten(2).transpose(1, 2)
    return out.float().clone(memory_format=torch.contiguous_format)
