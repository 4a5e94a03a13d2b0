"""One encoder for all subjects, a unit embedding for each unit (Universal Brain Encoder, Beliy et al. 2024).

What a unit asks of a picture and how it reads the answer are both linear in its embedding; all else is shared. Shared
parts are trained on the units of other subjects. A new unit then gets an embedding alone, so that few pictures suffice:
U x 65 numbers are fitted and not a network. arXiv 2406.12179; its code has 64 numbers for each unit, as here.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from align.response_models.attention import Attention
from align.response_models.contract import Method, Seen
from align.response_models.gradient import NetworkFit, Tokens, Training, splits_of, standardised, train

EMBEDDING = 64
TOGETHER = Training(epochs=30, batch=64, rate=2e-3, splits=1)
STEPS = Training(epochs=40, batch=64, rate=2e-2)


class Shared(nn.Module):
    """What all units share: attention, and the maps from an embedding to a query and to a readout."""

    def __init__(self, places: int, width: int, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(places, width, hidden, heads, dropout)
        self.to_query = nn.Linear(EMBEDDING, hidden)
        self.to_readout = nn.Linear(EMBEDDING, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """(B, U) of tokens (B, N, r) and embeddings (U, EMBEDDING)."""
        answers = self.dropout(self.attention(x, self.to_query(embedding)))
        return torch.einsum("buh,uh->bu", answers, self.to_readout(embedding)) / answers.shape[2] ** 0.5


class Units(nn.Module):
    """Embeddings and levels of one subject's units over a `Shared` network."""

    def __init__(self, shared: Shared, units: int, around: torch.Tensor | None = None) -> None:
        super().__init__()
        self.shared = shared
        start = torch.randn(units, EMBEDDING) * 0.3 if around is None else around.expand(units, -1).clone()
        self.embedding = nn.Parameter(start)
        self.level = nn.Parameter(torch.zeros(units))

    def map(self, x: torch.Tensor) -> torch.Tensor:
        """(U, N): mean over pictures (B, N, r) and heads."""
        return self.shared.attention.maps(x, self.shared.to_query(self.embedding)).mean((0, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shared(x, self.embedding) + self.level


@dataclass(frozen=True)
class Learnt:
    """What other subjects gave: how tokens are read, the shared network, the mean embedding of their units."""

    tokens: Tokens
    shared: Shared
    mean: torch.Tensor


@dataclass(frozen=True)
class Joint(Method):
    """``general``: training of the shared network; ``training``: of the embeddings of new units."""

    hidden: int = 64
    heads: int = 4
    dropout: float = 0.1
    general: Training = TOGETHER
    training: Training = STEPS
    name: ClassVar[str] = "joint"
    source: ClassVar[str] = "Universal Brain Encoder, arXiv 2406.12179"
    places: ClassVar[bool] = True
    from_others: ClassVar[bool] = True

    def prepare(self, others: Sequence[Seen]) -> Learnt:
        tokens = Tokens.of(
            {name: np.concatenate([other.spaces[name] for other in others]) for name in others[0].spaces}
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.general.seed)
            first = tokens({name: part[:1] for name, part in others[0].spaces.items()})
            shared = Shared(first.shape[1], first.shape[2], self.hidden, self.heads, self.dropout)
            people = [Units(shared, other.responses.shape[1]) for other in others]
            _train_together(people, others, tokens, self.general)
        mean = torch.cat([person.embedding.detach() for person in people]).mean(0, keepdim=True)
        return Learnt(tokens, shared.eval().requires_grad_(False), mean)

    def fit(self, seen: Seen, prepared: Learnt | None = None) -> NetworkFit:
        if prepared is None:
            raise ValueError("joint learns from other subjects first: prepare(others)")
        x, (y, level, scale) = prepared.tokens(seen.spaces), standardised(seen.responses)

        def make() -> nn.Module:
            return Units(copy.deepcopy(prepared.shared), y.shape[1], prepared.mean)

        networks = train(make, x, y, splits_of(seen.groups, self.training), self.training)
        with torch.no_grad():
            maps = torch.stack([network.map(x) for network in networks]).mean(0)  # type: ignore[operator]
        return NetworkFit(prepared.tokens, networks, level, scale, maps.numpy())


def _train_together(people: Sequence[Units], others: Sequence[Seen], tokens: Tokens, training: Training) -> None:
    """Batches of all subjects in random order; the last weights are kept."""
    sides = [(tokens(other.spaces), standardised(other.responses)[0]) for other in others]
    wanted = list({id(value): value for person in people for value in person.parameters()}.values())
    optimizer = torch.optim.AdamW(wanted, training.rate, weight_decay=training.decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.epochs)
    for _ in range(training.epochs):
        parts = [
            (number, part)
            for number, (x, _) in enumerate(sides)
            for part in torch.randperm(len(x)).split(training.batch)
        ]
        for place in torch.randperm(len(parts)).tolist():
            number, part = parts[place]
            x, y = sides[number]
            loss = nn.functional.mse_loss(people[number](x[part]), y[part])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(wanted, 1.0)
            optimizer.step()
        schedule.step()
