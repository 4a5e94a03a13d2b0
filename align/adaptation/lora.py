"""`lora`: low-rank changes of the frozen shared layers (Hu et al. 2021, arXiv 2106.09685), placed as in MindTuner.

MindTuner (Gong et al., AAAI 2025, arXiv 2404.12630): rank 8, alpha 8, the first matrix 0 and the second normal with
deviation .01 at the start. No official code exists; this is a re-implementation. It puts them on the linear layers of
the trunk and of the retrieval projector and on the output layer; here: trunk, image head, token head.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils import parametrize

from align.adaptation.contract import Shared
from align.adaptation.networks import NetworkMethod, Penalty, freeze, layers_of
from align.adaptation.trunk import joined
from align.config import Config
from align.model.aligner import Network

RANK = 8  # alpha is 8 too, so that the scale alpha / rank is 1
_START = 0.01


class LowRank(nn.Module):
    """A weight (out, in) plus B A, with A (rank, in) and B (out, rank)."""

    def __init__(self, weight: torch.Tensor, rank: int = RANK) -> None:
        super().__init__()
        out, width = weight.shape
        self.reads = nn.Parameter(torch.zeros(rank, width, device=weight.device))
        self.writes = nn.Parameter(torch.randn(out, rank, device=weight.device) * _START)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return changed(weight, self.reads, self.writes)


def changed(weight: torch.Tensor, reads: torch.Tensor, writes: torch.Tensor) -> torch.Tensor:
    """``weight`` + B A. The product is formed, so a merged weight computes what was trained, to the last bit."""
    return weight + writes @ reads


def add_low_rank(linears: dict[str, nn.Linear]) -> None:
    """Give each of these layers a trainable `LowRank`; their own weights stay as they are."""
    for linear in linears.values():
        linear.requires_grad_(False)
        parametrize.register_parametrization(linear, "weight", LowRank(linear.weight))


def low_rank_tensors(linears: dict[str, nn.Linear]) -> dict[str, torch.Tensor]:
    """``low_rank.<layer>.reads`` and ``.writes`` of each."""
    changes = {name: cast(Any, linear.parametrizations).weight[0] for name, linear in linears.items()}
    return joined({f"low_rank.{name}": change.state_dict() for name, change in changes.items()})


def merge_low_rank(linears: dict[str, nn.Linear], held: dict[str, torch.Tensor]) -> None:
    """Add the stored changes to plain layers."""
    for name, linear in linears.items():
        reads, writes = (held[f"low_rank.{name}.{key}"] for key in ("reads", "writes"))
        linear.weight.copy_(changed(linear.weight, reads, writes))


def shared_linears(network: Network) -> dict[str, nn.Linear]:
    """The linear layers of trunk and heads by name."""
    parts = {"trunk": layers_of(network)[2:], "image_head": network.image_head, "token_head": network.token_head}
    return {
        f"{part}.{name}": layer
        for part, module in parts.items()
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    }


class Lora(NetworkMethod):
    """A fresh front and low-rank changes, merged in the end: what is stored is an ordinary `mlp`."""

    name = "lora"
    source = (
        "LoRA (Hu et al. 2021, arXiv 2106.09685) where MindTuner has it (Gong et al., AAAI 2025, arXiv 2404.12630;"
        " re-implementation, no official code); without diffusion prior, low-level branch and text"
    )

    def prepare(self, network: Network, shared: Shared, config: Config) -> Penalty:
        """Front and low-rank changes are trained."""
        freeze(network)
        add_low_rank(shared_linears(network))
        return None

    def personal(self, network: Network) -> dict[str, torch.Tensor]:
        """Front and low-rank changes."""
        return {**super().personal(network), **low_rank_tensors(shared_linears(network))}

    def complete(self, network: Network, own: dict[str, torch.Tensor]) -> None:
        """Merged into the shared weights."""
        super().complete(network, own)
        merge_low_rank(shared_linears(network), own)
