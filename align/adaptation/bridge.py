"""The ways back of MindBridge (Wang et al., CVPR 2024): from embeds to signals, and from one person to another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from align.adaptation.watch import Watch
from align.config import Config
from align.encoders.mindbridge import Pool, builder


class Bridge(nn.Module):
    """One builder for each person, and what they add to the loss; in training alone.

    ``fronts[i]``: pool and embedder of person i (`align.encoders.mindbridge`). Only those that a network reads signals
    with are learned from; the others are ways for the cycle.
    """

    def __init__(self, config: Config, fronts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.builders = nn.ModuleList(builder(_pool_of(front).size, config.encoder) for front in fronts)
        self._embedders = [front[1] for front in fronts]  # type: ignore[index]
        self._watches = [Watch(embedder) for embedder in self._embedders]

    def penalty(self) -> torch.Tensor:
        """Reconstruction and cycle, each with the published weight 1, the mean over the people of the batch.

        Reconstruction: squared distance of pooled signals from what the own builder makes of their embeds. Cycle: of
        embeds from what they are after a builder and the embedder of another person, drawn anew for every batch.
        """
        seen = [(person, watch.seen) for person, watch in enumerate(self._watches)]
        parts = []
        for person, pair in seen:
            if pair is None:
                continue
            pooled, embed = pair
            parts.append(F.mse_loss(self.builders[person](embed), pooled))
            others = [other for other in range(len(seen)) if other != person]
            if others:
                other = others[int(torch.randint(len(others), ()))]
                parts[-1] = parts[-1] + F.mse_loss(self._embedders[other](self.builders[other](embed)), embed)
        for watch in self._watches:
            watch.seen = None
        return torch.stack(parts).mean()


def _pool_of(front: nn.Module) -> Pool:
    pool = front[0]  # type: ignore[index]
    assert isinstance(pool, Pool)
    return pool
