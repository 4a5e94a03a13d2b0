"""Transductive corrections against brute force, enumeration and plain arithmetic."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from align import retrieval
from align.errors import UserError
from align.transductive import csls, hungarian, sinkhorn


def _noise(n: int, k: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, k))


def _hub(n: int = 30) -> np.ndarray:
    """Every brain row prefers picture 0; apart from that each is nearest to its own."""
    matrix = 0.5 * np.eye(n) + 0.001 * _noise(n, n)
    matrix[:, 0] += 0.6
    return matrix


def test_csls_equals_brute_force() -> None:
    similarity = _noise(15, 20)
    corrected = csls(similarity, k=4)
    for i, j in itertools.product(range(15), range(20)):
        row = np.mean(sorted(similarity[i])[-4:])
        column = np.mean(sorted(similarity[:, j])[-4:])
        assert corrected[i, j] == pytest.approx(2 * similarity[i, j] - row - column)


def test_sinkhorn_equals_plain_alternating_normalisation() -> None:
    similarity = _noise(6, 9)
    plain = np.exp(3.0 * similarity / similarity.std())
    for _ in range(200):
        plain *= (6 / 9) / plain.sum(axis=0, keepdims=True)
        plain /= plain.sum(axis=1, keepdims=True)
    found = np.exp(sinkhorn(similarity, sharpness=3.0, n_iter=200))
    np.testing.assert_allclose(found, plain, rtol=1e-9)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    np.testing.assert_allclose(found.sum(axis=0), 6 / 9, rtol=1e-6)


def test_sinkhorn_has_no_unit_and_keeps_a_constant_constant() -> None:
    similarity = _noise(8, 8)
    np.testing.assert_allclose(sinkhorn(similarity), sinkhorn(1000 * similarity + 7), atol=1e-8)
    assert np.ptp(sinkhorn(np.full((4, 4), 3.0))) == pytest.approx(0)


@pytest.mark.parametrize("k", [6, 7])
def test_hungarian_is_the_best_of_all_assignments(k: int) -> None:
    similarity = _noise(6, k)
    best = max(itertools.permutations(range(k), 6), key=lambda columns: similarity[np.arange(6), list(columns)].sum())
    assert hungarian(similarity).tolist() == list(best)
    with pytest.raises(UserError, match="7 rows cannot each"):
        hungarian(_noise(7, 6))


def test_all_three_undo_a_hub() -> None:
    hub = _hub()
    plain = retrieval.both_directions(hub)["brain_to_image"]["top1"]
    assert plain < 0.1
    for corrected in (csls(hub), sinkhorn(hub)):
        assert retrieval.both_directions(corrected)["brain_to_image"]["top1"] > 0.9
    assert (hungarian(hub) == np.arange(30)).all()
    report = retrieval.report(hub)
    assert report["brain_to_image"]["top1"] == plain
    assert report["transductive"]["csls"]["top1"] > 0.9
    assert set(report["brain_to_image"]) < set(report["transductive"]["csls"])
