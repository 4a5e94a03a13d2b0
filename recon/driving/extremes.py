"""Pictures at both ends of a list of values, and their rows in a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from align.data.signals import Stimuli

EACH = 6  # pictures at either end


@dataclass(frozen=True)
class Ends:
    """``values`` (n, K) of pictures ``rows`` (n,) of ``stimuli``. ``by``: what the values are."""

    by: str
    stimuli: Stimuli
    rows: np.ndarray
    values: np.ndarray

    def best(self, unit: int, each: int = EACH) -> np.ndarray:
        """Places among the rows, the highest value first."""
        return np.argsort(-self.values[:, unit], kind="stable")[:each]

    def worst(self, unit: int, each: int = EACH) -> np.ndarray:
        """Places among the rows, the lowest value first."""
        return np.argsort(self.values[:, unit], kind="stable")[:each]

    def load(self, place: int) -> np.ndarray:
        """Picture uint8 (H, W, 3)."""
        return self.stimuli.load(int(self.rows[place]))

    def lines(self, unit: int, name: str, each: int = EACH) -> Iterator[dict[str, Any]]:
        """A row for each picture at either end."""
        for end, places in (("best", self.best(unit, each)), ("worst", self.worst(unit, each))):
            for rank, place in enumerate(places, 1):
                picture = self.stimuli.ids[int(self.rows[place])]
                value = float(self.values[place, unit])
                yield {"unit": name, "by": self.by, "end": end, "rank": rank, "picture": picture, "value": value}
