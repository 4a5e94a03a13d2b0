"""Frozen vision backbones behind one call: pictures and layers to ``{layer: tokens (B, N, D)}``."""

from __future__ import annotations

from dataclasses import replace

import torch

from align.config import BackboneConfig
from align.errors import UserError
from align.fields.syntax import network_names, split_name
from align.vision import families, transformers_models
from align.vision.known import KNOWN
from align.vision.several import joined, member_configs
from align.vision.taps import Backbone, resolve_layer

__all__ = ["BACKBONES", "Backbone", "load_backbone", "resolve_layer"]

BACKBONES: dict[str, families.Loader] = {
    "mini": transformers_models.load_mini,
    "torchvision": families.load_torchvision,
    "timm": families.load_timm,
    "open_clip": families.load_open_clip,
    "transformers": transformers_models.load_transformers,
}


def load_backbone(config: BackboneConfig) -> Backbone:
    """Load ``family/model`` (or ``mini``), frozen, on the CPU; the caller may move it. Leaves torch's seed alone.

    Several networks, joined by ``+``, become one backbone (`align.vision.several`).

    Weights from the hub are those of ``config.revision``, else of the revision in `known`, else the newest.

    Raises
    ------
    UserError
        Unknown family or model (with the nearest), missing, truncated or unfitting weights, an image size that the
        model does not take, a revision of weights that do not come from the hub.
    """
    if len(network_names(config.name)) > 1:
        return joined(config, [load_backbone(one) for one in member_configs(config)])
    family, model_name = split_name(config.name)
    if config.weights is None and config.revision is None and config.name in KNOWN:
        config = replace(config, revision=KNOWN[config.name].revision)
    elif config.weights and config.revision:
        raise UserError(f"backbone.revision={config.revision!r} is of the hub and backbone.weights is local; pass one")
    with torch.random.fork_rng(devices=[]):
        return BACKBONES[family](model_name, config)
