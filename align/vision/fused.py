"""Several layers as one target: ``features.6+features.9`` is the tokens of both, side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from align.config import TargetConfig
from align.data.signals import Stimuli
from align.errors import UserError
from align.vision.taps import resolve_layer
from align.vision.targets import Targets, cached_targets

if TYPE_CHECKING:
    from align.vision.taps import Backbone


def parts_of(layer: str) -> list[str]:
    """The layers that a name joins."""
    return layer.split("+")


def resolve_layers(backbone: Backbone, layer: str) -> str:
    """`resolve_layer` for joined layers: in depth order, each once. Raises `UserError` for an unknown one."""
    names = {resolve_layer(backbone, part) for part in parts_of(layer)}
    return "+".join(sorted(names, key=backbone.layers.index))


def require_pooling(backbone: Backbone, layers: Sequence[str], pooling: str) -> None:
    """Raise `UserError` where a layer, single or joined, cannot be pooled so; no picture is looked at."""
    for part in dict.fromkeys(part for layer in layers for part in parts_of(layer)):
        name = resolve_layer(backbone, part)
        if name in backbone.shapes:
            backbone.pooled(name, torch.zeros(backbone.shapes[name]), pooling)


def layer_targets(
    backbone: Backbone,
    images: Stimuli,
    layers: Sequence[str],
    pooling: str,
    cache_dir: str | Path,
    progress: bool = True,
    views: Sequence[str] = (),
) -> dict[str, Targets]:
    """`cached_targets` for single and joined layers. A joined target is held in memory: (n, N, sum of D).

    Raises `UserError` when layers to be joined have different numbers of tokens.
    """
    single = list(dict.fromkeys(part for layer in layers for part in parts_of(layer)))
    found = cached_targets(backbone, images, single, pooling, cache_dir, progress=progress, views=views)
    return {layer: _joined(layer, [found[part] for part in parts_of(layer)]) for layer in layers}


def training_targets(
    backbone: Backbone,
    images: Stimuli,
    layers: Sequence[str],
    target: TargetConfig,
    cache_dir: str | Path,
    progress: bool = True,
) -> dict[str, Targets]:
    """`layer_targets` of the views that ``target`` names.

    Of ``uncertain_views`` the medium ones; the weak and the strong ones are their ``view_tokens``.
    """

    def of(views: Sequence[str]) -> dict[str, Targets]:
        return layer_targets(backbone, images, layers, target.pooling, cache_dir, progress, views)

    if not target.uncertain_views:
        return of(target.views)
    weak, medium, strong = (of([view]) for view in target.uncertain_views)
    return {layer: replace(medium[layer], view_tokens=(weak[layer].tokens, strong[layer].tokens)) for layer in layers}


def candidate_targets(
    backbone: Backbone,
    images: Stimuli,
    layers: Sequence[str],
    target: TargetConfig,
    cache_dir: str | Path,
    progress: bool = True,
) -> dict[str, Targets]:
    """What retrieval chooses among: tokens as in training (medium view), with ``candidate_views`` false plain ones."""
    views = (target.uncertain_views[1:2] or target.views) if candidates_alike(target) else []
    return layer_targets(backbone, images, layers, target.pooling, cache_dir, progress, views)


def candidates_alike(target: TargetConfig) -> bool:
    """True where the candidates' tokens are those that training is given for the same pictures."""
    return target.candidate_views or not (target.views or target.uncertain_views)


def _joined(layer: str, targets: list[Targets]) -> Targets:
    if len(targets) == 1:
        return targets[0]
    shapes = {target.layer: target.tokens.shape[1:] for target in targets}
    if len({shape[0] for shape in shapes.values()}) > 1:
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise UserError(f"layers {layer} have different numbers of tokens ({told}); choose target.pooling=grid:n")
    key = hashlib.sha256("+".join(target.key for target in targets).encode()).hexdigest()
    tokens = np.concatenate([target.tokens for target in targets], axis=2)
    return replace(
        targets[0],
        tokens=tokens,
        key=key,
        layer="+".join(shapes),
        widths=tuple(shape[1] for shape in shapes.values()),
    )
