"""Planted truth: networks and a brain made of factors that all have, that networks alone have, that one alone has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHARED, NETWORKS, PRIVATE = "shared", "networks", "private"
EACH = 5  # factors of every kind


@dataclass(frozen=True)
class Planted:
    """``features``: network to (n, D); ``kinds`` of its factors, in falling order of variance; ``brain`` (n, V)."""

    features: dict[str, np.ndarray]
    factors: dict[str, np.ndarray]
    kinds: np.ndarray
    brain: np.ndarray


def plant(seed: int, n: int, networks: int = 3, width: int = 40, noise: float = 0.02) -> Planted:
    """Kinds alternate along the variance, so that variance says nothing about them."""
    rng = np.random.default_rng(seed)
    shared, common = rng.normal(size=(2, n, EACH))
    kinds = np.array([SHARED, NETWORKS, PRIVATE] * EACH)
    features, factors = {}, {}
    for k in range(networks):
        own = np.empty((n, len(kinds)))
        own[:, kinds == SHARED], own[:, kinds == NETWORKS] = shared, common
        own[:, kinds == PRIVATE] = rng.normal(size=(n, EACH))
        axes = np.linalg.qr(rng.normal(size=(width, width)))[0][: len(kinds)]
        scale = 1.7 ** -np.arange(len(kinds))
        features[f"net{k}"] = own * scale @ axes + noise * scale[-1] * rng.normal(size=(n, width))
        factors[f"net{k}"] = own
    brain = shared @ rng.normal(size=(EACH, 30)) + rng.normal(size=(n, 30))
    return Planted(features, factors, kinds, brain)
