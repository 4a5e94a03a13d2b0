"""The residual adapter of one person's signals, which `mindbridge` and `sttm` begin with."""

from __future__ import annotations

import torch
from torch import nn


class Adapter(nn.Module):
    """x + Linear(GELU(Linear(x))) through ``narrow`` values, (B, P) -> (B, P); adds little at the start."""

    def __init__(self, places: int, narrow: int) -> None:
        super().__init__()
        self.down = nn.Linear(places, narrow)
        self.up = nn.Linear(narrow, places)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.up(nn.functional.gelu(self.down(x)))
