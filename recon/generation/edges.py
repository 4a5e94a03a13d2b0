"""ControlNet on the edges of the coarse picture: the layout that the brain tells, kept while the rest is added.

Takagi & Nishimoto 2023b (arXiv 2306.11536) and CMVDM (Zeng et al. 2024) add decoded structure this way. Edges come from
the low-level picture of the same row, so that every control has its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from align.errors import UserError

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


def load_controlnet(name: str, unet: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """A ControlNet from a folder or the hub's cache; raises `UserError` where it is absent or of another generator."""
    from diffusers import ControlNetModel

    try:
        net = ControlNetModel.from_pretrained(name, local_files_only=Path(name).is_dir(), dtype=dtype)
    except (OSError, ValueError) as error:
        raise UserError(
            f"--controlnet {name!r} cannot be read: {str(error).splitlines()[0]}; pass a folder, or online a hub id"
        ) from error
    if net.config.cross_attention_dim != unet.config.cross_attention_dim:
        raise UserError(
            f"--controlnet {name!r} is of another generator: width {net.config.cross_attention_dim}, "
            f"not {unet.config.cross_attention_dim}"
        )
    return net.to(device, dtype).eval().requires_grad_(False)
