"""The parts of the alignment loss, and their weighted sum with names."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from align.config import LossConfig


def info_nce(
    brain: torch.Tensor,
    image: torch.Tensor,
    logit_scale: torch.Tensor,
    *,
    normalize_brain: bool = False,
    normalize_image: bool = True,
    label_smoothing: float = 0.0,
    same: torch.Tensor | None = None,
) -> torch.Tensor:
    """Symmetric InfoNCE of paired embeds, the mean of both directions.

    brain, image: (B, E); row i of one belongs to row i of the other. ``logit_scale`` is stored as a logarithm.
    Normalising the image side alone is the default (NeuroBridge, arXiv 2511.06836, ablation: 63.2 against 46.4 with
    both sides). ``same``: (B, B) bool, symmetric, true where two rows show the same picture: such rows are all correct
    answers, in equal parts; None = all pictures differ.
    """
    brain = F.normalize(brain, dim=-1) if normalize_brain else brain
    image = F.normalize(image, dim=-1) if normalize_image else image
    logits = logit_scale.exp() * brain @ image.T
    rows = torch.arange(len(logits), device=logits.device)
    target = rows if same is None else same / same.sum(1, keepdim=True)
    to_image = F.cross_entropy(logits, target, label_smoothing=label_smoothing)
    to_brain = F.cross_entropy(logits.T, target, label_smoothing=label_smoothing)
    return (to_image + to_brain) / 2


def token_regression(estimate: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error of components (B, k) that share one scale, so that 1 = predicting the mean."""
    return F.mse_loss(estimate, target)


def weighted_sum(parts: dict[str, torch.Tensor], config: LossConfig) -> torch.Tensor:
    """The sum of the named parts, each times the weight of the same name in ``config``."""
    return torch.stack([getattr(config, name) * value for name, value in parts.items()]).sum()
