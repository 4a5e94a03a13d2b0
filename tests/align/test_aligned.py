"""Channels in the space of units, groups of patches there: numbers as scikit-learn gives them, planted ones found."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import SpectralClustering
from sklearn.linear_model import Ridge
from sklearn.metrics import adjusted_rand_score

from align.comparison.cuts import SHARP, NormalisedCut, affinity
from align.response_models.aligned import ChannelMapper


def test_places_add_up_to_the_prediction_and_the_fit_is_ridge() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(60, 4, 6)).astype(np.float32) * [1, 5, 0.2, 1, 2, 3] + 4
    responses = tokens.mean(axis=1)[:, [1, 4]] + 0.1 * rng.normal(size=(60, 2))
    mapper = ChannelMapper(tokens)
    found = mapper.fit(responses)
    np.testing.assert_allclose(found.places(tokens).mean(axis=1) + found.bias, found.predict(tokens), atol=1e-5)
    flat = tokens.reshape(-1, 6).astype(np.float64)
    pooled = ((tokens - flat.mean(0)) / flat.std(0)).mean(axis=1)
    scale = np.sqrt(np.square(pooled - pooled.mean(0)).sum(1).mean())
    for unit, alpha in enumerate(mapper.ridge.fit(responses, tuple(10.0 ** (k / 2) for k in range(-6, 7))).alpha):
        other = Ridge(alpha=alpha).fit(pooled / scale, responses[:, unit]).predict(pooled / scale)
        np.testing.assert_allclose(found.predict(tokens)[:, unit], other, atol=1e-3)


def test_the_channel_that_drives_a_unit_has_its_weight_at_every_place() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(200, 9, 5)).astype(np.float32)
    weight = ChannelMapper(tokens).fit(tokens.mean(axis=1)[:, [3, 0]]).weight
    assert np.abs(weight).argmax(axis=0).tolist() == [3, 0]
    one_place = np.zeros((1, 9, 5), dtype=np.float32)
    one_place[0, 2, 3] = 1
    drive = ChannelMapper(tokens).fit(tokens.mean(axis=1)[:, [3, 0]]).places(one_place)[0, :, 0]
    assert drive.argmax() == 2


def test_affinity_is_of_directions() -> None:
    a = np.array([[2.0, 0.0], [0.0, 0.0]])
    b = np.array([[5.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    expected = np.exp((np.array([[1, 0, -1], [0, 0, 0]]) - 1) / SHARP)
    np.testing.assert_allclose(affinity(a, b), expected)


def directions(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, 6) of any length around three directions, the first one most often; and which (n,)."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    axes = np.linalg.qr(rng.normal(size=(6, 6)))[0][:3]
    return (axes[kinds] + 0.2 * rng.normal(size=(n, 6))) * rng.uniform(0.5, 3, (n, 1)), kinds


def test_groups_are_those_of_scikit_learn_and_the_planted_ones() -> None:
    features, kinds = directions(150)
    cut = NormalisedCut.of(features, 3)
    found = cut.labels(features)
    alike = affinity(features, features)
    other = SpectralClustering(3, affinity="precomputed", assign_labels="cluster_qr", random_state=0).fit_predict(alike)
    assert adjusted_rand_score(found, other) == 1
    assert (found == kinds).mean() > 0.98  # numbered by size
    noise = np.random.default_rng(5).normal(size=(80, 6))
    alike = affinity(noise, noise)
    other = SpectralClustering(4, affinity="precomputed", assign_labels="cluster_qr", random_state=0).fit_predict(alike)
    assert adjusted_rand_score(NormalisedCut.of(noise, 4).labels(noise), other) == pytest.approx(1, abs=0.05)


def test_other_patches_get_the_group_of_those_like_them() -> None:
    features, kinds = directions(600)
    cut = NormalisedCut.of(features[:200], 3)
    np.testing.assert_array_equal(cut.labels(features, block=64), cut.labels(features))
    assert (cut.labels(features)[200:] == kinds[200:]).mean() > 0.97
