"""Clusters of units: planted ones are found, agreement is that of scikit-learn, chance is chance."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from align.comparison.clusters import (
    adjusted_rand,
    agreement_p,
    chosen_count,
    discrimination,
    numbered,
    unit_clusters,
)

SIZES = (6, 4, 3)


def planted(noise: float, n: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Units (n, 13) that follow three signals, in a mixed order and with scales of their own; the truth (13,)."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(3), SIZES))
    signals = rng.normal(size=(n, 3))
    return (signals[:, truth] + noise * rng.normal(size=(n, 13))) * rng.uniform(0.1, 20, 13) + 7, numbered(truth)


def test_planted_clusters_are_found_whatever_their_scale() -> None:
    responses, truth = planted(0.7)
    found = unit_clusters(responses, 3)
    assert found.tolist() == truth.tolist() and np.bincount(found).tolist() == list(SIZES)


def test_clusters_are_those_of_scikit_learn() -> None:
    responses = np.random.default_rng(1).normal(size=(40, 12))
    scaled = (responses - responses.mean(0)) / np.linalg.norm(responses - responses.mean(0), axis=0)
    for count in (2, 5):
        other = AgglomerativeClustering(count, linkage="ward").fit_predict(scaled.T)
        assert adjusted_rand_score(unit_clusters(responses, count), other) == 1


def test_agreement_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        a, b = rng.integers(0, 4, 15), rng.integers(0, 3, 15)
        assert adjusted_rand(numbered(a), numbered(b)) == pytest.approx(adjusted_rand_score(a, b), abs=1e-12)
    assert adjusted_rand(np.zeros(5, dtype=int), np.zeros(5, dtype=int)) == 1


def test_p_of_agreement_is_valid_by_chance_and_small_for_the_same_clusters() -> None:
    """Many orders of units agree equally well, so that p is somewhat too large rather than uniform."""
    rng = np.random.default_rng(0)
    of = np.repeat(np.arange(4), 5)
    p = np.array([agreement_p(of, rng.permutation(of), rng, 60) for _ in range(200)])
    assert 0.05 < (p <= 0.2).mean() < 0.27 and 0.4 < p.mean() < 0.7
    assert agreement_p(of, of, rng, 199) == 1 / 200


def test_the_number_of_clusters_is_that_which_halves_agree_on() -> None:
    responses, _ = planted(0.8, n=200)
    count, tried = chosen_count(responses, np.arange(200) // 2, np.random.default_rng(0))
    assert count == 3 and tried[3] > 0.95 and list(tried) == [2, 3, 4, 5, 6]
    noise = np.random.default_rng(3).normal(size=(200, 13))
    assert max(chosen_count(noise, np.arange(200), np.random.default_rng(0))[1].values()) < 0.2


def test_halves_keep_groups_together() -> None:
    """Noise of few pictures that stand ten times each would agree with itself, were its copies in different halves."""
    copies, groups = np.tile(np.random.default_rng(3).normal(size=(12, 13)), (10, 1)), np.tile(np.arange(12), 10)
    assert max(chosen_count(copies, groups, np.random.default_rng(0))[1].values()) < 0.3
    assert max(chosen_count(copies, np.arange(120), np.random.default_rng(0))[1].values()) > 0.5


def test_discrimination_is_the_mean_above_the_highest_other() -> None:
    values = np.array([[1.0, 3.0, 0.0, 5.0], [2.0, 2.0, 9.0, 1.0]])
    found = discrimination(values, np.array([0, 0, 1, 2]))
    np.testing.assert_allclose(found, [[2 - 5, 0 - 5, 5 - 2], [2 - 9, 9 - 2, 1 - 9]])
    equal = discrimination(np.ones((1, 3)), np.array([0, 1, 2]))
    np.testing.assert_allclose(equal, 0)
