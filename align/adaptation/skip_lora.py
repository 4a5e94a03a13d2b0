"""`skip_lora`: MindTuner (Gong et al., AAAI 2025, arXiv 2404.12630): `lora` and non-linear paths from the signals.

No official code exists; this is a re-implementation from the paper's description and what others wrote of it, without
its diffusion prior, low-level branch and text alignment.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from align.adaptation.contract import Shared
from align.adaptation.lora import Lora
from align.adaptation.networks import Penalty, layers_of
from align.adaptation.trunk import part
from align.adaptation.watch import Watch
from align.config import Config
from align.encoders.skip_mlp import SkipMlp
from align.model.aligner import Network

WEIGHT = 1.5 / 30  # of L_skip: published 1.5 beside a loss of weight 30 (the diffusion prior), which is not here
_EPSILON = 1e-8  # added to the length of centred outputs: at step 0 a path gives 0, and 0 / 0 is no number


class SkipLora(Lora):
    """`lora`, Skip-LoRA of rank ``encoder.skip_rank`` from the standardised signals to front and blocks, and L_skip.

    ``weight`` of L_skip, beside a contrastive loss of weight 1. The published 1.5 stands beside a prior loss of weight
    30; the default is that share of the leading loss. With 1.5 itself the paths stay at some percent of what they add
    to, without gain over `lora` on planted non-linear differences; with .05 they gain most (docs, decisions).
    """

    name = "skip_lora"
    encoder = "skip_mlp"
    source = (
        "MindTuner, Gong et al., AAAI 2025, arXiv 2404.12630 (re-implementation, no official code): LoRA, Skip-LoRA and"
        " L_skip of a thirtieth of the published weight; without diffusion prior, low-level branch and text"
    )

    def __init__(self, stop: bool = False, weight: float = WEIGHT) -> None:
        super().__init__(stop)
        self.weight = weight

    def prepare(self, network: Network, shared: Shared, config: Config) -> Penalty:
        """Front, low-rank changes and paths are trained, with L_skip."""
        super().prepare(network, shared, config)
        assert isinstance(network.encoder, SkipMlp)
        network.encoder.skips.requires_grad_(True)
        linear = [Watch(layer) for layer in layers_of(network)[1:-1]]
        skip = [Watch(path) for path in network.encoder.skips]
        return lambda: self.weight * overlap([one.output for one in linear], [one.output for one in skip])

    def personal(self, network: Network) -> dict[str, torch.Tensor]:
        """Those of `lora`, and the paths."""
        assert isinstance(network.encoder, SkipMlp)
        skips = network.encoder.skips.state_dict()
        return {**super().personal(network), **{f"skips.{name}": value for name, value in skips.items()}}

    def complete(self, network: Network, own: dict[str, torch.Tensor]) -> None:
        """The paths stay as they are: they are not linear, so they cannot be merged."""
        super().complete(network, own)
        assert isinstance(network.encoder, SkipMlp)
        network.encoder.skips.load_state_dict(part(own, "skips"))


def overlap(linear: Sequence[torch.Tensor], skip: Sequence[torch.Tensor]) -> torch.Tensor:
    """L_skip: the absolute Pearson correlation of two outputs (B, E) of a row, mean over rows and pairs of outputs."""
    pairs = zip(linear, skip, strict=True)
    return torch.stack([(_unit(one) * _unit(two)).sum(1).abs().mean() for one, two in pairs]).mean()


def _unit(x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(1, keepdim=True)
    return centred / (centred.norm(dim=1, keepdim=True) + _EPSILON)
