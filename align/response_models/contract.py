"""What every response model keeps: features and responses of the same pictures in, predictions of new pictures out.

Features come as spaces: a name (a layer, a network, captions) and an array (n, N, D) of N tokens, the places of the
picture. They are standardised by `align.response_models.scaling`: rows of every space have a mean squared length of 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

Spaces = Mapping[str, np.ndarray]


def take_rows(spaces: Spaces, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The pictures of these numbers in every space."""
    return {name: part[rows] for name, part in spaces.items()}


def joined(spaces: Spaces) -> np.ndarray:
    """Every space flattened, one after the other: (n, sum of N * D), of mean squared row length 1."""
    parts = [part.reshape(len(part), -1) for part in spaces.values()]
    return np.concatenate(parts, axis=1) / np.sqrt(len(parts)) if len(parts) > 1 else parts[0]


@dataclass(frozen=True)
class Seen:
    """Pictures that one subject saw: ``spaces`` name to (n, N, D), ``responses`` (n, U), ``groups`` (n,) of pictures.

    Pictures of one group (a scene, a concept) never stand on both sides of a split.
    """

    spaces: Spaces
    responses: np.ndarray
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.responses)

    def take(self, rows: np.ndarray) -> Seen:
        """The pictures of these numbers."""
        return Seen(take_rows(self.spaces, rows), self.responses[rows], self.groups[rows])


class Fitted(ABC):
    """A fitted model of U units."""

    @abstractmethod
    def predict(self, spaces: Spaces) -> np.ndarray:
        """Responses (m, U) to the pictures of ``spaces``, which are those of the fit by name and shape."""

    def per_unit(self) -> dict[str, np.ndarray]:
        """What was found for every unit, by name: a number (U,) such as a penalty, or a map of places (U, N)."""
        return {}


class Method(ABC):
    """A way to fit responses.

    Attributes
    ----------
    places
        Whether it matters where in the picture a feature lies. Without, spaces may be replaced by others of the same
        inner products (see `align.response_models.scaling.compact`).
    from_others
        Whether it learns from other subjects first (`prepare`).
    """

    name: ClassVar[str]
    source: ClassVar[str]
    places: ClassVar[bool] = False
    from_others: ClassVar[bool] = False

    def prepare(self, others: Sequence[Seen]) -> Any:
        """What is learnt from other subjects, once; it is handed to every `fit`. None where nothing is."""
        return None

    @abstractmethod
    def fit(self, seen: Seen, prepared: Any = None) -> Fitted:
        """Fit the responses of ``seen``; choices are made inside, on these pictures alone. Deterministic."""
