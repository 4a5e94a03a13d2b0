"""ControlNet or T2I-Adapter on the coarse picture: the layout that the brain gives, kept while the rest is added.

ControlNet: Zhang et al. 2023 (arXiv 2302.05543). T2I-Adapter: Mou et al. 2023 (arXiv 2302.08453). Takagi & Nishimoto
2023b (arXiv 2306.11536) and CMVDM (Zeng et al. 2024) add decoded structure this way. What is read comes from the coarse
picture of the same row, so that every control has its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import interpolate

from align.errors import UserError
from recon.generation.bounds import require_sensible
from recon.generation.edges import edges
from recon.generation.foreign import require_no_code

READS = ("edges", "sketch")
# noisy latents (B, C, h, w), timestep, what else the UNet is given; returns further arguments of the UNet
Residuals = Callable[[torch.Tensor, torch.Tensor, dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Control:
    """``name``: folder or hub id of a ControlNet or T2I-Adapter. ``reads``: "edges" of the coarse picture, or "sketch",
    the coarse picture as it is. ``scale``: factor of what it adds to the UNet, 0 = nothing, 1 = as it was trained.

    Raises `UserError` for anything else.
    """

    name: str
    reads: str = "edges"
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.reads not in READS:
            raise UserError(f"--control {self.reads!r} is not known; use {', '.join(READS)}")
        if not (math.isfinite(self.scale) and self.scale >= 0):
            raise UserError(f"--control-scale {self.scale} should be 0 or more; 1 = as the network was trained")

    @property
    def key(self) -> list[str | float]:
        """What of it may change a picture; the name alone for what was the only way at first."""
        return [self.name] if (self.reads, self.scale) == ("edges", 1.0) else [self.name, self.reads, self.scale]

    def picture(self, coarse: torch.Tensor) -> torch.Tensor:
        """What is read (n, 3, H, W) of coarse pictures (n, 3, H, W), both in [0, 1]."""
        return edges(coarse) if self.reads == "edges" else coarse


class ControlNetwork:
    """A ControlNet or T2I-Adapter that fits a UNet. ``side``: of the generator's pictures, px."""

    def __init__(self, control: Control, net: Any, side: int) -> None:
        self._net, self._scale, self._side = net, control.scale, side

    def residuals(self, pictures: torch.Tensor, guided: bool) -> Residuals:
        """What is added to the UNet for pictures (n, 3, h, w) in [0, 1], with ``guided`` for both halves of a batch."""
        read = self._read(pictures)
        if type(self._net).__name__ == "T2IAdapter":
            features = [self._scale * feature for feature in self._net(read)]
            features = [torch.cat([feature, feature]) if guided else feature for feature in features]
            return lambda x, t, given: {
                "down_intrablock_additional_residuals": list(features)
            }  # which the UNet empties
        seen = torch.cat([read, read]) if guided else read
        channels = self._net.config.in_channels

        def of_controlnet(x: torch.Tensor, t: torch.Tensor, given: dict[str, Any]) -> dict[str, Any]:
            states, added = given["encoder_hidden_states"][0], given["added_cond_kwargs"]
            options = {"conditioning_scale": self._scale, "added_cond_kwargs": added, "return_dict": False}
            down, middle = self._net(x[:, :channels], t, states, seen, **options)
            return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}

        return of_controlnet

    def _read(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures at the generator's size, in grey where the network has one input channel."""
        if tuple(pictures.shape[-2:]) != (self._side, self._side):
            pictures = interpolate(pictures.float(), (self._side,) * 2, mode="bilinear", align_corners=False)
        if _input_channels(self._net) == 1:
            pictures = pictures.mean(1, keepdim=True)
        return pictures.to(self._net.device, self._net.dtype)


def load_control(
    control: Control, unet: Any, latent_channels: int, side: int, dtype: torch.dtype, device: torch.device
) -> ControlNetwork:
    """The network from its folder or the hub; raises `UserError` where it is absent, of another kind or does not fit
    ``unet``, which makes latents of ``latent_channels`` and, with its VAE, pictures of ``side`` px."""
    net = _load(control.name, dtype).to(device, dtype).eval().requires_grad_(False)
    if _input_channels(net) not in (1, 3):
        raise UserError(f"--controlnet {control.name!r} reads {_input_channels(net)} channels, not a picture's 3 or 1")
    find = _misfit_adapter if type(net).__name__ == "T2IAdapter" else _misfit_controlnet
    misfit = find(net, unet, latent_channels, side)
    if misfit is not None:
        raise UserError(f"--controlnet {control.name!r} is of another generator: {misfit}")
    return ControlNetwork(control, net, side)


def _load(name: str, dtype: torch.dtype) -> Any:
    """The network, of the class that its config.json names."""
    import diffusers

    known = {kind.__name__: kind for kind in (diffusers.ControlNetModel, diffusers.T2IAdapter)}
    options = {"local_files_only": Path(name).is_dir()}
    if Path(name).is_dir():
        require_no_code(Path(name), f"--controlnet {name!r}")
        require_sensible(Path(name), f"--controlnet {name!r}")
    try:
        kind = diffusers.ControlNetModel.load_config(name, **options).get("_class_name")
        if kind in known:
            net, found = known[kind].from_pretrained(name, **options, dtype=dtype, output_loading_info=True)
            if found["missing_keys"]:
                raise ValueError(f"its weights lack {len(found['missing_keys'])} parts of a {kind}")
            return net
    except Exception as error:  # diffusers fails in as many ways as folders can be broken
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"--controlnet {name!r} cannot be read: {lines[0]}; pass a folder, or online a hub id"
        ) from error
    raise UserError(f"--controlnet {name!r} holds a {kind}; known kinds: {', '.join(known)}")


