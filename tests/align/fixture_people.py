"""People whose signals are made of the same picture features: linearly, each in another way, or through a tanh."""

from __future__ import annotations

import numpy as np

from align.adaptation.people import Person, Pictures

FEATURES, TOKENS = 6, (2, 5)


def features(count: int, seed: int) -> np.ndarray:
    """(count, 6), normal: what pictures are made of."""
    return np.random.default_rng(seed).normal(size=(count, FEATURES))


def linear_part(name: str, places: int) -> np.ndarray:
    """(6, places): how a person's signals carry the features."""
    return np.random.default_rng(sum(map(ord, name))).normal(size=(FEATURES, places))


def person(name: str, z: np.ndarray, signals: np.ndarray, noise: float = 0.1, seed: int = 0) -> Person:
    """Pictures with features z (n, 6), seen as ``signals`` (n, places) and noise. Equal features are one picture."""
    rng = np.random.default_rng(sum(map(ord, name)) + seed)
    maps = np.random.default_rng(99).normal(size=(FEATURES, TOKENS[0] * TOKENS[1]))
    tokens = (z @ maps).reshape(len(z), *TOKENS).astype(np.float32)
    hashes = tuple(str(row.tobytes().hex()) for row in z)
    thumbs = np.random.default_rng(seed).normal(size=(len(z), 768)).astype(np.float32)
    x = (signals + noise * rng.normal(size=signals.shape)).astype(np.float32)
    return Person(name, x, tokens, np.arange(len(z)), Pictures(hashes, thumbs))


def linear_person(name: str, count: int, places: int, seed: int = 0, noise: float = 0.1) -> Person:
    """A person whose signals are linear in the features."""
    z = features(count, seed)
    return person(name, z, z @ linear_part(name, places), noise, seed)


def one_sided_person(count: int, places: int, seed: int) -> Person:
    """A person whose features are one-sided in 6 projections of the signals: no linear map finds them."""
    x = np.random.default_rng(seed).normal(size=(count, places))
    maps = np.random.default_rng(5).normal(size=(places, FEATURES)) / np.sqrt(places)
    return person("new", np.maximum(x @ maps, 0) * 2.4 - 1, x, 0.05, seed)
