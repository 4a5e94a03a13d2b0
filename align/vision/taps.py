"""A frozen vision model whose intermediate layers can be read: one forward pass, any number of layers."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import interpolate

from align.errors import UserError
from align.fields.syntax import parse_pooling
from align.vision.pooling import pool


@dataclass(frozen=True)
class Tap:
    """Where a layer is read: the output of submodule ``path``, or its input where ``before``."""

    path: str
    before: bool = False


class _Complete(Exception):
    """Every wanted layer is read; the rest of the forward pass is not needed."""


class Backbone(nn.Module):
    """A frozen model, float32, in evaluation mode.

    Attributes
    ----------
    name
        ``family/model`` as configured.
    layers
        Names in depth order. Transformers: "0" = embedding output, "k" = output of block k, up to the number of
        blocks. Convnets: module names such as "features.9", the classifier's pooled output last.
    prefix, has_cls
        How many of the tokens come before the patches (CLS first, then registers), and whether token 0 is a CLS.
    shapes
        What every layer gives for one picture, as seen when the model was loaded: (1, N, D), a map or (1, D).
    weights_hash
        SHA-256 of the loaded parameters and buffers in float32.
    preprocessing
        size (px), mean, std, interpolation, antialias, resize. The whole picture is resized to size x size without a
        crop, so that nothing that was seen is cut off; size, mean, std and interpolation are the model's own. With
        ``shorter`` (px; DINOv2, unless ``backbone.crop=none``) the shorter side gets that length and the centre is cut.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        taps: dict[str, Tap],
        preprocessing: dict[str, Any],
        *,
        prefix: int = 0,
        has_cls: bool = False,
        nhwc: bool = False,
        memory_format: torch.memory_format = torch.contiguous_format,
        forward_kwargs: dict[str, Any] | None = None,
        unhashed: Collection[str] = (),
        shapes: dict[str, tuple[int, ...]] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.model = model.float().eval().requires_grad_(False).to(memory_format=memory_format)
        self.taps = taps
        self.layers = tuple(taps)
        self.preprocessing = preprocessing
        self.prefix, self.has_cls, self.nhwc, self.memory_format = prefix, has_cls, nhwc, memory_format
        self.forward_kwargs = forward_kwargs or {}
        self.shapes = shapes or {}
        self.weights_hash = hash_weights(model, without=unhashed)

    @property
    def resizing(self) -> str:
        """What is done to the sides of a picture before the model sees it, in words with the size in px."""
        size = self.preprocessing["size"]
        return str(self.preprocessing.get("resize", "")).replace("size x size", f"{size} x {size}")

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode: the backbone is frozen."""
        return super().train(False)

    def preprocess(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) float RGB in [0, 1] to the model's own input (B, 3, S, S), normalised."""
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(f"images must be float (B, 3, H, W), got {images.dtype} {tuple(images.shape)}")
        if images.numel() and (images.amin() < -1e-3 or images.amax() > 1 + 1e-3):
            raise ValueError(f"images must lie in [0, 1], got [{images.amin():.3g}, {images.amax():.3g}]")
        size, mode = self.preprocessing["size"], self.preprocessing["interpolation"]
        shorter = self.preprocessing.get("shorter")
        height, width = images.shape[-2:]
        scale = 1.0 if shorter is None else shorter / min(height, width)
        sides = (size, size) if shorter is None else (round(height * scale), round(width * scale))
        if (height, width) != sides:
            images = interpolate(images, sides, mode=mode, align_corners=False, antialias=True).clamp(0, 1)
        if shorter is not None:
            top, left = ((side - size) // 2 for side in sides)
            images = images[..., top : top + size, left : left + size]
        mean, std = (images.new_tensor(self.preprocessing[key]).view(3, 1, 1) for key in ("mean", "std"))
        return (images - mean) / std

    def tokens(self, images: torch.Tensor, layers: Sequence[str], pooling: str = "tokens") -> dict[str, torch.Tensor]:
        """Tokens of ``layers`` for pictures (B, 3, H, W) in [0, 1]: {layer: (B, N, D) float32}, one forward pass."""
        return self.read(self.preprocess(images), layers, pooling)

    def read(self, pixels: torch.Tensor, layers: Sequence[str], pooling: str = "tokens") -> dict[str, torch.Tensor]:
        """As `tokens`, for pictures that `preprocess` has already handled: (B, 3, S, S).

        The pass stops once the deepest wanted layer is read. Pictures that require a gradient get one through it.

        Raises
        ------
        UserError
            Unknown layer, unknown or unfitting pooling, or a layer that gave no output.
        """
        parse_pooling(pooling)
        wanted = {resolve_layer(self, layer): layer for layer in layers}
        found: dict[str, torch.Tensor] = {}

        def keep(name: str, value: torch.Tensor) -> None:
            if value.requires_grad:
                value = value.clone()  # the network may change it in place, which pooling could not undo
            found[wanted[name]] = self.pooled(name, value, pooling)
            if len(found) == len(wanted):
                raise _Complete

        pixels = pixels.contiguous(memory_format=self.memory_format)
        _run_with_taps(self.model, {name: self.taps[name] for name in wanted}, keep, pixels, self.forward_kwargs)
        if len(found) != len(wanted):
            silent = [layer for layer in wanted.values() if layer not in found]
            raise UserError(f"{self.name}: layer {silent[0]!r} gave no output in the forward pass")
        return {layer: found[layer] for layer in wanted.values()}

    def pooled(self, layer: str, value: torch.Tensor, pooling: str) -> torch.Tensor:
        """(B, N, D) of what ``layer`` (one of ``layers``) gives; raises `UserError` where it cannot be pooled so."""
        if value.ndim == 4 and self.nhwc:
            value = value.permute(0, 3, 1, 2)
        return pool(value, pooling, prefix=self.prefix, has_cls=self.has_cls)


def _run_with_taps(
    model: nn.Module,
    taps: dict[str, Tap],
    keep: Callable[[str, torch.Tensor], None],
    pixels: torch.Tensor,
    forward_kwargs: dict[str, Any],
) -> None:
    """One forward pass that hands the value at every tap to ``keep``; hooks live for this call only."""

    def before(name: str) -> Callable[..., None]:
        return lambda _module, args, kwargs: keep(name, args[0] if args else kwargs["hidden_states"])

    def after(name: str) -> Callable[..., None]:
        return lambda _module, _args, output: keep(name, output[0] if isinstance(output, tuple) else output)

    handles = []
    try:
        for name, tap in taps.items():
            module = model.get_submodule(tap.path)
            if tap.before:
                handles.append(module.register_forward_pre_hook(before(name), with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(after(name)))
        with torch.set_grad_enabled(torch.is_grad_enabled() and pixels.requires_grad):
            model(pixels, **forward_kwargs)
    except _Complete:
        pass
    finally:
        for handle in handles:
            handle.remove()


def trace(
    model: nn.Module, taps: dict[str, Tap], size: int, forward_kwargs: dict[str, Any] | None = None
) -> dict[str, list[tuple[int, ...]]]:
    """Shapes that every tap gives for one grey picture, taps in the order in which they fire."""
    shapes: dict[str, list[tuple[int, ...]]] = {}

    def keep(name: str, value: Any) -> None:
        shapes.setdefault(name, []).append(tuple(value.shape) if isinstance(value, torch.Tensor) else ())

    model.eval().requires_grad_(False)
    device = next(model.parameters()).device
    _run_with_taps(model, taps, keep, torch.zeros(1, 3, size, size, device=device), forward_kwargs or {})
    return shapes


def resolve_layer(backbone: Backbone, layer: str) -> str:
    """The name of a layer given by name, by index in the list (from the end: "-1" is the last) or by relative depth.

    A relative depth such as "0.5" is the layer at that fraction of the list: "0.5" of 13 layers is layer index 6.
    For transformers, name and index are the same. Raises `UserError` with the nearest name for an unknown layer.
    """
    if layer in backbone.layers:
        return layer
    if re.fullmatch(r"-?[0-9]+", layer) and -len(backbone.layers) <= int(layer) < len(backbone.layers):
        return backbone.layers[int(layer)]
    try:
        depth = float(layer)
    except ValueError:
        depth = -1.0
    if "." in layer and 0 < depth < 1:
        return backbone.layers[int(depth * (len(backbone.layers) - 1) + 0.5)]
    near = difflib.get_close_matches(layer, backbone.layers, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UserError(f"{backbone.name} has no layer {layer!r}; {hint}Known: {', '.join(backbone.layers)}")


def hash_weights(model: nn.Module, without: Collection[str] = ()) -> str:
    """SHA-256 over name, shape and float32 bytes of every parameter and buffer, sorted by name.

    Tensors on the meta device have no values; they count by name and shape.
    """
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if name not in without:
            digest.update(f"{name} {tuple(value.shape)} ".encode())
            if not value.is_meta:
                digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()
