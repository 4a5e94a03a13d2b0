"""How well any model could predict a response: split-half reliability of every unit, where pictures were repeated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from align.comparison.predictability import column_correlation
from align.data.signals import Trials
from recon.analysis.noise_ceiling import spearman_brown
from recon.analysis.repeats import rows_of

CUTS = 20  # random halves, whose correlations are averaged
LEAST = 20  # repeated pictures
RELIABLE = 0.1  # reliability from which a unit's score is divided by its ceiling


@dataclass(frozen=True)
class Ceiling:
    """Of U units: ``reliability`` of the mean over the repetitions that a picture has, mean over ``cuts``.

    ``pictures``: those with two repetitions or more; ``repetitions``: of these on average; ``of``: where they are from.
    """

    reliability: np.ndarray
    pictures: int
    repetitions: float
    cuts: int
    of: str

    @property
    def highest(self) -> np.ndarray:
        """(U,) the correlation with the recorded mean that a model of the response without noise reaches."""
        return np.sqrt(np.maximum(self.reliability, 0.0))

    @property
    def reliable(self) -> np.ndarray:
        """Bool (U,): enough reliability to divide by."""
        return self.reliability >= RELIABLE

    def described(self) -> dict[str, Any]:
        return {
            "reliability_mean": float(self.reliability.mean()),
            "reliability_median": float(np.median(self.reliability)),
            "ceiling_mean": float(self.highest.mean()),
            "reliable_units": int(self.reliable.sum()),
            "reliable_from": RELIABLE,
            "pictures": self.pictures,
            "repetitions": self.repetitions,
            "cuts": self.cuts,
            "of": self.of,
        }


def split_half(trials: Trials, among: np.ndarray, seed: int, of: str, cuts: int = CUTS) -> Ceiling | None:
    """Reliability of responses to the stimuli ``among``; None where fewer than `LEAST` of them were repeated.

    ``trials.x`` (n, ...) is flattened to units. Each picture's repetitions are cut into two random halves of equal
    size, an odd one is left out; the correlation of the halves over pictures is carried to all repetitions by the
    formula of Spearman (1910) and Brown (1910), with mean numbers where pictures have different ones.
    """
    trials = trials.take(np.flatnonzero(np.isin(trials.stimulus, among)))
    rows = [part for part in rows_of(trials)[1] if len(part) > 1] if len(trials) else []
    if len(rows) < LEAST:
        return None
    x = np.asarray(trials.x).reshape(len(trials), -1)
    whole, half = (float(np.mean([size(len(part)) for part in rows])) for size in (float, lambda k: k // 2))
    r = np.zeros(x.shape[1])
    for cut in range(cuts):
        rng = np.random.default_rng([seed, cut])
        sides = np.empty((2, len(rows), x.shape[1]))
        for i, part in enumerate(rows):
            drawn, size = rng.permutation(part), len(part) // 2
            sides[0, i], sides[1, i] = x[drawn[:size]].mean(axis=0), x[drawn[size : 2 * size]].mean(axis=0)
        r += column_correlation(sides[0], sides[1]) / cuts
    return Ceiling(spearman_brown(r, whole / half), len(rows), whole, cuts, of)
