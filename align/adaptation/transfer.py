"""`transfer`: MindAligner (ICML 2025): the new person's signals become those of a known person, linearly.

Two matrices without bias, signals -> E -> signals of the known person; what follows is the known person's frozen
decoder. The published alignment stage (pairs of rows of one category, with a mapper and an embedder of their own) needs
the known person's signals at adaptation, which are not kept; here the decoding loss alone trains the matrices.
"""

from __future__ import annotations

import torch
from torch import nn

from align.adaptation.contract import Shared
from align.adaptation.networks import NetworkMethod, Penalty, freeze, layers_of
from align.adaptation.trunk import part
from align.config import Config
from align.model.aligner import Network


class Transfer(NetworkMethod):
    """The matrices and the known front are merged into one front in the end: what is stored is an ordinary `mlp`."""

    name = "transfer"
    source = (
        "the transfer matrix of MindAligner (ICML 2025), trained by the decoding loss alone: without its alignment"
        " stage, mapper and embedder"
    )

    def prepare(self, network: Network, shared: Shared, config: Config) -> Penalty:
        """The two matrices are trained, before the frozen front of the known person."""
        layers = layers_of(network)
        front = layers[1]
        assert isinstance(front, nn.Linear)
        known = known_front(shared)
        width = front.out_features
        layers[1] = nn.Sequential(
            nn.Linear(front.in_features, width, bias=False),
            nn.Linear(width, known.in_features, bias=False),
            known,
        )
        freeze(network)
        known.requires_grad_(False)
        return None

    def personal(self, network: Network) -> dict[str, torch.Tensor]:
        """The merged front."""
        front = layers_of(network)[1]
        assert isinstance(front, nn.Sequential)
        first, second, known = (layer.state_dict() for layer in front)
        return {"front.weight": known["weight"] @ second["weight"] @ first["weight"], "front.bias": known["bias"]}


def known_person(shared: Shared) -> int:
    """The number of the known person with the best score on held-out training rows, the first where none was scored."""
    scores = shared.facts["held_out"]
    return max(range(len(shared.people)), key=lambda i: (scores.get(shared.people[i], 0.0), -i))


def known_front(shared: Shared) -> nn.Linear:
    """That person's front, standardised signals (B, P) -> (B, E)."""
    held = part(shared.tensors, f"network.encoder.fronts.{known_person(shared)}")
    width, places = held["weight"].shape
    front = nn.Linear(places, width)
    front.load_state_dict(held)
    return front
