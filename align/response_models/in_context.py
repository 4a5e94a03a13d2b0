"""In-context encoder: the weights of a new unit from few pictures, with the units of other subjects as prior.

BraInCoRL (arXiv 2505.15813) trains a transformer that reads pictures and answers of one voxel and writes its weights.
The same inference in closed form is in `align.adaptation.prior`: known units span a Gaussian prior over weights, how
much each known subject counts is the likeliest for the new units, and features of one's own enter as evidence grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from align.adaptation.contract import Shared
from align.adaptation.people import Person, Pictures
from align.adaptation.prior import Prior, linear_weights
from align.config import Config
from align.response_models.contract import Fitted, Method, Seen, Spaces


@dataclass(frozen=True)
class PriorFit(Fitted):
    """y = x ``weight``^T (U, N * D) + ``bias`` (U,) for tokens with the standardisation of the known subjects."""

    names: tuple[str, ...]
    weight: np.ndarray
    bias: np.ndarray

    def predict(self, spaces: Spaces) -> np.ndarray:
        x = _tokens(spaces, self.names)
        return np.asarray(x.reshape(len(x), -1) @ self.weight.T + self.bias)


@dataclass(frozen=True)
class InContext(Method):
    """`align.adaptation.prior.Prior` as a response model.

    ``most``: pictures of each known subject that are looked at, spread over all: kernels are square in their number.
    """

    most: int = 400

    name: ClassVar[str] = "in_context"
    source: ClassVar[str] = "after BraInCoRL, arXiv 2505.15813, in closed form"
    places: ClassVar[bool] = True
    from_others: ClassVar[bool] = True

    def prepare(self, others: Sequence[Seen]) -> Shared:
        people = [_person(str(number), self._some(other)) for number, other in enumerate(others)]
        widths = [part.shape[2] for part in others[0].spaces.values()]
        return Prior().share(Config(), people, widths)

    def _some(self, other: Seen) -> Seen:
        return other.take(np.linspace(0, len(other) - 1, min(len(other), self.most)).round().astype(np.int64))

    def fit(self, seen: Seen, prepared: Shared | None = None) -> PriorFit:
        if prepared is None:
            raise ValueError("in_context learns from other subjects first: prepare(others)")
        weight, bias = linear_weights(prepared, _person("new", seen))
        return PriorFit(tuple(seen.spaces), weight, bias)


def _tokens(spaces: Spaces, names: Sequence[str]) -> np.ndarray:
    return np.concatenate([spaces[name] for name in names], axis=2).astype(np.float32)


def _person(name: str, seen: Seen) -> Person:
    unknown = Pictures(("",) * len(seen), np.zeros((len(seen), 0)))
    return Person(name, seen.responses, _tokens(seen.spaces, tuple(seen.spaces)), seen.groups, unknown)
