"""The parts of the alignment loss, and their weighted sum with names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from align.config import LossConfig

PARTS = ("contrastive", "regression", "mmd")
_SMALL = 1e-12
_KERNELS = (0.25, 0.5, 1.0, 2.0, 4.0)  # bandwidths of `mmd`, times the mean squared distance


def part_names(config: LossConfig) -> list[str]:
    """The parts whose weight is above 0, in a fixed order."""
    return [name for name in PARTS if getattr(config, name) > 0]


def sides(
    brain: torch.Tensor, image: torch.Tensor, *, normalize_brain: bool, normalize_image: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeds (B, E) of both sides, of length 1 where asked for."""
    brain = F.normalize(brain, dim=-1) if normalize_brain else brain
    return brain, F.normalize(image, dim=-1) if normalize_image else image


def info_nce(
    brain: torch.Tensor,
    image: torch.Tensor,
    logit_scale: torch.Tensor,
    *,
    normalize_brain: bool = False,
    normalize_image: bool = True,
    label_smoothing: float = 0.0,
    same: torch.Tensor | None = None,
    wanted: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Symmetric InfoNCE of paired embeds, the mean of both directions.

    brain, image: (B, E); row i of one belongs to row i of the other. ``logit_scale`` is stored as a logarithm.
    Normalising the image side alone is the default (NeuroBridge, arXiv 2511.06836, ablation: 63.2 against 46.4 with
    both sides). ``same``: (B, B) bool, symmetric, true where two rows show the same picture: such rows are all correct
    answers, in equal parts; None = all pictures differ. ``wanted``: soft answers instead, as `soft_answers` makes them.
    """
    brain, image = sides(brain, image, normalize_brain=normalize_brain, normalize_image=normalize_image)
    logits = logit_scale.exp() * brain @ image.T
    if wanted is None:
        rows = torch.arange(len(logits), device=logits.device)
        target = rows if same is None else same / same.sum(1, keepdim=True)
        wanted = (target, target)
    to_image = F.cross_entropy(logits, wanted[0], label_smoothing=label_smoothing)
    to_brain = F.cross_entropy(logits.T, wanted[1], label_smoothing=label_smoothing)
    return (to_image + to_brain) / 2


def siglip(logits: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """Sigmoid loss of every pair by itself: Zhai et al. 2023, arXiv 2303.15343.

    logits: (B, B), scale and learned bias included. answers: (B, B), 1 where picture j belongs to signal i, else 0
    (a share between for mixed signals). The sum over all pairs divided by B.
    """
    return F.binary_cross_entropy_with_logits(logits, answers, reduction="sum") / len(logits)


def soft_shares(features: torch.Tensor, temperature: float) -> torch.Tensor:
    """(B, B), rows sum to 1: how much picture j counts as an answer for picture i, by the cosine of their features.

    The soft labels of SoftCLIP (Gao et al. 2023, arXiv 2303.17561; MindEye, arXiv 2305.18274)
    with one difference: features (B, k) are the fixed components of the pictures and not the learned embeds, so that
    no training step can make its own labels easier.
    """
    unit = F.normalize(features, dim=-1)
    return (unit @ unit.T / temperature).softmax(1)


def soft_answers(shares: torch.Tensor, mixture: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """What `info_nce` wants for signals -> pictures and for pictures -> signals, both (B, B).

    shares: (B, B), answers between the pictures alone. mixture: (B, B), the share of row j's signal in row i's, as
    `augment.mixture` makes it; None = nothing was mixed. With ``shares`` the identity this is BiMixCo (MindEye): a
    mixed signal points to both its pictures by their shares, a picture to every signal it is part of.
    """
    return (shares, shares) if mixture is None else (mixture @ shares, shares @ mixture.T)


def token_regression(estimate: torch.Tensor, target: torch.Tensor, kind: str = "mse") -> torch.Tensor:
    """Distance of components (B, k) that share one scale: mean squared error, or 1 - cosine, the mean over rows.

    The squared error is 1 when the mean is predicted. The cosine leaves the length of predictions free.
    """
    return F.mse_loss(estimate, target) if kind == "mse" else 1 - F.cosine_similarity(estimate, target).mean()


def mmd(brain: torch.Tensor, image: torch.Tensor, kernels: Sequence[float] = _KERNELS) -> torch.Tensor:
    """Squared maximum mean discrepancy of two sets of embeds (B, E), 0 when they are the same set; at least 0.

    The mean over Gaussian kernels exp(-d / (c m)) with m the mean squared distance within the joint set (not part of
    the gradient) and c from ``kernels``; the biased estimate of Gretton et al. 2012. As a loss between
    brain and image embeds it is stage 1 of SAMGA (arXiv 2604.17782); these five bandwidths are our choice.
    """
    joint = torch.cat([brain, image])
    square = (joint * joint).sum(1)
    distance = (square[:, None] + square - 2 * joint @ joint.T).clamp_min(0)
    middle = (distance.detach().sum() / (len(joint) * (len(joint) - 1))).clamp_min(_SMALL)
    kernel = torch.stack([(-distance / (c * middle)).exp() for c in kernels]).mean(0)
    n = len(brain)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


def weight_of(name: str, config: LossConfig, done: float = 0.0) -> float:
    """The weight of a part at the fraction ``done`` (0..1) of training; that of ``mmd`` goes linearly to its end."""
    weight: float = getattr(config, name)
    if name == "mmd" and config.mmd_end is not None:
        return weight + done * (config.mmd_end - weight)
    return weight


def weighted_sum(parts: dict[str, torch.Tensor], config: LossConfig, done: float = 0.0) -> torch.Tensor:
    """The sum of the named parts, each times the weight of the same name in ``config`` (see `weight_of`)."""
    return torch.stack([weight_of(name, config, done) * value for name, value in parts.items()]).sum()
