"""Resume: the frozen blocks after layer l run on the predicted tokens, up to what a public adapter reads.

Works where the study's backbone is the adapter's own image encoder, in whichever library: a CLIP vision transformer
whose tokens at layer l are those of the encoder. That is looked at with a picture, not taken from a name.
"""

from __future__ import annotations

import torch

from align.errors import UserError
from align.vision.taps import Backbone
from recon.decoding.bridges.image_encoder import ImageEncoder
from recon.generation.adapters import Adapter
from recon.generation.bridge import Bridge

_TOLERANCE = 0.02  # relative deviation of the tokens: the same weights in another library's arithmetic stay below


def resume_bridge(adapter: Adapter, encoder: ImageEncoder, backbone: Backbone, layer: str, pooling: str) -> Bridge:
    """The bridge for all tokens (N, D) of ``layer``; raises `UserError` where the blocks cannot be resumed."""
    if adapter.kind == "own":
        raise UserError("bridge resume leads to a public adapter; pass --adapter, or --bridge own")
    if pooling != "tokens":
        raise UserError(f"bridge resume needs all tokens, not pooling {pooling!r}; train with target.pooling=tokens")
    last = encoder.depth if adapter.kind == "pooled" else encoder.depth - 1
    if layer not in backbone.layers or not layer.isdecimal() or int(layer) > last:
        raise UserError(
            f"bridge resume starts after a block (0 to {last}) of a vision transformer, not at layer {layer!r} of "
            f"{backbone.name}; use --bridge ridge or prior"
        )
    shape = _require_same(encoder, backbone, layer)
    pooled = adapter.kind == "pooled"
    negative = torch.zeros(1, adapter.width) if pooled else encoder.zero_states()
    return Bridge(
        "resume",
        lambda tokens: encoder.resume(tokens, int(layer), pooled),
        negative,
        shape,
        f"{backbone.name} layer {layer}",
        f"resume {layer} {encoder.backbone.weights_hash}",
    )


def _require_same(encoder: ImageEncoder, backbone: Backbone, layer: str) -> tuple[int, int]:
    """Shape (N, D) of the tokens; raises `UserError` unless both give the same tokens for a picture of noise."""
    size = encoder.backbone.preprocessing["size"]
    picture = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    picture = picture.to(next(backbone.model.parameters()).device)
    theirs = encoder.backbone.tokens(picture, [layer])[layer]
    own = backbone.tokens(picture, [layer])[layer]
    if own.shape == theirs.shape:
        deviation = float((own - theirs).norm() / theirs.norm())
        if deviation <= _TOLERANCE:
            return own.shape[1], own.shape[2]
        told = f"tokens of layer {layer} deviate by {deviation:.0%}"
    else:
        told = f"tokens of layer {layer} are {tuple(own.shape[1:])}, the encoder's {tuple(theirs.shape[1:])}"
    raise UserError(
        f"bridge resume needs a backbone that is the adapter's image encoder, and {backbone.name} is another ({told}); "
        "use --bridge ridge or prior"
    )
