"""One loader per family of vision models. Each turns (model name, config) into a `Backbone`.

Weights: the library's own default where ``config.weights`` is None (needs the network once), a local state dict in the
library's own layout (torchvision, timm, open_clip), or a local folder (open_clip, transformers).
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from align.config import BackboneConfig
from align.errors import UserError
from align.files import read_tensors
from align.vision import mini_weights
from align.vision.taps import Backbone, Tap, trace

Loader = Callable[[str, BackboneConfig], Backbone]


def load_torchvision(model_name: str, config: BackboneConfig) -> Backbone:
    """Classification models of torchvision: convnets by module name, vision transformers by block."""
    from torchvision import models

    _require_known(config.name, model_name, models.list_models(module=models))
    default = models.get_model_weights(model_name).DEFAULT
    own = default.transforms()
    model = models.get_model(model_name, weights=None)
    weights = _local_weights(config, folder=False)
    if weights is None:
        with _fetching(config):
            state = default.get_state_dict(progress=False, check_hash=True, weights_only=True)
    else:
        state = _read_state_dict(weights)
    _load_strict(model, state, config)
    size = config.image_size or own.crop_size[0]
    preprocessing = _preprocessing(size, own.mean, own.std, own.interpolation.value)
    if isinstance(model, models.VisionTransformer):
        return _transformer(config, model, "encoder.layers", model.patch_size, preprocessing)
    if isinstance(model, models.SwinTransformer):
        raise UserError(f"{config.name} keeps channels last; use timm's, such as timm/swin_tiny_patch4_window7_224")
    return _convnet(config, model, preprocessing)


def load_timm(model_name: str, config: BackboneConfig) -> Backbone:
    """Models of timm: vision transformers by block, everything else by module name."""
    import timm

    _require_known(config.name, model_name.split(".")[0], timm.list_models())
    weights = _local_weights(config, folder=False)
    if weights is None:
        with _fetching(config):
            model: Any = timm.create_model(model_name, pretrained=True)
    else:
        model = timm.create_model(model_name, pretrained=False)
        _load_strict(model, _read_state_dict(weights), config)
    own = timm.data.resolve_model_data_config(model)
    size = config.image_size or own["input_size"][-1]
    if size != own["input_size"][-1] and hasattr(model, "set_input_size"):
        model.set_input_size(img_size=size)
    preprocessing = _preprocessing(size, own["mean"], own["std"], own["interpolation"])
    return _timm_parts(config, model, model, "", preprocessing)


def load_open_clip(model_name: str, config: BackboneConfig) -> Backbone:
    """Vision towers of open_clip; the name is ``ARCHITECTURE:TAG``, the tag being optional with local weights."""
    import open_clip

    architecture, _, tag = model_name.partition(":")
    weights = _local_weights(config)
    options: dict[str, Any] = {"require_pretrained": True, "pretrained_text": False}
    if config.image_size is not None:
        options["force_image_size"] = config.image_size
    if weights is None and not tag:
        raise UserError(f"{config.name} names no weights; write {config.name}:TAG or pass backbone.weights=FILE or DIR")
    with _fetching(config):
        if weights is not None and weights.is_dir():
            model = open_clip.create_model(f"local-dir:{weights}", **options)
        else:
            if weights is not None and tag:
                own = open_clip.get_pretrained_cfg(architecture, tag)
                options["force_preprocess_cfg"] = {k: own[k] for k in ("mean", "std", "interpolation") if k in own}
            model = open_clip.create_model(architecture, pretrained=str(weights or tag), **options)
    visual = model.visual.eval()
    own = open_clip.get_model_preprocess_cfg(model)
    size = own["size"] if isinstance(own["size"], int) else own["size"][0]
    preprocessing = _preprocessing(size, own["mean"], own["std"], own["interpolation"])
    if hasattr(visual, "trunk"):
        return _timm_parts(config, visual, visual.trunk, "trunk.", preprocessing)
    if hasattr(visual, "transformer"):
        return _transformer(config, visual, "transformer.resblocks", visual.patch_size[0], preprocessing)
    return _convnet(config, visual, preprocessing)


def load_transformers(model_name: str, config: BackboneConfig) -> Backbone:
    """Vision transformers of transformers (CLIP, SigLIP, DINOv2, DINOv3, ViT, ...): hub name or local folder."""
    weights = _local_weights(config, folder=True)
    return _from_pretrained(config, str(weights or model_name), local=weights is not None)


def load_mini(_model_name: str, config: BackboneConfig) -> Backbone:
    """The embedded small CLIP image encoder (64 px, patches of 8 px)."""
    weights = _local_weights(config, folder=True) or mini_weights()
    if not (weights / "config.json").is_file():
        raise UserError(f"the embedded backbone 'mini' is missing at {str(weights)!r}; pass backbone.weights=DIR")
    return _from_pretrained(config, str(weights), local=True)


def _from_pretrained(config: BackboneConfig, source: str, *, local: bool) -> Backbone:
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    with _fetching(config), _quiet_transformers():
        whole = AutoConfig.from_pretrained(source, local_files_only=local)
        own = getattr(whole, "vision_config", whole)
        own.dtype = torch.float32
        model, info = AutoModel.from_pretrained(
            source, config=own, local_files_only=local, output_loading_info=True, dtype=torch.float32
        )
        processor = AutoImageProcessor.from_pretrained(source, local_files_only=local)
    missing = sorted(info["missing_keys"])
    absent = [name for name in missing if not name.startswith("pooler.")]  # a pooler comes after every block
    if absent or info["mismatched_keys"]:
        raise UserError(f"weights of {config.name} in {source!r} do not fit: {(absent or info['mismatched_keys'])[0]}")
    blocks = getattr(own, "num_hidden_layers", 0)
    stacks = [n for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == blocks and blocks]
    if not stacks or not isinstance(getattr(own, "patch_size", None), int):
        raise UserError(f"{config.name} ({own.model_type}) is no plain vision transformer; try the timm family")
    size = config.image_size or _processor_size(processor)
    preprocessing = _preprocessing(
        size, processor.image_mean, processor.image_std, _PIL_FILTERS.get(processor.resample, "bicubic")
    )
    kwargs: dict[str, Any] = {}
    if size != own.image_size and "interpolate_pos_encoding" in inspect.signature(model.forward).parameters:
        kwargs["interpolate_pos_encoding"] = True
    return _transformer(
        config, model, stacks[0], own.patch_size, preprocessing, forward_kwargs=kwargs, unhashed=missing
    )


_PIL_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def _processor_size(processor: Any) -> int:
    """Side (px) of the square that an image processor of transformers hands to its model."""
    size = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
    return int(size.get("height") or size["shortest_edge"])


@contextmanager
def _quiet_transformers() -> Iterator[None]:
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


def _timm_parts(
    config: BackboneConfig, model: nn.Module, trunk: Any, path: str, preprocessing: dict[str, Any]
) -> Backbone:
    """A timm model, or one that stands at ``path`` inside an open_clip tower."""
    if hasattr(trunk, "blocks") and hasattr(trunk, "num_prefix_tokens"):
        has_cls = getattr(trunk, "has_class_token", trunk.num_prefix_tokens > 0)
        patch = trunk.patch_embed.patch_size[0]
        return _transformer(config, model, f"{path}blocks", patch, preprocessing, has_cls=bool(has_cls))
    return _convnet(config, model, preprocessing, trunk, path, getattr(trunk, "output_fmt", "NCHW") == "NHWC")


def _transformer(
    config: BackboneConfig,
    model: nn.Module,
    stack: str,
    patch: int,
    preprocessing: dict[str, Any],
    *,
    has_cls: bool | None = None,
    forward_kwargs: dict[str, Any] | None = None,
    unhashed: Iterable[str] = (),
) -> Backbone:
    """Layer 0 is read before the first block of ``stack``, layer k after block k; checked with one picture."""
    blocks = [f"{stack}.{name}" for name, _ in model.get_submodule(stack).named_children()]
    taps = {"0": Tap(blocks[0], before=True)} | {str(k): Tap(block) for k, block in enumerate(blocks, 1)}
    grid = preprocessing["size"] // patch
    with _fitting(config, preprocessing["size"]):
        shapes = trace(model, taps, preprocessing["size"], forward_kwargs)
    seen = {shape for fired in shapes.values() for shape in fired}
    one = next(iter(seen)) if len(seen) == 1 else ()
    if list(shapes) != list(taps) or len(one) != 3 or one[0] != 1 or one[1] < grid**2:
        raise UserError(f"{config.name}: its blocks give {sorted(seen)}, expected one (1, N >= {grid**2}, D) each")
    prefix = one[1] - grid**2
    return Backbone(
        config.name,
        model,
        taps,
        preprocessing,
        prefix=prefix,
        has_cls=prefix > 0 if has_cls is None else has_cls,
        forward_kwargs=forward_kwargs,
        unhashed=tuple(unhashed),
    )


def _convnet(
    config: BackboneConfig,
    model: nn.Module,
    preprocessing: dict[str, Any],
    trunk: nn.Module | None = None,
    path: str = "",
    nhwc: bool = False,
) -> Backbone:
    """Layers = top-level modules, containers opened one level (not the head), in the order in which they run."""
    children = list((trunk or model).named_children())
    taps: dict[str, Tap] = {}
    for position, (name, child) in enumerate(children):
        opened = isinstance(child, (nn.Sequential, nn.ModuleList)) and position < len(children) - 1
        names = [f"{name}.{inner}" for inner, _ in child.named_children()] if opened else [name]
        taps |= {inner: Tap(path + inner) for inner in names}
    with _fitting(config, preprocessing["size"]):
        shapes = trace(model, taps, preprocessing["size"])
    order = [name for name, fired in shapes.items() if len(fired) == 1 and len(fired[0]) in (2, 4)]
    if not order:
        raise UserError(f"{config.name}: no layer gives a feature map")
    taps = {name: taps[name] for name in order}
    # channels_last halves the time of small convolutions on a CPU (measured with SqueezeNet 1.1)
    return Backbone(config.name, model, taps, preprocessing, nhwc=nhwc, memory_format=torch.channels_last)


def _preprocessing(size: int, mean: Iterable[float], std: Iterable[float], interpolation: str) -> dict[str, Any]:
    """What `Backbone.preprocess` does; filters that torch lacks (lanczos, nearest, random) become bicubic."""
    return {
        "size": int(size),
        "mean": [float(value) for value in mean],
        "std": [float(value) for value in std],
        "interpolation": interpolation if interpolation in ("bilinear", "bicubic") else "bicubic",
        "antialias": True,
        "resize": "whole picture to size x size, no crop",
    }


def _require_known(name: str, model_name: str, known: list[str]) -> None:
    if model_name not in known:
        near = difflib.get_close_matches(model_name, known, n=1, cutoff=0.4)
        hint = f"; did you mean {name.split('/')[0]}/{near[0]}?" if near else ""
        raise UserError(f"backbone {name!r} is not known{hint}")


def _local_weights(config: BackboneConfig, folder: bool | None = None) -> Path | None:
    """``backbone.weights`` as an existing path of the right kind (``folder`` None = either), or None."""
    if config.weights is None:
        return None
    path = Path(config.weights).expanduser()
    if not path.exists():
        raise UserError(f"backbone.weights={config.weights!r} does not exist")
    if folder is not None and path.is_dir() != folder:
        kind = "a folder with config.json and model.safetensors" if folder else "a state dict, .safetensors or .pth"
        raise UserError(f"backbone.weights={config.weights!r} does not fit {config.name}; pass {kind}")
    return path


def _read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        return read_tensors(path)[0]
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and tensor readers fail in as many ways as strangers' files do
        raise UserError(f"{str(path)!r} is not a readable state dict of plain tensors; pass .safetensors") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{str(path)!r} holds no state dict of plain tensors")
    return state


def _load_strict(model: nn.Module, state: dict[str, torch.Tensor], config: BackboneConfig) -> None:
    """Every tensor must be there, with its shape, and no other; half precision is accepted."""
    own = model.state_dict()
    needed = {name for name in own if not name.endswith("num_batches_tracked")}
    for fault, names in (("lack", needed - set(state)), ("hold the unknown", set(state) - set(own))):
        if names:
            raise UserError(f"weights of {config.name} {fault} {sorted(names)[0]!r} ({len(names)} such tensors)")
    for name in sorted(set(state)):
        if state[name].shape != own[name].shape:
            found, due = tuple(state[name].shape), tuple(own[name].shape)
            raise UserError(f"weights of {config.name}: {name!r} has shape {found}, expected {due}")
    model.load_state_dict(state, strict=False)


@contextmanager
def _fetching(config: BackboneConfig) -> Iterator[None]:
    """Turn the many errors of hubs and loaders into one line that says what is missing and the way out."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # each hub client has its own exceptions
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:200]
        place = f"in backbone.weights={config.weights!r}" if config.weights else "from its hub"
        hint = "check the path" if config.weights else "offline, pass backbone.weights=FILE or DIR"
        raise UserError(f"cannot load the weights of {config.name} {place} ({reason}); {hint}") from error


@contextmanager
def _fitting(config: BackboneConfig, size: int) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(f"{config.name} does not take pictures of backbone.image_size={size} px: {reason}") from error
