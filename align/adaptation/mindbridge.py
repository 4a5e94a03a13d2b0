"""`mindbridge`: pooled signals, a personal embedder and builder, a shared core (Wang et al., CVPR 2024).

Reset-tuning: a new embedder and builder are trained, the core stays. The published training keeps the known people's
rows in the batches; those are not kept here. Their embedders and builders are, frozen, and the cycle of a new person
leads through them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from align.adaptation.bridge import Bridge
from align.adaptation.contract import Shared
from align.adaptation.networks import NetworkMethod, Penalty, freeze, layers_of
from align.adaptation.people import Person
from align.adaptation.trunk import part, share, with_encoder
from align.config import Config
from align.encoders.mindbridge import Pool, embedder, pooled_size
from align.model.aligner import Network


class MindBridge(NetworkMethod):
    """The order of channels or voxels is part of the model: signals are pooled over neighbours in that order."""

    name = "mindbridge"
    base = "mindbridge"
    shared_encoder = "mindbridge"
    encoder = "mindbridge"
    source = (
        "MindBridge, Wang et al., CVPR 2024: with our heads and losses in place of its two CLIP heads; no rows of known"
        " people in the batches of a new one"
    )

    def share(self, config: Config, people: Sequence[Person], widths: Sequence[int]) -> Shared:
        """With builders and the cycle. ``encoder.pooled`` None becomes 8192, or what the shortest signals have."""
        if people and config.encoder.pooled is None:
            size = min(pooled_size(person.x[0].size, config.encoder) for person in people)
            config = replace(config, encoder=replace(config.encoder, pooled=size))
        return share(with_encoder(config, self.encoder), people, widths, bridge=True)

    def prepare(self, network: Network, shared: Shared, config: Config) -> Penalty:
        """Embedder and builder are trained, with reconstruction and cycle."""
        freeze(network)
        known = [_known_front(config, shared, person) for person in range(len(shared.people))]
        bridge = Bridge(config, [layers_of(network)[1], *known])
        bridge.known = nn.ModuleList(known)  # so that they move along to a device
        held = part(shared.tensors, "network.bridge.builders")
        for person, builder in enumerate(bridge.builders[1:]):
            builder.requires_grad_(False).load_state_dict(part(held, str(person)))
        network.bridge = bridge
        return bridge.penalty

    def personal(self, network: Network) -> dict[str, torch.Tensor]:
        """Embedder, and builder."""
        assert isinstance(network.bridge, Bridge)
        back = network.bridge.builders[0].state_dict()
        return {**super().personal(network), **{f"builder.{name}": value for name, value in back.items()}}


def _known_front(config: Config, shared: Shared, person: int) -> nn.Sequential:
    size = pooled_size(0, config.encoder)
    front = nn.Sequential(Pool(size), embedder(size, config.encoder))
    front.load_state_dict(part(shared.tensors, f"network.encoder.fronts.{person}"))
    return front.requires_grad_(False)
