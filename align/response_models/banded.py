"""Banded ridge: every space of features with a penalty of its own, for every unit (Nunez-Elizalde et al. 2019).

The shares of the penalties are drawn at random and the best is kept for each unit (himalaya's random search, Dupre la
Tour et al. 2022); the error is that of generalised cross-validation, so that one decomposition serves all units. The
prediction is a sum over spaces, which divides the explained variance among them (`align.response_models.partition`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from align.comparison.ridge import SharedFit, SharedRidge
from align.encoders.banded_ridge import candidate_shares
from align.response_models.contract import Fitted, Method, Seen, Spaces
from align.response_models.ridge import SHARES

DRAWS = 30  # of shares, with the equal ones, per three spaces


@dataclass(frozen=True)
class BandedFit(Fitted):
    """``parts``: pairs (units with these ``shares``, their fit); ``shares`` (S, U) of every unit, adding up to 1."""

    names: tuple[str, ...]
    parts: Sequence[tuple[np.ndarray, SharedFit]]
    shares: np.ndarray

    def predict(self, spaces: Spaces) -> np.ndarray:
        found = np.empty((len(spaces[self.names[0]]), self.shares.shape[1]))
        for units, fit in self.parts:
            found[:, units] = fit.predict(_weighted(spaces, self.names, self.shares[:, units[0]]))
        return found

    def by_space(self, spaces: Spaces) -> dict[str, np.ndarray]:
        """What every space adds to the prediction (m, U) above the mean of the fitted responses."""
        count = len(spaces[self.names[0]])
        found = {name: np.empty((count, self.shares.shape[1])) for name in self.names}
        for units, fit in self.parts:
            x = _weighted(spaces, self.names, self.shares[:, units[0]]) - fit.base.mean
            slopes, start = fit.slopes()[0], 0
            for name in self.names:
                stop = start + int(np.prod(spaces[name].shape[1:]))
                found[name][:, units] = x[:, start:stop] @ slopes[start:stop]
                start = stop
        return found

    def per_unit(self) -> dict[str, np.ndarray]:
        return {f"share of {name}": self.shares[k] for k, name in enumerate(self.names)}


@dataclass(frozen=True)
class Banded(Method):
    """``draws`` of shares beside the equal ones; with one space it is ridge."""

    draws: int = DRAWS
    seed: int = 0
    name: ClassVar[str] = "banded"
    source: ClassVar[str] = "Nunez-Elizalde, Huth & Gallant 2019; random search of himalaya, Dupre la Tour et al. 2022"

    def fit(self, seen: Seen, prepared: Any = None) -> BandedFit:
        names = tuple(seen.spaces)
        drawn = candidate_shares(len(names), self.draws if len(names) > 1 else 0, self.seed)
        count = seen.responses.shape[1]
        best, chosen = np.full(count, np.inf), np.zeros(count, dtype=np.int64)
        y = seen.responses - seen.responses.mean(axis=0, dtype=np.float64)
        for k, shares in enumerate(drawn):
            base = SharedRidge(_weighted(seen.spaces, names, shares))
            error = base.errors(y, base.left.T @ y, SHARES, "gcv").min(axis=0)
            chosen[error < best] = k
            best = np.minimum(error, best)
        parts = []
        for k in np.unique(chosen):
            units = np.flatnonzero(chosen == k)
            base = SharedRidge(_weighted(seen.spaces, names, drawn[k]))
            parts.append((units, base.fit(seen.responses[:, units], SHARES)))
        return BandedFit(names, parts, drawn[chosen].T)


def _weighted(spaces: Spaces, names: Sequence[str], shares: np.ndarray) -> np.ndarray:
    """Flattened spaces side by side, each times the root of its share: (n, P), of mean squared row length 1."""
    parts = [spaces[name].reshape(len(spaces[name]), -1) for name in names]
    return np.concatenate([part * np.sqrt(share) for part, share in zip(parts, shares, strict=True)], axis=1)
