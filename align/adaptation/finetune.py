"""`finetune`: front, trunk and heads are trained from the shared start, as MindEye2 does (arXiv 2403.11207)."""

from __future__ import annotations

import torch

from align.adaptation.contract import Shared
from align.adaptation.networks import NetworkMethod, Penalty
from align.config import Config
from align.model.aligner import Network


class FineTuning(NetworkMethod):
    """Everything is personal in the end: nothing is saved in memory or storage, only in pictures that are needed."""

    name = "finetune"
    source = (
        "MindEye2, Scotti et al. 2024, arXiv 2403.11207: the whole front is fresh (their code keeps another person's"
        " bias); without their diffusion prior and low-level branch"
    )

    def prepare(self, network: Network, shared: Shared, config: Config) -> Penalty:
        """Nothing is frozen; what the configuration does not train stays so."""
        return None

    def personal(self, network: Network) -> dict[str, torch.Tensor]:
        """All of it."""
        return network.state_dict()

    def complete(self, network: Network, own: dict[str, torch.Tensor]) -> None:
        """All of it."""
        network.load_state_dict(own)
