"""Spatial-feature readout: every unit has one map of places and one set of feature weights (Klindt et al. 2017).

The response is the sum over places and features of map x weight x feature: "where" apart from "what". The map is a
softmax, as in the readout that the transformer brain encoder compares itself with (Hosseinzadeh Adeli et al. 2025).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from align.response_models.contract import Method, Seen
from align.response_models.gradient import NetworkFit, Tokens, Training, splits_of, standardised, train

STEPS = Training(epochs=40, batch=64, rate=5e-3, decay=1.0)


class Factorised(nn.Module):
    """(B, N, r) to (B, U): ``map`` softmax over N places, ``what`` r weights, both of each unit."""

    def __init__(self, places: int, width: int, units: int) -> None:
        super().__init__()
        self.where = nn.Parameter(torch.zeros(units, places))
        self.what = nn.Parameter(torch.randn(units, width) / width)
        self.level = nn.Parameter(torch.zeros(units))

    @property
    def map(self) -> torch.Tensor:
        """(U, N), adding up to 1."""
        return torch.softmax(self.where, dim=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        drive = x @ self.what.T  # (B, N, U)
        return torch.einsum("bnu,un->bu", drive, self.map) + self.level


@dataclass(frozen=True)
class SpatialFeature(Method):
    """`Factorised` networks by `align.response_models.gradient`."""

    training: Training = STEPS
    name: ClassVar[str] = "spatial_feature"
    source: ClassVar[str] = "Klindt et al. 2017, arXiv 1711.02653; softmax map as in arXiv 2505.17329"
    places: ClassVar[bool] = True

    def fit(self, seen: Seen, prepared: Any = None) -> NetworkFit:
        tokens = Tokens.of(seen.spaces)
        x, (y, level, scale) = tokens(seen.spaces), standardised(seen.responses)

        def make() -> nn.Module:
            return Factorised(x.shape[1], x.shape[2], y.shape[1])

        networks = train(make, x, y, splits_of(seen.groups, self.training), self.training)
        maps = torch.stack([network.map.detach() for network in networks]).mean(0)  # type: ignore[operator]
        return NetworkFit(tokens, networks, level, scale, maps.numpy())
