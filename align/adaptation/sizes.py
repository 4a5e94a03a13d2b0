"""Numbers that each network method trains at the published size, counted on modules without memory.

The size is that of MindEye2 (arXiv 2403.11207) for subject 1 of NSD: 15,724 voxels, width 4096, 4 blocks of 2 linear
layers, 256 tokens of 1664. What the published counts hold beyond ours:

* MindTuner 76.71 M: 64.41 M are the front, so 12.30 M are adapters. Where the sources place them (trunk, output layer,
  projector; paths to front, blocks and tokens), rank 8 gives 8.4 M, in all 5 % less than published. No source says
  where the remaining 3.9 M are; text projector and prior are candidates.
* MindAligner 139.23 M: 128.81 M are two matrices between 15,724 voxels and 4096; the rest, 10.4 M or 7 %, are a mapper
  and an embedder of its alignment stage, which `transfer` does not have.
* MindEye2 2.2 G: within 2 %, with its diffusion prior and low-level branch counted from their published sizes.
"""

from __future__ import annotations

import torch
from torch import nn

from align.adaptation.lora import RANK, add_low_rank
from align.encoders.skip_mlp import SkipPath

VOXELS, WIDTH, BLOCKS, TOKENS, TOKEN_WIDTH = 15_724, 4096, 4, 256, 1664
PRIOR_DEPTH, PRIOR_HEADS, PRIOR_HEAD_WIDTH = 6, 32, 52
LATENT = 4 * 28 * 28  # values of the low-level branch's first layer


def published_sizes(voxels: int = VOXELS) -> dict[str, int]:
    """Trainable numbers of ``linear``, ``lora``, ``skip_lora``, ``transfer`` and ``finetune`` in MindEye2's skeleton.

    ``skip_lora`` has the path to the final tokens too, as in the published MindTuner. ``finetune`` is everything.
    """
    with torch.device("meta"):
        front, skeleton = nn.Linear(voxels, WIDTH), _skeleton()
        whole = _count(front) + _count(skeleton) + _prior() + _low_level()
        linears = {name: layer for name, layer in skeleton.named_modules() if isinstance(layer, nn.Linear)}
        skeleton.requires_grad_(False)
        add_low_rank(linears)
        widths = [WIDTH] * (1 + BLOCKS) + [TOKENS * TOKEN_WIDTH]
        skips = nn.ModuleList(SkipPath(voxels, width, RANK) for width in widths)
        matrices = nn.Sequential(nn.Linear(voxels, WIDTH, bias=False), nn.Linear(WIDTH, voxels, bias=False))
    lora = _count(front) + _count(skeleton)
    return {
        "linear": _count(front),
        "lora": lora,
        "skip_lora": lora + _count(skips),
        "transfer": _count(matrices),
        "finetune": whole,
    }


def _skeleton() -> nn.Module:
    """Blocks, output layer and retrieval projector."""

    def block() -> nn.Sequential:
        return nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))

    blocks = [block() for _ in range(BLOCKS)]
    parts = [(nn.LayerNorm(TOKEN_WIDTH), nn.GELU(), nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH)) for _ in range(3)]
    projector = nn.Sequential(*(layer for part in parts for layer in part))
    return nn.Sequential(*blocks, nn.Linear(WIDTH, TOKENS * TOKEN_WIDTH), projector)


def _prior() -> int:
    """Weight matrices of a transformer with one key and value head and a gated feed-forward of four times the width."""
    inner = PRIOR_HEADS * PRIOR_HEAD_WIDTH
    attention = 2 * TOKEN_WIDTH * inner + TOKEN_WIDTH * 2 * PRIOR_HEAD_WIDTH
    return PRIOR_DEPTH * (attention + TOKEN_WIDTH * 8 * TOKEN_WIDTH + 4 * TOKEN_WIDTH * TOKEN_WIDTH)


def _low_level() -> int:
    """The first layer; the convolutions after it are less than a hundredth of the whole."""
    return (WIDTH + 1) * LATENT


def _count(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters() if value.requires_grad)
