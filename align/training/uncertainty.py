"""How well each training pair agrees at present, and which of three views of its picture the image side sees for that.

The blur prior of UBP (Wu et al., CVPR 2025, arXiv 2503.04207): where signal and picture fit each other badly, the
recording holds little detail, so the picture is blurred more; where they fit well, less. Published: Gaussian kernels of
45, 51 and 57 px, alpha .05, gamma .3; the candidates have the middle blur.

The rule, in the terms of the authors' public code. Of every pair a memory s of its similarity l (the logit, scale
included) is kept, 1 at the start; a batch first sets s to gamma l + (1 - gamma) s. With m and d the mean and standard
deviation (n - 1) of s over the batch and z the normal quantile of 1 - alpha / 2, a pair with l above m + z d gets the
weak view, below m - z d the strong one, else the middle one. A pair comes once in an epoch, so its view changes with
the next epoch, as there. Our reading: what the token head predicts is the middle view throughout (they have none).
"""

from __future__ import annotations

from statistics import NormalDist

import torch
from torch import nn

from align.config import Config
from align.errors import UserError
from align.training.batches import Batch

WEAK, MEDIUM, STRONG = range(3)


class Uncertainty(nn.Module):
    """Memory and present view of n pairs; a module, so that both are part of the checkpoint.

    ``similarity`` (n,) is the memory s; ``level`` (n,) one of `WEAK`, `MEDIUM` (all at the start), `STRONG`.
    """

    similarity: torch.Tensor
    level: torch.Tensor

    def __init__(self, n: int, alpha: float, gamma: float) -> None:
        super().__init__()
        self.gamma, self.width = gamma, -NormalDist().inv_cdf(alpha / 2)
        self.register_buffer("similarity", torch.ones(n))
        self.register_buffer("level", torch.full((n,), MEDIUM))

    def pictures(self, batch: Batch) -> torch.Tensor:
        """Components (B, k) of the pictures of the batch, each in the present view of its pair."""
        if batch.levels is None or batch.rows is None:
            raise UserError("target.uncertain_views needs the tokens of three views; give them to fit as `view_tokens`")
        return batch.levels[self.level[batch.rows], batch.stimulus]

    @torch.no_grad()
    def observe(self, rows: torch.Tensor, similarity: torch.Tensor) -> None:
        """Take note of the ``similarity`` (B,) of the pairs ``rows`` (B,), those of one whole batch."""
        now = similarity.detach().to(self.similarity.dtype)
        memory = self.gamma * now + (1 - self.gamma) * self.similarity[rows]
        middle = memory.mean()
        reach = self.width * memory.std() if len(memory) > 1 else torch.inf
        level = torch.full_like(rows, MEDIUM)
        level[now > middle + reach] = WEAK
        level[now < middle - reach] = STRONG
        self.similarity[rows], self.level[rows] = memory, level


def uncertainty_of(config: Config, n: int) -> Uncertainty | None:
    """A fresh `Uncertainty` of n pairs, None unless ``target.uncertain_views`` asks for it."""
    target = config.target
    return Uncertainty(n, target.uncertain_alpha, target.uncertain_gamma) if target.uncertain_views else None
