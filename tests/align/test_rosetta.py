"""Matches between networks: numbers as numpy gives them, planted channels found, unrelated networks at chance."""

from __future__ import annotations

import numpy as np
import pytest

from align.comparison.rosetta import (
    LEVEL,
    Best,
    common_to_all,
    correlations,
    pair_correlations,
    rosetta,
    unit_maps,
)

PICTURES, CELLS, SHARED, OWN = 60, 9, 12, 6


def planted(seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Three networks with the same `SHARED` channels in an order of their own (noisy, of any scale), and `OWN` of
    theirs; and where each shared channel is."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(PICTURES, CELLS, SHARED))
    maps, places = {}, {}
    for name in "abc":
        both = np.concatenate([shared, rng.normal(size=(PICTURES, CELLS, OWN))], axis=2)
        order = rng.permutation(SHARED + OWN)
        noise = 0.3 * rng.normal(size=both.shape)
        maps[name] = unit_maps(((both + noise) * rng.uniform(0.1, 9, SHARED + OWN) + 5)[:, :, order])
        places[name] = np.argsort(order)[:SHARED]
    return maps, places


def test_correlations_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(70, 9, 5)) + 3
    b = a[:, :, [1, 1, 0]] * [1, -2, 0.1] + rng.normal(size=(70, 9, 3))
    orders = rng.permutation(70), rng.permutation(70)
    for pair in (None, orders):
        x, y = (a, b) if pair is None else (a[pair[0]], b[pair[1]])
        expected = np.corrcoef(x.reshape(-1, 5).T, y.reshape(-1, 3).T)[:5, 5:]
        np.testing.assert_allclose(correlations(unit_maps(a), unit_maps(b), pair), expected, rtol=0, atol=1e-6)
    found = pair_correlations(unit_maps(a), unit_maps(b), np.array([1, 0]), np.array([0, 2]))
    expected = np.corrcoef(a.reshape(-1, 5).T, b.reshape(-1, 3).T)[:5, 5:]
    np.testing.assert_allclose(found, expected[[1, 0], [0, 2]], rtol=0, atol=1e-6)


def test_a_channel_that_never_varies_matches_nothing() -> None:
    a = np.random.default_rng(0).normal(size=(40, 4, 3))
    a[:, :, 1] = 7
    silent = unit_maps(a)
    assert not silent[:, :, 1].any()
    found = rosetta({"a": silent, "b": silent}, 40, np.random.default_rng(1)).pairs["a", "b"]
    assert found.first.tolist() == found.second.tolist() and set(found.first.tolist()) == {0, 2}


def test_best_buddies_are_each_others_best() -> None:
    r = np.array([[0.9, 0.2, 0.1], [0.8, 0.3, 0.6], [-0.1, -0.3, -0.2]])
    best = Best.of(r)
    assert best.forward.tolist() == [0, 0, 0] and best.backward.tolist() == [0, 1, 1]
    assert best.mutual().tolist() == [0]  # row 1 likes column 0, which likes row 0
    assert Best.of(-np.ones((2, 2))).mutual().size == 0  # nothing correlates: nothing matches


def test_shared_channels_are_matched_and_no_others() -> None:
    maps, places = planted()
    found = rosetta(maps, 60, np.random.default_rng(0))
    for (a, b), one in found.pairs.items():
        kept = dict(zip(one.first[one.kept].tolist(), one.second[one.kept].tolist(), strict=True))
        truth = dict(zip(places[a].tolist(), places[b].tolist(), strict=True))
        assert truth.items() <= kept.items() and len(kept) <= SHARED + 1
        assert one.null_kept.mean() < 1 and (np.diff(one.r) <= 0).all()
        np.testing.assert_allclose(one.p.min(), 1 / 61)
        assert (one.above[one.kept] > 0.5).all()
    truth = {tuple(row) for row in np.stack([places[name] for name in "abc"], axis=1).tolist()}
    assert truth <= {tuple(row) for row in found.common.tolist()}
    assert len(found.common) <= SHARED + 1 and found.null_common.mean() < 0.5


def test_unrelated_networks_are_at_chance_also_with_channels_of_fixed_places() -> None:
    """Every channel answers to the edge of all pictures: r is high, and pictures in another order show that."""
    kept, matches, shuffled = [], [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        edge = np.linspace(-3, 3, CELLS)[None, :, None] * np.linspace(0, 1, 15)
        maps = {name: unit_maps(rng.normal(size=(PICTURES, CELLS, 15)) + edge) for name in "ab"}
        one = rosetta(maps, 60, rng).pairs["a", "b"]
        assert one.r.max() > 0.5
        kept.append(int(one.kept.sum()))
        matches.append(len(one.r))
        shuffled.append(np.mean([len(r) for r in one.null_r]))
    assert np.mean(np.array(kept) > 0) <= 4 * LEVEL  # 0.6 of 12 are expected with one false match or more
    assert np.mean(matches) == pytest.approx(np.mean(shuffled), rel=0.25)


def test_p_counts_shuffles_and_q_is_that_of_scipy() -> None:
    from scipy.stats import false_discovery_control

    maps, _ = planted(3)
    rng = np.random.default_rng(5)
    one = rosetta({name: maps[name] for name in "ab"}, 30, rng).pairs["a", "b"]
    rng = np.random.default_rng(5)
    flat = {name: maps[name].astype(np.float64) for name in "ab"}
    null = [np.einsum("npd,npe->de", flat["a"], flat["b"][rng.permutation(PICTURES)]) for _ in range(30)]
    real = np.einsum("npd,npe->de", flat["a"], flat["b"])
    tables = []
    for axis in (1, 0):
        chance = np.array([part.max(axis=axis) for part in null])
        p = (1 + (chance >= real.max(axis=axis)).sum(axis=0)) / 31
        tables.append((p, false_discovery_control(p), chance.mean(axis=0)))
    for k, name in enumerate(("p", "q", "r_shuffled")):
        expected = np.maximum(tables[0][k][one.first], tables[1][k][one.second])
        np.testing.assert_allclose(getattr(one, name), expected, rtol=0, atol=1e-6)


def test_common_channels_are_linked_in_every_pair() -> None:
    links = {(0, 1): {0: 5, 1: 6, 2: 7}, (0, 2): {0: 8, 1: 9}, (1, 2): {5: 8, 6: 1}}
    assert common_to_all(links, 3).tolist() == [[0, 5, 8]]
    assert common_to_all({(0, 1): {0: 3}}, 2).tolist() == [[0, 3]]
    assert common_to_all({(0, 1): {}}, 2).shape == (0, 2)
