"""Vision transformers of the transformers library: a name on the Hugging Face hub or a local folder.

No code of a repository is ever run (``trust_remote_code`` is off): classes are those of the installed library.
InternViT, whose own repositories hold code, is read by `internvit` into the library's class of the same network.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from align.config import BackboneConfig
from align.errors import UserError
from align.vision import internvit, mini_weights
from align.vision.taps import Backbone
from align.vision.weights import fetching, local_weights
from align.vision.wrap import preprocessing, transformer

_PIL_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def load_transformers(model_name: str, config: BackboneConfig) -> Backbone:
    """Vision transformers of transformers (CLIP, SigLIP, DINOv2, DINOv3, InternViT, ViT, ...)."""
    weights = local_weights(config, folder=True)
    return _from_pretrained(config, str(weights or model_name), local=weights is not None)


def load_mini(_model_name: str, config: BackboneConfig) -> Backbone:
    """The embedded small CLIP image encoder (64 px, patches of 8 px)."""
    if config.revision:
        raise UserError(f"backbone.revision={config.revision!r}: 'mini' ships with this package; leave it out")
    weights = local_weights(config, folder=True) or mini_weights()
    if not (weights / "config.json").is_file():
        raise UserError(f"the embedded backbone 'mini' is missing at {str(weights)!r}; pass backbone.weights=DIR")
    return _from_pretrained(config, str(weights), local=True)


def _from_pretrained(config: BackboneConfig, source: str, *, local: bool) -> Backbone:
    from transformers import AutoImageProcessor, PretrainedConfig

    place: dict[str, Any] = {"local_files_only": local, "revision": config.revision or "main"}
    missing: list[str] = []
    with fetching(config), quiet_transformers():
        facts, _ = PretrainedConfig.get_config_dict(source, **place)
        if facts.get("model_type") == internvit.MODEL_TYPE:
            model = internvit.load(config, source, facts, local=local)
        else:
            model, missing = _native(config, source, facts, place)
        processor = AutoImageProcessor.from_pretrained(source, trust_remote_code=False, **place)
    size = config.image_size or _processor_size(processor)
    if size is None:
        raise UserError(f"{config.name} says no size of its pictures; pass backbone.image_size=PX or another model")
    filter_ = _PIL_FILTERS.get(processor.resample, "bicubic")
    shorter = _shorter_side(processor, size) if config.crop == "own" else None
    own = preprocessing(size, processor.image_mean, processor.image_std, filter_, shorter)
    return wrap_transformers(config, model, own, unhashed=missing)


def _native(
    config: BackboneConfig, source: str, facts: dict[str, Any], place: dict[str, Any]
) -> tuple[nn.Module, list[str]]:
    """A model of a class that the library has, and the tensors its weights lack (of a pooler, which is not read)."""
    import torch
    from transformers import CONFIG_MAPPING, AutoConfig, AutoModel

    kind = facts.get("model_type")
    if "auto_map" in facts and kind not in CONFIG_MAPPING:
        raise UserError(f"{config.name} ({kind}) needs code of its repository, which is never run; take another model")
    whole = AutoConfig.from_pretrained(source, trust_remote_code=False, **place)
    own = getattr(whole, "vision_config", whole)
    own.dtype = torch.float32
    model, info = AutoModel.from_pretrained(
        source, config=own, output_loading_info=True, dtype=torch.float32, trust_remote_code=False, **place
    )
    missing = sorted(info["missing_keys"])
    absent = [name for name in missing if not name.startswith("pooler.")]  # a pooler comes after every block
    if absent or info["mismatched_keys"]:
        raise UserError(f"weights of {config.name} in {source!r} do not fit: {(absent or info['mismatched_keys'])[0]}")
    return model, missing


def wrap_transformers(
    config: BackboneConfig, model: Any, own: dict[str, Any], unhashed: Iterable[str] = ()
) -> Backbone:
    """A model at hand with its preprocessing: one stack of blocks, square patches."""
    facts = model.config
    blocks = getattr(facts, "num_hidden_layers", 0)
    stacks = [n for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == blocks and blocks]
    patch, trained = _side(getattr(facts, "patch_size", None)), _side(getattr(facts, "image_size", None))
    pictures = "pixel_attention_mask" not in inspect.signature(model.forward).parameters  # else cut into patches
    if not stacks or patch is None or not pictures:
        raise UserError(f"{config.name} ({facts.model_type}) is no plain vision transformer; try the timm family")
    kwargs: dict[str, Any] = {}
    if own["size"] != trained and "interpolate_pos_encoding" in inspect.signature(model.forward).parameters:
        kwargs["interpolate_pos_encoding"] = True
    return transformer(config, model, stacks[0], patch, own, forward_kwargs=kwargs, unhashed=unhashed)


def _side(size: Any) -> int | None:
    """Side of a square in px, which configurations give once or twice; None for anything else."""
    if isinstance(size, (list, tuple)) and len(size) == 2 and size[0] == size[1]:
        size = size[0]
    return size if isinstance(size, int) else None


def _processor_size(processor: Any) -> int | None:
    """Side (px) of the square that an image processor of transformers hands to its model; None if it has no such."""
    size = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
    side = (size.get("height") or size.get("shortest_edge")) if size else None
    return int(side) if side else None


def _shorter_side(processor: Any, size: int) -> int | None:
    """Length (px) of the shorter side before the model's own centre crop, where that is more than the crop itself; in
    the same proportion for another ``size``. DINOv2: 256 for 224."""
    crop = _processor_size(processor)
    side = (getattr(processor, "size", None) or {}).get("shortest_edge")
    if not getattr(processor, "do_center_crop", False) or not side or not crop or side <= crop:
        return None
    return round(size * side / crop)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No load reports and progress bars; what is missing is checked by the caller."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