def _input_channels(net: Any) -> int:
    """Channels of the pictures that it reads."""
    return int(net.config.in_channels if type(net).__name__ == "T2IAdapter" else net.config.conditioning_channels)


def _misfit_controlnet(net: Any, unet: Any, latent_channels: int, side: int) -> str | None:
    """What of a ControlNet is not that of the UNet; None where all is."""
    if net.config.cross_attention_dim != unet.config.cross_attention_dim:
        return f"width {net.config.cross_attention_dim}, not {unet.config.cross_attention_dim}"
    own, due = tuple(net.config.block_out_channels), tuple(unet.config.block_out_channels)
    if own != due:
        return f"blocks of {own} channels, not {due}"
    if net.config.in_channels not in (latent_channels, unet.config.in_channels):
        return f"latents of {net.config.in_channels} channels, not {latent_channels}"
    smaller = 2 ** (len(net.config.conditioning_embedding_out_channels) - 1)
    if smaller * unet.config.sample_size != side:
        return f"it makes pictures {smaller} times smaller, and latents are {side // unet.config.sample_size} times"
    return None


def _misfit_adapter(net: Any, unet: Any, latent_channels: int, side: int) -> str | None:
    """What of a T2I-Adapter is not that of the UNet; None where all is."""
    if side % net.config.downscale_factor:
        return f"pictures of {side} px cannot be cut into cells of {net.config.downscale_factor} px"
    with torch.no_grad():
        found = net(torch.zeros(1, net.config.in_channels, side, side, device=net.device, dtype=net.dtype))
    own, due = [tuple(feature.shape[1:]) for feature in found], _features(unet)
    return None if own[: len(due)] == due else f"features of shape {_shapes(own)}, not {_shapes(due)}"


def _features(unet: Any) -> list[tuple[int, int, int]]:
    """(C, h, w) that each block on the way down adds a feature to: before it halves the side where it has
    cross-attention, else after."""
    side, shapes = int(unet.config.sample_size), []
    for block, channels in zip(unet.down_blocks, unet.config.block_out_channels, strict=True):
        smaller = math.ceil(side / 2) if block.downsamplers is not None else side
        at = side if getattr(block, "has_cross_attention", False) else smaller
        shapes.append((channels, at, at))
        side = smaller
    return shapes


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in shapes)
