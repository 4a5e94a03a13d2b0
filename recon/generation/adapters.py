"""Adapter files: the public IP-Adapter (4 pooled tokens), the public IP-Adapter-Plus (16 tokens), and our own.

All three have two parts, ``image_proj`` (embeddings to image tokens) and ``ip_adapter`` (a key and a value matrix for
every cross-attention); the names inside say which one a file is (Ye et al. 2023, arXiv 2308.06721).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from align.checkpoint import require_numbers
from align.errors import UserError
from align.files import read_tensors
from recon.generation.conditioner import POSITION_CHANNELS, ConditionerInfo, cross_attentions, read_adapter, read_info

State = dict[str, dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Adapter:
    """One file. ``kind``: "pooled" reads one embedding (width,) per picture, "plus" token states (N, width), "own"
    the tokens of ``info``. ``state`` is what stock ``load_ip_adapter`` takes."""

    path: Path
    kind: str
    state: State
    width: int
    info: ConditionerInfo | None = None


def load_adapter(path: str | Path) -> Adapter:
    """Read a ``.safetensors`` file, or the nested dict of tensors of a ``.bin``; raises `UserError` for other kinds."""
    path = Path(path)
    state = _read(path)
    for part in state.values():
        require_numbers(part, path)
    projection = state["image_proj"]
    if not state["ip_adapter"]:
        raise UserError(f"{str(path)!r} has no ip_adapter matrices; pass a whole IP-Adapter file")
    if "latents" in projection:
        width = _width(projection, "proj_in.weight", path)
        info = _own_info(path, width) if _is_own(path) else None
        return Adapter(path, "own" if info else "plus", state, width, info)
    if "proj.3.weight" in projection and _is_own(path):
        width = _width(projection, "proj.0.weight", path)
        return Adapter(path, "own", state, width, _own_info(path, width))
    if {"proj.weight", "norm.weight"} <= set(projection) and "proj.0.weight" not in projection:
        return Adapter(path, "pooled", state, _width(projection, "proj.weight", path))
    raise UserError(
        f"{str(path)!r} is neither an IP-Adapter nor an IP-Adapter-Plus (FaceID and full-face files need a face model)"
    )


def require_fit(adapter: Adapter, unet: nn.Module, generator: str) -> None:
    """Raise `UserError` unless the adapter has matrices of the right width for every cross-attention of ``unet``."""
    modules = list(cross_attentions(unet).values())
    due = [(module.to_k.out_features, module.to_k.in_features) for module in modules]
    state = adapter.state["ip_adapter"]
    keys = [f"{2 * index + 1}.to_k_ip.weight" for index in range(len(modules))]
    found = [tuple(state[key].shape) for key in keys if key in state]
    n_matrices = sum(key.endswith("to_k_ip.weight") for key in state)
    if n_matrices != len(modules) or found != due:
        width = found[0][-1] if found and found[0] else "none"
        raise UserError(
            f"adapter {str(adapter.path)!r} is of another generator: {n_matrices} cross-attentions of width {width}, "
            f"{generator!r} has {len(modules)} of width {due[0][1] if due else 'none'}; pass an adapter made for it"
        )


def installed(adapter: Adapter, pipe: Any) -> nn.Module:
    """Put a fitting adapter into the UNet of a stock pipeline; returns its projection of embeddings to image tokens.

    Raises `UserError` where the file lacks parts or has them in other shapes.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of torch, over tensors without values
            pipe.load_ip_adapter(adapter.state, subfolder=None, weight_name=None, image_encoder_folder=None)
        projection: nn.Module = pipe.unet.encoder_hid_proj
        lacking = [name for name, value in pipe.unet.named_parameters() if value.is_meta]
    except torch.OutOfMemoryError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise _not_whole(adapter.path, reason) from error
    if lacking:
        raise _not_whole(adapter.path, f"nothing for {lacking[0]}")
    return projection


def _not_whole(path: Path, reason: str) -> UserError:
    return UserError(f"{str(path)!r} is no whole adapter ({reason}); fetch or train it again")


def _read(path: Path) -> State:
    try:
        if path.suffix == ".safetensors":
            return read_adapter(path)
        nested = torch.load(path, map_location="cpu", weights_only=True)
        return {
            part: {name: value.float() for name, value in nested[part].items()} for part in ("image_proj", "ip_adapter")
        }
    except UserError:
        raise
    except Exception as error:  # zip, pickle and tensor readers fail in as many ways as strangers' files do
        raise UserError(f"{str(path)!r} is no readable adapter (parts image_proj and ip_adapter)") from error


def _width(projection: dict[str, torch.Tensor], name: str, path: Path) -> int:
    """What the first map of the projection reads."""
    weight = projection.get(name)
    if weight is None or weight.ndim != 2:
        found = "is missing" if weight is None else f"has shape {tuple(weight.shape)}"
        raise _not_whole(path, f"image_proj.{name} {found}")
    return weight.shape[1]


def _own_info(path: Path, width: int) -> ConditionerInfo:
    info = read_info(path)
    if info.width + POSITION_CHANNELS != width:
        raise UserError(
            f"{str(path)!r} says that it reads tokens of width {info.width}, and its first map reads "
            f"{width - POSITION_CHANNELS}; train it again"
        )
    return info


def _is_own(path: Path) -> bool:
    return path.suffix == ".safetensors" and {"backbone", "layer", "pooling"} <= set(read_tensors(path)[1])
