"""The sketch: tokens of one backbone layer straight to latents, the picture as far as the tokens settle it.

A small convolutional readout, trained by regression on pictures alone. It gives layout, colour and the coarse shapes
(Takagi & Nishimoto 2023, section 3.3: a low-level picture to start the diffusion from); what it leaves open is blurred,
and the generator's to add.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from align.files import read_tensors

HIDDEN, DEPTH, KERNEL = 96, 4, 5
PREFIX = "sketch."


class Sketch(nn.Module):
    """Standardised tokens (B, N, D) of a square grid, a CLS token in front or not, to latents (B, C, S, S)."""

    def __init__(self, n_tokens: int, width: int, channels: int, size: int) -> None:
        super().__init__()
        self.side = math.isqrt(n_tokens)
        self.size = size
        self.enter = nn.Conv2d(width, HIDDEN, 1)
        self.blocks = nn.ModuleList(_Block() for _ in range(DEPTH))
        self.leave = nn.Conv2d(HIDDEN, channels, 1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        cells = self.side * self.side
        x = tokens[:, -cells:].transpose(1, 2).unflatten(2, (self.side, self.side))
        x = self.enter(x)
        for i, block in enumerate(self.blocks):
            if i == 1:
                x = F.interpolate(x, (self.size, self.size), mode="bilinear", align_corners=False)
            x = block(x)
        return self.leave(x)


class _Block(nn.Module):
    """Depthwise convolution and two pointwise ones around a residual (Liu et al. 2022, ConvNeXt)."""

    def __init__(self) -> None:
        super().__init__()
        self.near = nn.Conv2d(HIDDEN, HIDDEN, KERNEL, padding=KERNEL // 2, groups=HIDDEN)
        self.norm = nn.GroupNorm(1, HIDDEN)
        self.wide = nn.Conv2d(HIDDEN, 2 * HIDDEN, 1)
        self.back = nn.Conv2d(2 * HIDDEN, HIDDEN, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.back(F.gelu(self.wide(self.norm(self.near(x)))))


def takes(n_tokens: int) -> bool:
    """Whether tokens lie on a square grid, with or without a CLS token in front."""
    return math.isqrt(n_tokens) ** 2 in (n_tokens, n_tokens - 1)


def folded(sketch: Sketch, mean: torch.Tensor, std: torch.Tensor) -> dict[str, torch.Tensor]:
    """Its tensors for a file, with the standardisation of the tokens folded into the first map."""
    state = {f"{PREFIX}{name}": value for name, value in sketch.state_dict().items()}
    weight, bias = sketch.enter.weight.double() / std.double()[:, None, None], sketch.enter.bias
    state[f"{PREFIX}enter.weight"] = weight.float()
    state[f"{PREFIX}enter.bias"] = (bias.double() - weight[:, :, 0, 0] @ mean.double()).float()  # type: ignore[union-attr]
    return state


def load_sketch(path: str | Path) -> Sketch | None:
    """The sketch of a conditioner's file, for raw tokens (B, N, D); None where the file holds none."""
    tensors, facts = read_tensors(path)
    own = {name.removeprefix(PREFIX): value.float() for name, value in tensors.items() if name.startswith(PREFIX)}
    if not own:
        return None
    width, channels = own["enter.weight"].shape[1], own["leave.weight"].shape[0]
    sketch = Sketch(int(facts["n_tokens"]), width, channels, int(facts["sketch_size"]))
    sketch.load_state_dict(own)
    return sketch.eval().requires_grad_(False)


def sketch_loss(sketch: Sketch | None, tokens: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Mean absolute error against latents (B, C, S, S), 0 where there is no sketch; ``tokens`` standardised."""
    return latents.new_zeros(()) if sketch is None else F.l1_loss(sketch(tokens).float(), latents)
