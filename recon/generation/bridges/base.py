"""What every bridge is: a frozen map from tokens to the input of an adapter, with its negative and a key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from align.errors import UserError


@dataclass(frozen=True)
class Bridge:
    """A map from tokens (n, N, D) of one layer to what ``image_proj`` of an adapter reads, (n, E) or (n, M, H).

    ``negative``: the same for one row, as the adapter was trained. ``takes``: (N, D). ``source``: words for a reader.
    ``key``: changes with everything that changes the map beside the adapter and the generator.
    """

    name: str
    convert: Callable[[torch.Tensor], torch.Tensor]
    negative: torch.Tensor
    takes: tuple[int, int]
    source: str
    key: str

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """Raises `UserError` for tokens of another shape."""
        if tuple(tokens.shape[1:]) != self.takes:
            raise UserError(
                f"tokens of shape {tuple(tokens.shape[1:])} do not fit {self.source}, which takes {self.takes}"
            )
        return self.convert(tokens)
