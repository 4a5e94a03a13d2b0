"""Attention-routed readout: every unit asks the tokens of a picture and reads where they answer.

The transformer brain encoder (Hosseinzadeh Adeli et al. 2025, arXiv 2505.17329): places carry sine positions, a learned
query attends to them (softmax over places), and a linear readout turns the answer into responses. Unlike a receptive
field, where a unit looks depends on the picture. Here every unit has a query of its own, there is one decoder layer,
and it is far narrower (128 against 768), for there are hundreds of pictures and not ten thousand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from align.response_models.contract import Method, Seen
from align.response_models.gradient import NetworkFit, Tokens, Training, splits_of, standardised, train

STEPS = Training(epochs=40, batch=64, rate=2e-3, decay=0.3)


def sine_positions(places: int, width: int) -> torch.Tensor:
    """(N, width) sines and cosines of row and column of a square grid in row-major order, else of the place's number.

    Vaswani et al. 2017, half of the width for each direction.
    """
    side = math.isqrt(places)
    axes = [torch.arange(places) // side, torch.arange(places) % side] if side**2 == places else [torch.arange(places)]
    each = width // (2 * len(axes))
    rates = 1.0 / 100.0 ** (torch.arange(each) / max(each, 1))
    angles = torch.cat([axis[:, None] * rates for axis in axes], dim=1)
    out = torch.zeros(places, width)
    out[:, : 2 * angles.shape[1]] = torch.cat([angles.sin(), angles.cos()], dim=1)
    return out


class Attention(nn.Module):
    """Queries (U, ``hidden``) attend to tokens (B, N, r) with ``heads``; answers (B, U, hidden) and the maps."""

    def __init__(self, places: int, width: int, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, hidden)
        self.key, self.value = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.positions: torch.Tensor
        self.register_buffer("positions", sine_positions(places, hidden))

    def maps(self, x: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        """(B, heads, U, N), adding up to 1 over places."""
        keys = self.key(self.project(x) + self.positions).unflatten(2, (self.heads, -1))
        asked = queries.unflatten(1, (self.heads, -1))
        logits = torch.einsum("uhd,bnhd->bhun", asked, keys) / math.sqrt(keys.shape[-1])
        return torch.softmax(logits, dim=-1)

    def forward(self, x: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        values = self.value(self.dropout(self.project(x))).unflatten(2, (self.heads, -1))
        return torch.einsum("bhun,bnhd->buhd", self.maps(x, queries), values).flatten(2)


class Routed(nn.Module):
    """(B, N, r) to (B, U): a query and a readout for each unit over one `Attention`."""

    def __init__(self, places: int, width: int, units: int, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(places, width, hidden, heads, dropout)
        self.queries = nn.Parameter(torch.randn(units, hidden))
        self.what = nn.Parameter(torch.randn(units, hidden) / hidden)
        self.level = nn.Parameter(torch.zeros(units))
        self.dropout = nn.Dropout(dropout)

    def map(self, x: torch.Tensor) -> torch.Tensor:
        """(U, N): mean over pictures (B, N, r) and heads."""
        return self.attention.maps(x, self.queries).mean((0, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answers = self.dropout(self.attention(x, self.queries))
        return torch.einsum("buh,uh->bu", answers, self.what) + self.level


@dataclass(frozen=True)
class AttentionRouted(Method):
    """`Routed` networks by `align.response_models.gradient`; sizes were set on training pictures of two V4 sessions."""

    hidden: int = 128
    heads: int = 4
    dropout: float = 0.1  # arXiv 2505.17329
    training: Training = STEPS
    name: ClassVar[str] = "attention"
    source: ClassVar[str] = "transformer brain encoder, arXiv 2505.17329"
    places: ClassVar[bool] = True

    def fit(self, seen: Seen, prepared: Any = None) -> NetworkFit:
        tokens = Tokens.of(seen.spaces)
        x, (y, level, scale) = tokens(seen.spaces), standardised(seen.responses)

        def make() -> nn.Module:
            return Routed(x.shape[1], x.shape[2], y.shape[1], self.hidden, self.heads, self.dropout)

        networks = train(make, x, y, splits_of(seen.groups, self.training), self.training)
        with torch.no_grad():
            maps = torch.stack([network.map(x) for network in networks]).mean(0)  # type: ignore[operator]
        return NetworkFit(tokens, networks, level, scale, maps.numpy())
