"""Baselines in closed form: a new person's signals are turned into the responses that known units would have given.

Classical functional alignment needs pictures that all people saw (Haxby et al. 2011, Neuron 72: Procrustes; Chen et al.
2015, NIPS: shared response model). Here the known units' responses to the new person's own pictures are predicted by
their encoding models, so that not one picture need be common. The seen picture is then the one for which known units
are predicted to answer most like that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from align.adaptation.contract import Adapted, Method, Shared, aligned
from align.adaptation.people import Person
from align.adaptation.prior import Known, known, linear_decoder, readouts, responses_of
from align.config import Config
from align.data.splits import grouped_folds
from align.encoders.ridge import FOLDS, fit_ridge
from align.model.aligner import Aligner

WIDTH = 50  # dimensions of the shared responses, at most; as many as there are pictures allow


class Procrustes(Method):
    """Rotation and one scale from the new person's responses to the shared ones."""

    name = "procrustes"
    source = "after Haxby et al. 2011, on predicted responses"
    base = "readouts"

    def share(self, config: Config, people: Sequence[Person], widths: Sequence[int]) -> Shared:
        return readouts(config, people, widths)

    def adapt(self, config: Config, shared: Shared, person: Person) -> Adapted:
        base = known(shared)
        signals, responses = responses_of(config, person)
        tokens, goal, axes = _shared_responses(base, person)
        y, mean = responses.double() - responses.double().mean(0), responses.double().mean(0)
        personal = {
            **{f"signals.{name}": value for name, value in signals.state_dict().items()},
            "map": self._map(config, person, y, goal).float(),
            "axes": axes.float(),
            "tokens_mean": tokens,
            "response_mean": mean.float(),
        }
        aligner = _rebuilt(config, base, personal)
        aligner.facts = person.facts
        total = sum(value.numel() for value in aligner.state().values())
        return Adapted(aligner, personal, personal["map"].numel(), total)

    def scratch(self, config: Config, person: Person, widths: Sequence[int]) -> None:
        """None: without known people there is nothing to align to."""
        return None

    def rebuild(self, config: Config, shared: Shared, personal: dict[str, torch.Tensor]) -> Aligner:
        return _rebuilt(config, known(shared), personal)

    def _map(self, config: Config, person: Person, y: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        """(V, d) from responses (n, V) to the shared ones (n, d)."""
        left, values, right = torch.linalg.svd(y.T @ goal, full_matrices=False)
        return left @ right * values.sum() / y.square().sum().clamp_min(1e-12)


class SharedResponse(Procrustes):
    """Any linear map, by ridge, instead of a rotation."""

    name = "shared_response"
    source = "after Chen et al. 2015, on predicted responses, by ridge"

    def _map(self, config: Config, person: Person, y: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
        groups = len(np.unique(person.groups))
        folds = grouped_folds(person.groups, min(FOLDS, groups), config.seed)
        found = fit_ridge(y.float(), goal.float(), config.encoder.alphas, folds)
        return found.weight.T.double()


def _shared_responses(base: Known, person: Person) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean tokens (N*D,), shared responses (n, d) to the person's pictures, and their axes (d, U) over known units."""
    x = base.targets.standardised(torch.from_numpy(np.asarray(person.tokens, np.float32)))
    mean = x.mean(0)
    x = (x - mean).unflatten(1, base.targets.token_shape)
    predicted = torch.einsum("npd,vpd->nv", x, base.of_units).double()
    axes = torch.linalg.svd(predicted, full_matrices=False).Vh[: min(WIDTH, len(x) - 1)]
    return mean, predicted @ axes.T, axes


def _rebuilt(config: Config, base: Known, personal: dict[str, torch.Tensor]) -> Aligner:
    personal = aligned(personal)
    axes = torch.tensordot(personal["axes"], base.of_units, 1).flatten(1)
    weight = personal["map"].T  # both sides are counted from the new person's mean
    bias = axes @ personal["tokens_mean"] - weight @ personal["response_mean"]
    return linear_decoder(config, base, personal, axes, weight, bias)
