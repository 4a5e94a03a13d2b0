"""The same architecture before training: weights as its library draws them."""

from __future__ import annotations

import torch

from align.config import BackboneConfig
from align.errors import UserError
from align.fields.syntax import network_names, split_name
from align.vision import families
from align.vision.backbones import load_backbone
from align.vision.several import joined, member_configs
from align.vision.taps import Backbone
from align.vision.transformers_models import wrap_transformers

UNTRAINED = "untrained"


def load_untrained(config: BackboneConfig, seed: int) -> Backbone:
    """As `load_backbone`, with the library's own random weights; the same ``seed`` gives the same. Torch's stays.

    Of transformers (and ``mini``) the trained model is read first, for its configuration. Raises `UserError` for an
    unknown model, and where ``backbone.weights`` are given.
    """
    if config.weights is not None:
        raise UserError(f"{config.name}@{UNTRAINED} draws its weights; leave backbone.weights out")
    if len(network_names(config.name)) > 1:
        several = joined(config, [load_untrained(one, seed) for one in member_configs(config)])
        several.name = f"{config.name}@{UNTRAINED}:{seed}"
        return several
    family, model_name = split_name(config.name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = _drawn(family, model_name, config, seed)
    backbone.name = f"{config.name}@{UNTRAINED}:{seed}"
    return backbone


def _drawn(family: str, model_name: str, config: BackboneConfig, seed: int) -> Backbone:
    if family == "torchvision":
        from torchvision import models

        families.require_known(config.name, model_name, models.list_models(module=models))
        return families.wrap_torchvision(model_name, config, models.get_model(model_name, weights=None))
    if family == "timm":
        import timm

        families.require_known(config.name, model_name.split(".")[0], timm.list_models())
        return families.wrap_timm(config, timm.create_model(model_name, pretrained=False))
    if family == "open_clip":
        import open_clip

        architecture = model_name.partition(":")[0]
        families.require_known(config.name, architecture, open_clip.list_models())
        return families.wrap_open_clip(config, open_clip.create_model(architecture))
    trained = load_backbone(config)
    torch.manual_seed(seed)
    kind = type(trained.model)
    return wrap_transformers(config, kind(trained.model.config), trained.preprocessing)
