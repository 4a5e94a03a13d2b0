"""Own conditioner: its resampler reads the tokens themselves, with position channels beside them."""

from __future__ import annotations

from align.errors import UserError
from recon.generation.adapters import Adapter
from recon.generation.bridges.base import Bridge
from recon.generation.conditioner import null_embeds, with_positions


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
