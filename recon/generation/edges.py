"""Edges of a picture, as ControlNets of soft edges and T2I-Adapters of line drawings read them."""

from __future__ import annotations

import torch
from torch.nn import functional as F

_WEAKEST = 0.1  # of the strongest gradient of a picture; below it there is no edge


def edges(pictures: torch.Tensor) -> torch.Tensor:
    """White edges on black (n, 3, H, W) of pictures (n, 3, H, W) in [0, 1]: strength of the Sobel gradient, its
    99th percentile in a picture = 1, as the ControlNets of soft edges read them."""
    grey = F.pad(pictures.mean(1, keepdim=True), (1, 1, 1, 1), mode="reflect")
    kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    bank = torch.stack([kernel, kernel.T])[:, None].to(pictures)
    strength = F.conv2d(grey, bank).square().sum(1, keepdim=True).sqrt()
    most = strength.flatten(1).quantile(0.99, dim=1).clamp_min(1e-3).view(-1, 1, 1, 1)
    found = (strength / most).clamp(0, 1)
    return torch.where(found < _WEAKEST, 0.0, found).expand(-1, 3, -1, -1)
