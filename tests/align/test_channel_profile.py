"""Later trials beside those of training: channels of another size, order or sign are named, honest ones never."""

from __future__ import annotations

import re

import numpy as np
import pytest

from align.data.channel_profile import Profile

NAMES = [f"C{i}" for i in range(12)]
SIZES = np.linspace(1, 9, 12)
EVOKED = np.sin(np.arange(20) / 3) * np.random.default_rng(9).normal(size=(12, 1))


def trials(seed: int, n: int = 40, evoked: float = 1.0) -> np.ndarray:
    """(n, 12, 20): what is evoked, and noise; channels of different sizes."""
    noise = np.random.default_rng(seed).normal(size=(n, 12, 20))
    return ((noise + evoked * EVOKED) * SIZES[:, None]).astype(np.float32)


def drifts(seed: int, n: int = 40) -> np.ndarray:
    """(n, 12, 20): a slope of its own in each trial, whose mean has either sign."""
    return np.random.default_rng(seed).normal(size=(n, 1, 1)) * np.linspace(-1, 1, 20) * np.ones((12, 1))


def betas(seed: int, n: int = 40, mean: float = 0.0) -> np.ndarray:
    """(n, 50): standardised voxels."""
    return np.random.default_rng(seed).normal(mean, 1, size=(n, 50)).astype(np.float32)


KNOWN = Profile.of(trials(0))


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (trials(1) * np.where(np.arange(12) == 3, 1e6, 1)[:, None], "1 of 12 channels .*C3 .about 1e.06 times"),
        (trials(1, 1) * np.where(np.arange(12) == 3, 1e-6, 1)[:, None], "C3 .*e-0[67] times"),
        (trials(1) * np.where(np.arange(12) < 5, 1e3, 1)[:, None], "5 of 12 channels .* C2 .*and 2 more"),
        (trials(1) * np.where(np.arange(12) == 3, 0, 1)[:, None], "C3 .0 throughout"),
        (trials(1)[:, ::-1], "the sizes of training in another order"),
        (-trials(1), "the sign turned"),
    ],
)
def test_what_differs_is_named(x: np.ndarray, told: str) -> None:
    assert re.search(told, KNOWN.faults(x, NAMES))


@pytest.mark.parametrize("n", [1, 2, 16, 300])
def test_honest_trials_are_not(n: int) -> None:
    for seed in range(1, 20):
        assert KNOWN.faults(trials(seed, n), NAMES) == ""
        assert KNOWN.faults(trials(seed, n) * np.linspace(2, 1, 12)[:, None], NAMES) == ""  # another cap
        assert Profile.of(betas(0)).faults(betas(seed, n)) == ""
        assert Profile.of(drifts(0)).faults(drifts(seed, n)) == ""
        assert Profile.of(trials(0, evoked=0)).faults(-trials(seed, n, evoked=0)) == ""  # nothing is evoked


def test_counts_and_silent_voxels_say_little() -> None:
    rates = np.geomspace(0.05, 20, 30)
    train = np.random.default_rng(0).poisson(rates, (200, 30)).astype(float)
    train[:, 4] = 0
    known = Profile.of(train)
    for seed in range(1, 20):
        assert known.faults(np.random.default_rng(seed).poisson(rates, (25, 30)).astype(float) + (seed % 2)) == ""
