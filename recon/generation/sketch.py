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

from align.errors import UserError
from align.files import read_tensors

GROUPS, KERNEL = 8, 5
PREFIX = "sketch."


class Sketch(nn.Module):
    """Standardised tokens (B, N, D) of a square grid, a CLS token in front or not, to latents (B, C, S, S).

    Tokens are narrowed to ``hidden`` channels, every group of channels is spread from the grid to the S x S places by a
    matrix of its own (so that a token can say what lies where inside its cell), ``depth`` blocks look at neighbours.
    """

    def __init__(self, n_tokens: int, width: int, channels: int, size: int, hidden: int = 128, depth: int = 3) -> None:
        super().__init__()
        self.cells, self.size = math.isqrt(n_tokens) ** 2, size
        self.enter = nn.Linear(width, hidden)
        self.spread = nn.Parameter(_bilinear(math.isqrt(n_tokens), size).repeat(GROUPS, 1, 1))
        self.blocks = nn.ModuleList(_Block(hidden) for _ in range(depth))
        self.leave = nn.Conv2d(hidden, channels, 1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.enter(tokens[:, -self.cells :]).unflatten(2, (GROUPS, -1))  # (B, N, G, h)
        x = torch.einsum("bngh,gns->bghs", x, self.spread).flatten(1, 2).unflatten(2, (self.size, self.size))
        for block in self.blocks:
            x = block(x)
        return self.leave(x)


class _Block(nn.Module):
    """Depthwise convolution and two pointwise ones around a residual (Liu et al. 2022, ConvNeXt)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(hidden, hidden, KERNEL, padding=KERNEL // 2, groups=hidden)
        self.norm = nn.GroupNorm(1, hidden)
        self.wide = nn.Conv2d(hidden, 2 * hidden, 1)
        self.back = nn.Conv2d(2 * hidden, hidden, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.back(F.gelu(self.wide(self.norm(self.near(x)))))


def _bilinear(side: int, size: int) -> torch.Tensor:
    """(side^2, size^2): the matrix that enlarges a grid."""
    cells = torch.eye(side * side).unflatten(1, (side, side))[:, None]
    return F.interpolate(cells, (size, size), mode="bilinear", align_corners=False).flatten(1)


def takes(n_tokens: int) -> bool:
    """Whether tokens lie on a square grid, with or without a CLS token in front."""
    return math.isqrt(n_tokens) ** 2 in (n_tokens, n_tokens - 1)


def folded(sketch: Sketch, mean: torch.Tensor, std: torch.Tensor) -> dict[str, torch.Tensor]:
    """Its tensors for a file, with the standardisation of the tokens folded into the first map."""
    state = {f"{PREFIX}{name}": value for name, value in sketch.state_dict().items()}
    weight = sketch.enter.weight.double() / std.double()
    state[f"{PREFIX}enter.weight"] = weight.float()
    state[f"{PREFIX}enter.bias"] = (sketch.enter.bias.double() - weight @ mean.double()).float()
    return state


def load_sketch(path: str | Path) -> Sketch | None:
    """The sketch of a conditioner's file, for raw tokens (B, N, D); None where the file holds none.

    Raises `UserError` for one that lacks parts or has them in other shapes.
    """
    tensors, facts = read_tensors(path)
    own = {name.removeprefix(PREFIX): value.float() for name, value in tensors.items() if name.startswith(PREFIX)}
    if not own:
        return None
    try:
        hidden, width = own["enter.weight"].shape
        channels, depth = own["leave.weight"].shape[0], sum(name.endswith("near.bias") for name in own)
        n_tokens, size = int(facts["n_tokens"]), int(facts["sketch_size"])
        if own["spread"].shape != (GROUPS, math.isqrt(n_tokens) ** 2, size**2):  # before memory is taken for it
            raise ValueError(f"spread has shape {tuple(own['spread'].shape)}")
        sketch = Sketch(n_tokens, width, channels, size, hidden, depth)
        sketch.load_state_dict(own)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{str(path)!r} holds no whole sketch ({reason}); train it again") from error
    return sketch.eval().requires_grad_(False)
