"""What a backbone costs, read off its real architecture on torch's meta device: no weights, no memory, no network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from align.config import BackboneConfig
from align.errors import UserError
from align.fields.syntax import parse_pooling, split_name
from align.vision import families, transformers_models, wrap
from align.vision.known import KNOWN
from align.vision.taps import Backbone

PICTURES = (16_740, 73_000)  # THINGS-EEG2: 16,540 for training and 200 for testing; NSD: all
POOLINGS = ("mean", "grid:4", "tokens")
_BYTES = 2  # of a float16 number in the cache


def without_weights(config: BackboneConfig) -> Backbone:
    """The backbone that `load_backbone` gives, with layers and preprocessing, but no values: all on the meta device.

    Raises `UserError` for an unknown model; of transformers, only those in `known` can be built without the network.
    """
    family, model_name = split_name(config.name)
    if family not in _BUILDERS:
        raise UserError(f"{config.name} is embedded; costs are measured for {', '.join(_BUILDERS)}")
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        return _BUILDERS[family](model_name, config)


def measure(name: str, pictures: Sequence[int] = PICTURES) -> dict[str, Any]:
    """One backbone's facts, ready for JSON.

    ``parameters`` (of the vision part), ``gflop`` (per picture, whole forward pass, a multiply-add counts 2),
    ``size`` (px), ``prefix``, ``has_cls``, ``layers``: {layer: {"tokens": N, "grid": side of the map or 0, "width": D}}
    in depth order, ``cache_bytes``: {pictures: {pooling: bytes of one layer's cache file without its header}}; where
    layers differ, as in convnets, of the largest one.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        backbone = without_weights(BackboneConfig(name))  # its layers are found by one forward pass, counted here
    layers = {layer: layer_size(backbone, shape) for layer, shape in backbone.shapes.items()}
    return {
        "backbone": name,
        "revision": KNOWN[name].revision if name in KNOWN else None,
        "parameters": sum(value.numel() for value in backbone.parameters()),
        "gflop": round(counter.get_total_flops() / 1e9, 1),
        "preprocessing": backbone.preprocessing,
        "prefix": backbone.prefix,
        "has_cls": backbone.has_cls,
        "layers": layers,
        "cache_bytes": {
            str(n): {pooling: max(cache_bytes(layer, pooling, n) for layer in layers.values()) for pooling in POOLINGS}
            for n in pictures
        },
    }


def cache_bytes(layer: dict[str, int], pooling: str, pictures: int) -> int:
    """Size of the float16 tokens of one layer, as in `measure`; a grid is at most the layer's own."""
    kind, n = parse_pooling(pooling)
    grid = max(1, min(n, layer["grid"])) ** 2
    tokens = {"tokens": layer["tokens"], "mean": 1, "max": 1, "cls": 1, "grid": grid}[kind]
    return _BYTES * pictures * tokens * layer["width"]


def geometry(facts: dict[str, Any]) -> str:
    """One line for people: layers, tokens, width, picture; of what `measure` gives."""
    names, size = list(facts["layers"]), facts["preprocessing"]["size"]
    layer = facts["layers"][names[-1]]
    if len({(value["tokens"], value["width"]) for value in facts["layers"].values()}) > 1:
        return f"{len(names)} layers {names[0]} to {names[-1]}; feature maps; {size} px"
    tokens = f"{layer['tokens']} tokens = {facts['prefix']} prefix + {layer['grid']} x {layer['grid']}"
    return f"layers 0 to {names[-1]}; {tokens}; width {layer['width']}; {size} px"


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table with one line per backbone; cache sizes per layer (the largest), in units of 10^9 bytes."""
    counts = list(rows[0]["cache_bytes"])
    head = ["backbone", "revision", "geometry", "parameters", "GFLOP"]
    head += [f"{pooling}, {int(n):,}" for n in counts for pooling in POOLINGS]
    lines = [head, ["---"] * 3 + ["---:"] * (len(head) - 3)]
    for row in rows:
        cells = [row["backbone"], _pin(row), geometry(row)]
        cells += [f"{row['parameters'] / 1e6:,.0f} M", f"{row['gflop']:,.0f}"]
        cells += [f"{row['cache_bytes'][n][pooling] / 1e9:.3g} GB" for n in counts for pooling in POOLINGS]
        lines.append(cells)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _pin(row: dict[str, Any]) -> str:
    """Which weights one gets, in a few words."""
    if row["backbone"].startswith("torchvision/"):
        return "by the file's hash"
    unpinned = "not pinned: could not be verified" if row["backbone"] in KNOWN else "not pinned"
    return row["revision"][:12] if row["revision"] else unpinned


def layer_size(backbone: Backbone, shape: tuple[int, ...]) -> dict[str, int]:
    """Tokens and width of what a tap gives: (1, N, D), a map (1, D, H, W) or (1, H, W, D), a vector (1, D)."""
    if len(shape) == 3:
        return {"tokens": shape[1], "grid": int((shape[1] - backbone.prefix) ** 0.5), "width": shape[2]}
    if len(shape) == 2:
        return {"tokens": 1, "grid": 0, "width": shape[1]}
    width, height = (shape[3], shape[1]) if backbone.nhwc else (shape[1], shape[2])
    return {"tokens": int(torch.Size(shape).numel()) // width, "grid": height, "width": width}


def _torchvision(model_name: str, config: BackboneConfig) -> Backbone:
    from torchvision import models

    families.require_known(config.name, model_name, models.list_models(module=models))
    return families.wrap_torchvision(model_name, config, models.get_model(model_name, weights=None))


def _timm(model_name: str, config: BackboneConfig) -> Backbone:
    import timm

    families.require_known(config.name, model_name.split(".")[0], timm.list_models())
    return families.wrap_timm(config, timm.create_model(model_name, pretrained=False))


def _open_clip(model_name: str, config: BackboneConfig) -> Backbone:
    import open_clip

    options = {"load_weights": False, "pretrained_text": False, "device": "meta"}
    architecture = model_name.partition(":")[0]
    families.require_known(config.name, architecture, open_clip.list_models())
    with _no_warnings():
        model = open_clip.create_model(architecture, **families.open_clip_options(model_name), **options)
    return families.wrap_open_clip(config, model)


def _transformers(model_name: str, config: BackboneConfig) -> Backbone:
    from transformers import AutoConfig, AutoModel

    known = KNOWN.get(config.name)
    if known is None:
        names = ", ".join(name for name in KNOWN if name.startswith("transformers/"))
        raise UserError(f"the costs of {config.name} need its configuration from the hub; of transformers: {names}")
    model = AutoModel.from_config(AutoConfig.for_model(known.model_type, **known.architecture))
    own = wrap.preprocessing(**{**known.preprocessing, "size": config.image_size or known.preprocessing["size"]})
    return transformers_models.wrap_transformers(config, model, own)


@contextmanager
def _no_warnings() -> Iterator[None]:
    """open_clip warns through the root logger that a model has no weights, which is the point here."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


_BUILDERS: dict[str, Callable[[str, BackboneConfig], Backbone]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "open_clip": _open_clip,
    "transformers": _transformers,
}
