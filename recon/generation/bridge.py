"""What every bridge is: a frozen map from tokens to the input of an adapter, with its negative and a key.

The bridge of an own conditioner is here, since it needs no run; the others are in `recon.decoding.bridges`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from align.errors import UserError
from recon.generation.adapters import Adapter
from recon.generation.conditioner import null_embeds, with_positions


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


def own_bridge(adapter: Adapter) -> Bridge:
    """The bridge of a file that recon/train.py wrote; raises `UserError` for a public adapter."""
    info = adapter.info
    if info is None:
        raise UserError(
            f"{str(adapter.path)!r} is a public adapter, which reads no tokens of a layer; "
            "pass --bridge ridge, prior or resume"
        )
    return Bridge(
        "own",
        lambda tokens: with_positions(tokens.float()),
        null_embeds(adapter.path),
        (info.n_tokens, info.width),
        f"the conditioner of {info.backbone} layer {info.layer} {info.pooling}",
        "own",
    )
