"""Several networks as one backbone: ``torchvision/squeezenet1_1+timm/tf_efficientnet_lite0``.

Its layers are those of all of them, named ``squeezenet1_1:features.9``, so that ``target.layer`` can join layers of
different networks as it joins those of one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from align.config import BackboneConfig
from align.errors import UserError
from align.fields.syntax import network_names
from align.vision.taps import Backbone, Tap, resolve_layer
from align.vision.weights import local_weights

_STATE = (".safetensors", ".pth", ".pt")


class Several(Backbone):
    """Members read one after another; each resizes and normalises pictures for itself.

    ``members``: by the label that its layers begin with. ``preprocessing``: pictures are resized whole to the largest
    size of a member and keep their values in [0, 1]; what the members then do is listed with it.
    """

    def __init__(self, name: str, members: dict[str, Backbone]) -> None:
        layers = {f"{label}:{layer}": (label, layer) for label, one in members.items() for layer in one.layers}
        super().__init__(
            name,
            nn.ModuleList(one for one in members.values()),
            {layer: Tap(layer) for layer in layers},
            _common(name, members),
            memory_format=torch.preserve_format,
            shapes={layer: members[label].shapes[own] for layer, (label, own) in layers.items()},
        )
        self.members, self._homes = members, layers

    def read(self, pixels: torch.Tensor, layers: Sequence[str], pooling: str = "tokens") -> dict[str, torch.Tensor]:
        """As `Backbone.read`; a network of which no layer is wanted does not run."""
        homes = {layer: self._homes[resolve_layer(self, layer)] for layer in layers}
        found: dict[str, torch.Tensor] = {}
        for label, member in self.members.items():
            own = {layer: name for layer, (home, name) in homes.items() if home == label}
            if own:
                tokens = member.read(member.preprocess(pixels), list(dict.fromkeys(own.values())), pooling)
                found |= {layer: tokens[name] for layer, name in own.items()}
        return {layer: found[layer] for layer in layers}

    def pooled(self, layer: str, value: torch.Tensor, pooling: str) -> torch.Tensor:
        label, own = self._homes[layer]
        return self.members[label].pooled(own, value, pooling)


def member_configs(config: BackboneConfig) -> list[BackboneConfig]:
    """The configuration of each network that ``config.name`` joins.

    ``config.weights`` is a folder: the weights of a network are its file or folder there that begins with the name of
    the model; what the folder lacks comes from an installed package or the hub. Raises `UserError` for weights that
    are no folder, two that fit one network, and a revision, which is of one network.
    """
    if config.revision:
        raise UserError(f"backbone.revision={config.revision!r} is of one network, and {config.name} are several")
    folder = local_weights(config)
    if folder is not None and not folder.is_dir():
        raise UserError(
            f"backbone.weights={config.weights!r} is one file, and {config.name} are several networks; pass a folder "
            "with the weights of each, named after its model"
        )
    return [replace(config, name=name, weights=_within(folder, name)) for name in network_names(config.name)]


def joined(config: BackboneConfig, members: Sequence[Backbone]) -> Several:
    """One backbone of several. Raises `UserError` where one is there twice, or cuts pictures in its own way."""
    labels = [model_label(one.name) for one in members]
    labels = [one.name if labels.count(label) > 1 else label for label, one in zip(labels, members, strict=True)]
    if len(set(labels)) < len(labels):
        raise UserError(f"backbone {config.name!r} names a network twice")
    return Several(config.name, dict(zip(labels, members, strict=True)))


def model_label(name: str) -> str:
    """``squeezenet1_1`` of ``torchvision/squeezenet1_1``, ``ViT-B-32`` of ``open_clip/ViT-B-32:openai``."""
    return name.rpartition("/")[2].partition(":")[0]


def _within(folder: Path | None, name: str) -> str | None:
    if folder is None:
        return None
    label = model_label(name)
    begins = re.compile(re.escape(label) + r"(?![A-Za-z0-9])")
    fitting = sorted(
        path for path in folder.iterdir() if begins.match(path.name) and (path.is_dir() or path.suffix in _STATE)
    )
    if len(fitting) > 1:
        told = ", ".join(path.name for path in fitting)
        raise UserError(f"backbone.weights={str(folder)!r} holds several weights of {name}: {told}; leave one there")
    return str(fitting[0]) if fitting else None


def _common(name: str, members: dict[str, Backbone]) -> dict[str, Any]:
    cut = [label for label, one in members.items() if "shorter" in one.preprocessing]
    if cut:
        raise UserError(
            f"backbone {name!r}: {cut[0]} cuts pictures in its own way, so it sees another part of them than the "
            "others; set backbone.crop=none"
        )
    largest = max(members.values(), key=lambda one: int(one.preprocessing["size"])).preprocessing
    return {
        **largest,
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
        "members": {label: one.preprocessing for label, one in members.items()},
    }
