"""Maps of all channels of a network on one grid, for pictures, with the layer and number of every channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from align.data.signals import Stimuli
from align.errors import UserError

if TYPE_CHECKING:
    from align.vision.taps import Backbone


@dataclass(frozen=True)
class Maps:
    """``values`` (n, N, P) float16 on a grid of N cells; ``layer``, ``channel`` (P,): where each channel is from.

    ``without``: layers that give one number per channel and so have no map.
    """

    values: np.ndarray
    layer: np.ndarray
    channel: np.ndarray
    without: tuple[str, ...]


def read_maps(backbone: Backbone, stimuli: Stimuli, layers: Sequence[str], side: int, cache_dir: str) -> Maps:
    """Maps on ``side`` x ``side`` cells: larger ones are averaged, smaller ones drawn larger (bilinear).

    Layers without places are left out. Raises `UserError` where none of ``layers`` has places.
    """
    from align.vision.costs import layer_size
    from align.vision.targets import cached_targets

    own = {layer: layer_size(backbone, backbone.shapes[layer])["grid"] for layer in layers}
    without = tuple(layer for layer, grid in own.items() if grid < 2)
    with_places = [layer for layer in layers if layer not in without]
    if not with_places:
        raise UserError(f"{backbone.name}: {', '.join(layers)} has no places; choose other --layers")
    parts: dict[str, np.ndarray] = {}
    for grid in sorted({min(side, own[layer]) for layer in with_places}):
        some = [layer for layer in with_places if min(side, own[layer]) == grid]
        targets = cached_targets(backbone, stimuli, some, f"grid:{grid}", cache_dir)
        parts |= {layer: enlarged(np.asarray(targets[layer].tokens), side) for layer in some}
    widths = [parts[layer].shape[2] for layer in with_places]
    return Maps(
        np.concatenate([parts[layer] for layer in with_places], axis=2),
        np.repeat(np.array(with_places), widths),
        np.concatenate([np.arange(width) for width in widths]),
        without,
    )


def enlarged(tokens: np.ndarray, side: int) -> np.ndarray:
    """Tokens (n, m * m, D) on ``side`` x ``side`` cells, interpolated; as they are where m is ``side``."""
    import torch
    from torch.nn.functional import interpolate

    small = round(tokens.shape[1] ** 0.5)
    if small == side:
        return tokens
    maps = torch.from_numpy(tokens.astype(np.float32)).transpose(1, 2).unflatten(2, (small, small))
    large = interpolate(maps, (side, side), mode="bilinear", align_corners=False)
    return large.flatten(2).transpose(1, 2).numpy().astype(tokens.dtype)
