"""Intervals, p and agreement of votes, which are crossed: many voters answer about the same stimuli."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recon.metrics.stats import N_BOOT, N_PERM, exact_interval, sign_flip_p

EXACT, CROSSED = "exact over trials", "bootstrap of voters and stimuli"


@dataclass(frozen=True)
class Crossed:
    """Who voted (n,) about which stimulus (n,), and how often each vote is drawn in every resample (B, n).

    Voters and stimuli are drawn with replacement independently, and a vote counts as often as the product says (the
    pigeonhole bootstrap, Owen 2007). A single voter stays; the interval then is one over stimuli.
    """

    voters: np.ndarray
    stimuli: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, voters: Sequence[str], stimuli: Sequence[str], n_boot: int = N_BOOT, seed: int = 0) -> Crossed:
        """Draw the resamples once, for all that is computed from the same votes."""
        rng = np.random.default_rng(seed)
        weights = np.ones((n_boot, len(voters)))
        for names in (voters, stimuli):
            _, place = np.unique(np.asarray(names), return_inverse=True)
            k = int(place.max()) + 1
            weights *= rng.multinomial(k, np.full(k, 1 / k), size=n_boot)[:, place]
        return cls(np.asarray(voters), np.asarray(stimuli), weights)

    def means(self, values: np.ndarray, part: np.ndarray) -> np.ndarray:
        """Mean of ``values`` (n,) over the votes in ``part`` (n,) in every resample, (B,); NaN where none is drawn."""
        weights = self.weights[:, part]
        total = weights.sum(axis=1)
        means: np.ndarray = np.where(total > 0, weights @ values[part] / np.maximum(total, 1), np.nan)
        return means

    def interval(self, values: np.ndarray, part: np.ndarray) -> tuple[list[float], str]:
        """95 % interval of a share of votes, values in [0, 1], and which kind it is.

        Exact for one voter who saw each stimulus once, and where all values are alike, which a bootstrap takes for
        certainty (then over stimuli); otherwise by the resamples.
        """
        own, shown = values[part], self.stimuli[part]
        n = len(np.unique(shown))
        if (len(np.unique(self.voters[part])) == 1 and n == len(own)) or np.ptp(own) == 0:
            return exact_interval(float(own.mean()) * n, n), EXACT
        return ends(self.means(values, part)), CROSSED

    def by_stimulus(self, values: np.ndarray, part: np.ndarray) -> dict[str, float]:
        """Mean over voters of every stimulus."""
        names = np.unique(self.stimuli[part])
        return {str(name): float(values[part & (self.stimuli == name)].mean()) for name in names}


def ends(draws: np.ndarray) -> list[float]:
    """The middle 95 % of resampled means."""
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return [float(low), float(high)]


def p_above(values: Sequence[float], chance: float = 0.5, *, n_perm: int = N_PERM, seed: int = 0) -> float:
    """One-sided p of per-stimulus ``values`` against chance, by random signs; the unit is the stimulus."""
    return sign_flip_p(np.asarray(values, dtype=np.float64) - chance, n_perm=n_perm, seed=seed)


def fleiss(counts: np.ndarray) -> dict[str, Any] | None:
    """Agreement of raters from ``counts`` (trials, categories); trials of fewer than two votes are left out.

    ``share``: of the pairs of votes on a trial, how many are alike, averaged over trials. ``kappa``: how far that is
    from what the categories' frequencies alone would give (0) to full agreement (1) (Fleiss 1971); with an unequal
    number of votes every trial counts alike. None where no trial has two votes; kappa None with a single category.
    """
    counts = np.asarray(counts, dtype=np.float64)
    counts = counts[counts.sum(axis=1) >= 2]
    if not len(counts):
        return None
    n = counts.sum(axis=1)
    each = (counts * (counts - 1)).sum(axis=1) / (n * (n - 1))
    expected = float(((counts.sum(axis=0) / n.sum()) ** 2).sum())
    share = float(each.mean())
    kappa = (share - expected) / (1 - expected) if expected < 1 else None
    return {"share": share, "kappa": kappa, "trials": len(counts)}
