"""From a library's model, with weights or on the meta device, to a `Backbone`: layers found, geometry checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from align.config import BackboneConfig
from align.errors import UserError
from align.vision.taps import Backbone, Tap, trace


def transformer(
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
        shapes={layer: fired[0] for layer, fired in shapes.items()},
    )


def convnet(
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
    return Backbone(
        config.name,
        model,
        {name: taps[name] for name in order},
        preprocessing,
        nhwc=nhwc,
        memory_format=torch.channels_last,  # halves the time of small convolutions on a CPU (SqueezeNet 1.1)
        shapes={name: shapes[name][0] for name in order},
    )


def timm_parts(
    config: BackboneConfig, model: nn.Module, trunk: Any, path: str, preprocessing: dict[str, Any]
) -> Backbone:
    """A timm model, or one that stands at ``path`` inside an open_clip tower."""
    if hasattr(trunk, "blocks") and hasattr(trunk, "num_prefix_tokens"):
        has_cls = getattr(trunk, "has_class_token", trunk.num_prefix_tokens > 0)
        patch = trunk.patch_embed.patch_size[0]
        return transformer(config, model, f"{path}blocks", patch, preprocessing, has_cls=bool(has_cls))
    return convnet(config, model, preprocessing, trunk, path, getattr(trunk, "output_fmt", "NCHW") == "NHWC")


def preprocessing(
    size: int, mean: Iterable[float], std: Iterable[float], interpolation: str, shorter: int | None = None
) -> dict[str, Any]:
    """What `Backbone.preprocess` does; filters that torch lacks (lanczos, nearest, random) become bicubic.

    ``shorter``: px of the shorter side before a centre crop to ``size``; None: no crop.
    """
    facts = {
        "size": int(size),
        "mean": [float(value) for value in mean],
        "std": [float(value) for value in std],
        "interpolation": interpolation if interpolation in ("bilinear", "bicubic") else "bicubic",
        "antialias": True,
        "resize": "whole picture to size x size, no crop",
    }
    if shorter is not None:
        facts |= {"shorter": int(shorter), "resize": f"shorter side to {int(shorter)} px, centre crop to size x size"}
    return facts


@contextmanager
def _fitting(config: BackboneConfig, size: int) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(f"{config.name} does not take pictures of backbone.image_size={size} px: {reason}") from error
