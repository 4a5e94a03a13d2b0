"""Frozen vision backbones behind one call: pictures and layers to ``{layer: tokens (B, N, D)}``."""

from __future__ import annotations

import difflib

import torch

from align.config import BackboneConfig
from align.errors import UserError
from align.vision import families
from align.vision.taps import Backbone, resolve_layer

__all__ = ["BACKBONES", "Backbone", "load_backbone", "resolve_layer"]

BACKBONES: dict[str, families.Loader] = {
    "mini": families.load_mini,
    "torchvision": families.load_torchvision,
    "timm": families.load_timm,
    "open_clip": families.load_open_clip,
    "transformers": families.load_transformers,
}


def load_backbone(config: BackboneConfig) -> Backbone:
    """Load ``family/model`` (or ``mini``), frozen, on the CPU; the caller may move it. Leaves torch's seed alone.

    Raises
    ------
    UserError
        Unknown family or model (with the nearest), missing, truncated or unfitting weights, an image size that the
        model does not take.
    """
    family, _, model_name = config.name.partition("/")
    if family not in BACKBONES or bool(model_name) != (family != "mini"):
        near = difflib.get_close_matches(family, BACKBONES, n=1, cutoff=0.5)
        example = {"mini": "mini", "open_clip": "open_clip/ViT-B-32:laion2b_s34b_b79k"}
        hint = f"did you mean {example.get(near[0], near[0] + '/MODEL')!r}? " if near else ""
        raise UserError(f"backbone {config.name!r} is not known; {hint}Families: {', '.join(BACKBONES)}")
    with torch.random.fork_rng(devices=[]):
        return BACKBONES[family](model_name, config)
