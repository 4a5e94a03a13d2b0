"""Every known backbone, tiny: its library's own recipe with all its options, only narrower and shallower.

``tiny(name, folder, monkeypatch)`` writes random weights as the library stores them and returns what loads them
(`BackboneConfig`), what every layer should give (a function of pixels (B, 3, S, S), by the library's own read-out) and
what the library's own processor makes of a square picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from align.config import BackboneConfig
from align.vision.known import KNOWN
from tests.align.fixture_internvit import internvit_states, write_internvit

States = dict[str, torch.Tensor]
DEPTH, WIDTH = 3, 32


@dataclass
class Tiny:
    """A tiny backbone on disk and its references."""

    config: BackboneConfig
    states: Callable[[torch.Tensor], States]
    processor: Callable[[Image.Image], torch.Tensor]


def tiny(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """The tiny twin of ``name``, loaded by that very name."""
    shrink(monkeypatch)
    torch.manual_seed(0)
    family, _, model_name = name.partition("/")
    builders = {"timm": _timm, "open_clip": _open_clip, "transformers": _transformers}
    return builders[family](name, model_name, folder)


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make timm and open_clip build their models small for the time of a test."""
    import open_clip
    from timm.models import eva, vision_transformer

    for module, maker in ((eva, "_create_eva"), (vision_transformer, "_create_vision_transformer")):
        original = getattr(module, maker)

        def small(variant: str, *args: Any, _original: Any = original, **options: Any) -> nn.Module:
            return _original(variant, *args, **{**options, "depth": DEPTH, "embed_dim": WIDTH, "num_heads": 2})

        monkeypatch.setattr(module, maker, small)
    for architecture in [name.split("/")[1].split(":")[0] for name in KNOWN if name.startswith("open_clip/")]:
        known = open_clip.get_model_config(architecture)
        vision = known["vision_cfg"]
        if isinstance(vision.get("layers"), list):
            vision |= {"width": 8}
        elif "layers" in vision:
            vision |= {"layers": DEPTH, "width": WIDTH, "head_width": 16}
        text = {"context_length": 8, "vocab_size": 64, "width": WIDTH, "heads": 2, "layers": 1}
        tower = {**known, "embed_dim": WIDTH, "vision_cfg": vision, "text_cfg": {**known["text_cfg"], **text}}
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, architecture, tower)


