"""Pictures as tensors: float RGB (3, H, W) in [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from align.data.signals import Stimuli


def load_image(stimuli: Stimuli, index: int, size: int | None = None) -> torch.Tensor:
    """Stimulus as float (3, H, W) in [0, 1]; squeezed to (3, size, size), antialiased, when ``size`` is given."""
    import torch

    image = torch.from_numpy(np.array(stimuli.load(index))).permute(2, 0, 1).float() / 255
    return image if size is None else squeezed(image, size)


def squeezed(image: torch.Tensor, size: int) -> torch.Tensor:
    """(3, H, W) as (3, size, size), bilinear, antialiased."""
    from torch.nn.functional import interpolate

    if image.shape[1:] == (size, size):
        return image
    return interpolate(image[None], size=(size, size), mode="bilinear", antialias=True, align_corners=False)[0]
