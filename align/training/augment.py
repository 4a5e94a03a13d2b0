"""What is done to signals on their way into training: mixing, noise, smoothing, lost channels, random averages."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from align.config import Config, TrainConfig
from align.errors import UserError
from align.training.distributed import world


def check_augmentation(config: Config, shape: tuple[int, ...]) -> None:
    """Raise `UserError` where trials of this ``shape``, or processes that share them, cannot be altered as asked."""
    if config.train.smooth > 0 and len(shape) != 2:
        raise UserError(f"train.smooth is along time, and these trials have shape {shape}; set it to 0")
    if config.train.mixco > 0 and world()[1] > 1:
        raise UserError("train.mixco mixes whole batches; train in one process, or take train.mixup")


def partners(subject: torch.Tensor | None, count: int, device: torch.device) -> torch.Tensor:
    """For every row of the batch another row (or itself) of the same subject: a permutation of 0..count-1.

    The permutation of each subject is written in numbers of the whole batch. MindEye2's public code leaves that out
    and points most rows at another subject's picture.
    """
    if subject is None:
        return torch.randperm(count, device=device)
    partner = torch.empty(count, dtype=torch.long, device=device)
    for one in subject.unique():
        own = (subject == one).nonzero()[:, 0]
        partner[own] = own[torch.randperm(len(own), device=device)]
    return partner


def mixture(train: TrainConfig, partner: torch.Tensor) -> torch.Tensor:
    """(B, B), rows sum to 1: row i is a share of row i and the rest of ``partner[i]``; drawn for every row by itself.

    Mixed convex combinations of MindEye (arXiv 2305.18274; Kim et al. 2020, arXiv 2010.06300): shares from
    Beta(a, a) with a = ``train.mixco`` (.15 there), for ``train.mixco_share`` of the rows (half of them there).
    """
    count = len(partner)
    share = torch.as_tensor(np.random.beta(train.mixco, train.mixco, count), dtype=torch.float32)
    share[torch.rand(count) >= train.mixco_share] = 1
    share = share.to(partner.device)
    matrix = torch.diag(share)
    matrix[torch.arange(count, device=partner.device), partner] += 1 - share
    return matrix


def mixed(mixture: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Rows x (B, ...) mixed by the matrix (B, B)."""
    return (mixture @ x.flatten(1)).view_as(x)


def smoothed(signals: torch.Tensor, kernel: int, probability: float) -> torch.Tensor:
    """Moving mean over ``kernel`` samples of the trials (B, C, T) that are drawn; the ends count as continued.

    SAMGA (arXiv 2604.17782): kernel 5, probability .3.
    """
    padded = F.pad(signals, (kernel // 2, kernel // 2), mode="replicate")
    drawn = torch.rand(len(signals), 1, 1, device=signals.device) < probability
    return torch.where(drawn, F.avg_pool1d(padded, kernel, stride=1), signals)


def without_channels(signals: torch.Tensor, probability: float) -> torch.Tensor:
    """Every channel of a trial (B, C, T), or voxel (B, V), is 0 (its training mean) with the given probability.

    The others are enlarged so that the expectation stays, as in dropout.
    """
    kept = torch.rand(signals.shape[:2], device=signals.device) >= probability
    return signals * (kept / (1 - probability)).view(*kept.shape, *[1] * (signals.ndim - 2))


def augmented(signals: torch.Tensor, train: TrainConfig) -> torch.Tensor:
    """Standardised signals (B, ...) smoothed, with channels lost and noise added, as far as asked for."""
    if train.smooth > 0:
        signals = smoothed(signals, train.smooth_kernel, train.smooth)
    if train.channel_dropout > 0:
        signals = without_channels(signals, train.channel_dropout)
    if train.noise > 0:
        signals = signals + train.noise * torch.randn_like(signals)
    return signals


def repetitions(unit: np.ndarray, rows: np.ndarray, most: int, seed: int) -> list[np.ndarray]:
    """For each of ``rows`` the rows to average: itself and up to ``most`` - 1 others of the same ``unit``.

    unit: (n,) int, equal where two of all n rows are repetitions of one picture by one subject. The number averaged is
    uniform in 1..``most``, or what there is; none comes twice. Averaging few trials leaves the noise of a few, so the
    encoder sees several levels of it.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(unit, kind="stable")
    ordered = unit[order]
    first, last = np.searchsorted(ordered, unit[rows]), np.searchsorted(ordered, unit[rows], "right")
    drawn = []
    for row, start, stop in zip(rows, first, last, strict=True):
        others = order[start:stop]
        others = others[others != row]
        count = min(int(rng.integers(0, most)), len(others))
        drawn.append(np.concatenate([[row], rng.permutation(others)[:count]]).astype(np.int64))
    return drawn