def randomise(model: nn.Module) -> None:
    """Tokens, positions and layer scales start at nought in some libraries; here every one of them counts."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def _timm(name: str, model_name: str, folder: Path) -> Tiny:
    import timm

    model = timm.create_model(model_name, pretrained=False).eval()
    randomise(model)
    save_file(model.state_dict(), folder / "model.safetensors")
    own = timm.data.resolve_model_data_config(model)
    own |= {"crop_pct": 1.0}
    return Tiny(
        BackboneConfig(name, str(folder)),
        lambda pixels: trunk_states(model, pixels),
        lambda picture: timm.data.create_transform(**own, is_training=False)(picture)[None],
    )


def trunk_states(trunk: Any, pixels: torch.Tensor) -> States:
    """A timm vision transformer by its own read-out of intermediate features; layer 0 by its embedding part."""
    embedded = trunk._pos_embed(trunk.patch_embed(pixels))
    states = {"0": trunk.norm_pre(embedded[0] if isinstance(embedded, tuple) else embedded)}
    found = trunk.forward_intermediates(
        pixels, return_prefix_tokens=True, norm=False, output_fmt="NLC", intermediates_only=True
    )
    for k, pair in enumerate(found, 1):
        patches, prefix = pair if isinstance(pair, tuple) else (pair, None)
        states[str(k)] = patches if prefix is None else torch.cat([prefix, patches], 1)
    return states


def _open_clip(name: str, model_name: str, folder: Path) -> Tiny:
    import open_clip

    architecture, tag = model_name.split(":")
    model = open_clip.create_model(architecture, load_weights=False, pretrained_text=False).eval()
    randomise(model)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    own = {**open_clip.get_pretrained_cfg(architecture, tag), "size": model.visual.image_size}
    keys = ("size", "mean", "std", "interpolation", "resize_mode")
    facts = open_clip.transform.PreprocessCfg(**{key: own[key] for key in keys})
    transform = open_clip.transform.image_transform_v2(facts, is_train=False)
    return Tiny(
        BackboneConfig(name, str(folder / "open_clip_model.safetensors")),
        lambda pixels: tower_states(model.visual, pixels),
        lambda picture: transform(picture)[None],
    )


def tower_states(visual: Any, pixels: torch.Tensor) -> States:
    """Of a ResNet, the end of each stage and the pooled output; of a vision transformer, every layer."""
    if hasattr(visual, "trunk"):
        return trunk_states(visual.trunk, pixels)
    if hasattr(visual, "attnpool"):
        maps = visual.forward_intermediates(pixels, intermediates_only=True)["image_intermediates"][1:]
        ends = [f"layer{k}.{len(getattr(visual, f'layer{k}')) - 1}" for k in (1, 2, 3, 4)]
        states = {end: features.flatten(2).transpose(1, 2) for end, features in zip(ends, maps, strict=True)}
        return states | {"attnpool": visual(pixels)[:, None]}
    out = visual.forward_intermediates(pixels, output_fmt="NLC", output_extra_tokens=True)
    pairs = zip(out["image_intermediates_prefix"], out["image_intermediates"], strict=True)
    return {"0": visual._embeds(pixels)} | {str(k): torch.cat(pair, 1) for k, pair in enumerate(pairs, 1)}


def _transformers(name: str, model_name: str, folder: Path) -> Tiny:
    from transformers import AutoConfig, AutoModel, BitImageProcessor, SiglipImageProcessor

    if "InternViT" in model_name:
        return _internvit(name, folder)
    known = KNOWN[name]
    size, small = known.preprocessing["size"], {"hidden_size": WIDTH, "num_hidden_layers": DEPTH}
    small |= {"num_attention_heads": 2}
    model = AutoModel.from_config(AutoConfig.for_model(known.model_type, **{**known.architecture, **small})).eval()
    randomise(model)
    square = {"height": size, "width": size}
    if known.model_type == "dinov2":
        model.save_pretrained(folder)
        own: Any = BitImageProcessor(size={"shortest_edge": 256}, crop_size=square)
        own.save_pretrained(folder)
    else:
        _save_inside_siglip(model, folder)
        own = SiglipImageProcessor(size=square, resample=2)
        own.save_pretrained(folder)
    return Tiny(
        BackboneConfig(name, str(folder)),
        lambda pixels: _hidden_states(model, pixels),
        lambda picture: own(images=picture, return_tensors="pt")["pixel_values"],
    )


def _save_inside_siglip(vision: Any, folder: Path) -> None:
    """As published: picture and text towers in one file."""
    from transformers import SiglipConfig, SiglipModel

    text = {"vocab_size": 64, "hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 8, "projection_size": WIDTH}
    text |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    both = SiglipModel(SiglipConfig(text_config=text, vision_config=vision.config.to_dict()))
    both.vision_model.load_state_dict(vision.state_dict())
    both.save_pretrained(folder)


def _hidden_states(model: Any, pixels: torch.Tensor) -> States:
    out = model(pixels, output_hidden_states=True, **({"interpolate_pos_encoding": True} if _resizes(model) else {}))
    return {str(k): state for k, state in enumerate(out.hidden_states)}


def _resizes(model: Any) -> bool:
    return model.config.model_type == "siglip_vision_model"


def _internvit(name: str, folder: Path) -> Tiny:
    from transformers import CLIPImageProcessor

    facts, state = write_internvit(folder, WIDTH, DEPTH, heads=2)
    own = CLIPImageProcessor(**json.loads((folder / "preprocessor_config.json").read_text()) | {"size": 448})
    return Tiny(
        BackboneConfig(name, str(folder)),
        lambda pixels: internvit_states(facts, state, pixels),
        lambda picture: own(images=picture, return_tensors="pt")["pixel_values"],
    )
