"""Transductive corrections against brute force, enumeration and plain arithmetic."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from align import retrieval
from align.errors import UserError
from align.retrieval.transductive import csls, hungarian, sharpness_of, sinkhorn


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
    centred = similarity - similarity.mean(axis=1, keepdims=True)
    centred -= centred.mean(axis=0)
    plain = np.exp(3.0 * similarity / centred.std())  # the means go into the normalisation
    for _ in range(200):
        plain *= (6 / 9) / plain.sum(axis=0, keepdims=True)
        plain /= plain.sum(axis=1, keepdims=True)
    found = np.exp(sinkhorn(similarity, sharpness=3.0, n_iter=200))
    np.testing.assert_allclose(found, plain, rtol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    np.testing.assert_allclose(found.sum(axis=0), 6 / 9, rtol=1e-6)


def test_sinkhorn_has_no_unit_and_keeps_a_constant_constant() -> None:
    similarity = _noise(8, 8)
    np.testing.assert_allclose(sinkhorn(similarity), sinkhorn(1000 * similarity + 7), atol=1e-8)
    effects = 0.3 * _noise(4, 1) + 0.7 * _noise(1, 5, 1)
    for silent in (np.full((4, 5), 3.0), np.zeros((4, 5)), effects):
        np.testing.assert_array_equal(sinkhorn(silent), np.full((4, 5), -np.log(5)))


def test_sharpness_is_the_posterior_of_a_decoder_at_its_threshold() -> None:
    """Right pairs raised by d: softmax(d z) is calibrated, and d = sqrt(2 ln K) is where a hit is a toss-up."""
    k, rng = 2000, np.random.default_rng(0)
    d = sharpness_of(k)
    z = rng.normal(size=(1500, k))
    z[:, 0] += d
    below = z - z.max(axis=1, keepdims=True)
    hit = (below[:, 0] == 0).mean()
    assert 0.4 < hit < 0.8
    belief = {factor: (1 / np.exp(factor * d * below).sum(axis=1)).mean() for factor in (0.5, 1, 2)}
    assert belief[1] == pytest.approx(hit, abs=3 * np.sqrt(0.25 / 1500))
    assert belief[0.5] < hit - 0.06 < hit + 0.06 < belief[2]


@pytest.mark.parametrize("k", [6, 7])
def test_hungarian_is_the_best_of_all_assignments(k: int) -> None:
    similarity = _noise(6, k)
    best = max(itertools.permutations(range(k), 6), key=lambda columns: similarity[np.arange(6), list(columns)].sum())
    assert hungarian(similarity).tolist() == list(best)
    with pytest.raises(UserError, match="7 rows cannot each"):
        hungarian(_noise(7, 6))


def test_hungarian_does_not_break_ties_in_favour_of_the_diagonal() -> None:
    """A decoder that says the same to everything would else get every answer right."""
    hits = [(hungarian(np.zeros((20, 25)), seed=seed) == np.arange(20)).mean() for seed in range(100)]
    assert np.mean(hits) == pytest.approx(1 / 25, abs=0.02)
    twins = np.repeat(np.eye(30), 2, axis=1) + 0.1 * np.repeat(np.eye(30), 2, axis=1)[:, ::-1]
    rows = np.repeat(np.eye(30), 2, axis=0) @ twins  # pictures and recordings in pairs that nobody can tell apart
    hits = [(hungarian(rows, seed=seed) == np.arange(60)).mean() for seed in range(20)]
    assert np.mean(hits) == pytest.approx(0.5, abs=0.06)


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
