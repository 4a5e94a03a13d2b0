"""The networks of a comparison: trained, with own weights or untrained; pooled features of their layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from align.config import Config
from align.data.signals import Stimuli
from align.errors import UserError

if TYPE_CHECKING:
    from align.vision.taps import Backbone


def load_networks(entries: Sequence[str], config: Config) -> dict[str, Backbone]:
    """Networks by the entry that names them: ``NAME``, ``NAME@WEIGHTS`` or ``NAME@untrained[:SEED]``.

    ``backbone.image_size`` and the like belong to ``backbone.name`` alone. Raises `UserError` for an unknown network,
    one that stands twice, and for two entries with the same weights.
    """
    from align.vision.backbones import load_backbone
    from align.vision.untrained import UNTRAINED, load_untrained

    found: dict[str, Backbone] = {}
    for entry in entries:
        name, _, weights = entry.partition("@")
        own = config.backbone
        if name != own.name:
            own = replace(own, name=name, weights=None, image_size=None, revision=None)
        kind, _, seed = weights.partition(":")
        if kind == UNTRAINED:
            if seed and not seed.isdecimal():
                raise UserError(f"backbone {entry!r}: {seed!r} is no seed; write {name}@{UNTRAINED}:1")
            loaded = load_untrained(own, int(seed or 0))
        else:
            loaded = load_backbone(replace(own, weights=weights) if weights else own)
        same = next((other for other, one in found.items() if one.weights_hash == loaded.weights_hash), None)
        if same is not None:
            raise UserError(f"backbones {same!r} and {entry!r} have the same weights; name each network once")
        found[entry] = loaded
    return found


def layer_features(
    backbone: Backbone, stimuli: Stimuli, pooling: str, cache_dir: str, progress: bool = True
) -> dict[str, np.ndarray]:
    """Layer to (n, D) float32 of all pictures, tokens in one row; in order of depth, from the cache where they are."""
    from align.vision.targets import cached_targets

    layers = list(backbone.layers)
    targets = cached_targets(backbone, stimuli, layers, pooling, cache_dir, progress=progress)
    return {layer: np.asarray(targets[layer].tokens, dtype=np.float32).reshape(len(stimuli), -1) for layer in layers}


def layers_of(backbone: Backbone, words: Sequence[str]) -> list[str]:
    """Names of layers, each once, of words: names or indices, ``all``, or ``spread:K`` for K of them evenly over depth.

    Raises `UserError` for an unknown layer.
    """
    from align.vision.fused import resolve_layers

    return list(dict.fromkeys(resolve_layers(backbone, name) for word in words for name in _spelt(word, backbone)))


def _spelt(word: str, backbone: Backbone) -> list[str]:
    if word == "all":
        return list(backbone.layers)
    kind, colon, count = word.partition(":")
    if kind != "spread" or not colon:
        return [word]
    if not count.isdecimal() or int(count) < 2:
        raise UserError(f"--layers {word!r} should be spread:K with K of 2 or more, such as spread:8")
    chosen = np.linspace(0, len(backbone.layers) - 1, min(int(count), len(backbone.layers))).round().astype(int)
    return [backbone.layers[i] for i in dict.fromkeys(chosen.tolist())]


class Gallery:
    """Pictures of several lists, of which each is read whole (so that its cache serves other commands) and once.

    ``sources``: lists as studies and folders give them. Pictures are found by the hash of their pixels.
    """

    def __init__(self, sources: Sequence[Stimuli]) -> None:
        self.sources = list({(one.ids, one.hashes): one for one in sources}.values())
        hashes = [value for one in self.sources for value in one.hashes]
        self._row = dict(zip(reversed(hashes), reversed(range(len(hashes))), strict=True))

    def rows(self, stimuli: Stimuli) -> np.ndarray:
        """Where each picture stands in what `features` gives."""
        return np.array([self._row[value] for value in stimuli.hashes], dtype=np.int64)

    def features(self, backbone: Backbone, pooling: str, cache_dir: str) -> dict[str, np.ndarray]:
        """Layer to (N, D) of all pictures of all lists."""
        parts = [layer_features(backbone, one, pooling, cache_dir) for one in self.sources]
        return {layer: np.concatenate([part[layer] for part in parts]) for layer in parts[0]}


def joined(features: dict[str, np.ndarray]) -> np.ndarray:
    """The channels of all layers (n, P)."""
    return np.concatenate(list(features.values()), axis=1)


def described(networks: dict[str, Backbone]) -> dict[str, Any]:
    """What a result must say of its networks so that it can be made again."""
    return {
        entry: {
            "weights_sha256": one.weights_hash,
            "layers": list(one.layers),
            "parameters": sum(value.numel() for value in one.model.parameters()),
            "preprocessing": one.preprocessing,
        }
        for entry, one in networks.items()
    }


def short_name(entry: str) -> str:
    """Of a network, for figures and pictures: without family and file of weights."""
    name, _, weights = entry.partition("@")
    plain = name.partition("/")[2] or name
    return f"{plain}, {weights.replace(':', ' ')}" if weights.startswith("untrained") else plain


def depth_of(layers: Sequence[str], layer: str) -> float:
    """Relative depth of a layer: 0 for the first, 1 for the last."""
    return layers.index(layer) / max(len(layers) - 1, 1)
