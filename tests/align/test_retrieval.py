"""Retrieval scores against scikit-learn, scipy, brute force and enumeration."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import hypergeom, kstest, rankdata
from sklearn.metrics import top_k_accuracy_score

from align import retrieval
from align.errors import UserError
from align.retrieval import measures

KEYS = [
    "top1",
    "top5",
    "median_rank",
    "n",
    "candidates",
    "chance_top1",
    "chance_top5",
    "ci95_top1",
    "p_permutation",
]


def _case(n: int = 40, k: int = 60, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    candidates = rng.normal(size=(k, 16))
    target = rng.permutation(k)[:n]
    embeds = candidates[target] + noise * rng.normal(size=(n, 16))
    return retrieval.scores(embeds, candidates), target


def _orders(row: np.ndarray, target: int, k: int) -> float:
    """Top-k hit by brute force: every order of the tied candidates, each equally likely."""
    tied = [j for j in range(len(row)) if row[j] == row[target]]
    better = int((row > row[target]).sum())
    places = [better + order.index(target) for order in itertools.permutations(tied)]
    return float(np.mean([place < k for place in places]))


def test_scores_are_cosines() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 5)).astype(np.float32), 9 * rng.normal(size=(4, 5)).astype(np.float32)
    np.testing.assert_allclose(retrieval.scores(a, b), 1 - cdist(a.astype(float), b.astype(float), "cosine"), atol=1e-7)
    a[2] = 0
    assert (retrieval.scores(a, b)[2] == 0).all()


def test_topk_and_rank_equal_other_libraries() -> None:
    similarity, target = _case(noise=2.0)
    found = retrieval.retrieve(similarity, target)
    assert list(found) == KEYS
    labels = np.arange(similarity.shape[1])
    for k in (1, 5):
        assert found[f"top{k}"] == pytest.approx(top_k_accuracy_score(target, similarity, k=k, labels=labels))
    ranks = rankdata(-similarity, axis=1)[np.arange(len(target)), target]
    assert found["median_rank"] == pytest.approx(np.median(ranks))
    assert 0 < found["top1"] < found["top5"] < 1
    assert (found["n"], found["candidates"], found["chance_top1"], found["chance_top5"]) == (40, 60, 1 / 60, 5 / 60)
    assert json.loads(json.dumps(found)) == found


def test_ties_are_expectations_over_orders() -> None:
    rng = np.random.default_rng(1)
    similarity = rng.integers(0, 3, size=(30, 7)).astype(float)
    target = rng.integers(0, 7, size=30)
    found = retrieval.retrieve(similarity, target, n_perm=0)
    for k in (1, 5):
        brute = np.mean([_orders(row, t, k) for row, t in zip(similarity, target, strict=True)])
        assert found[f"top{k}"] == pytest.approx(brute)
    ranks = rankdata(-similarity, axis=1)[np.arange(30), target]
    assert found["median_rank"] == pytest.approx(np.median(ranks))


def test_saying_the_same_to_everything_is_chance() -> None:
    found = retrieval.both_directions(np.zeros((50, 50)))
    for score in found.values():
        assert score["top1"] == pytest.approx(0.02)
        assert score["top5"] == pytest.approx(0.1)
        assert score["median_rank"] == 25.5
        assert score["p_permutation"] == 1.0


def test_directions_are_not_swapped() -> None:
    """Picture 0 is a hub: every brain row prefers it, while every picture's best brain row is the right one."""
    n = 20
    similarity = np.eye(n) * 0.5
    similarity[:, 0] += 0.6
    similarity[0, 0] += 0.6
    found = retrieval.both_directions(similarity)
    assert found["brain_to_image"]["top1"] == 1 / n
    assert found["image_to_brain"]["top1"] == 1.0
    flipped = retrieval.both_directions(similarity.T)
    assert flipped["brain_to_image"]["top1"] == 1.0
    assert flipped["image_to_brain"]["top1"] == 1 / n


def test_extra_candidates_count_in_one_direction_only() -> None:
    similarity, target = _case(n=10, k=30, noise=0.1)
    found = retrieval.both_directions(similarity, target)
    assert found["brain_to_image"]["candidates"] == 30
    assert found["image_to_brain"]["candidates"] == 10
    assert found["brain_to_image"]["top1"] == found["image_to_brain"]["top1"] == 1.0
    backwards = top_k_accuracy_score(np.arange(10), similarity[:, target].T, k=1, labels=np.arange(10))
    assert found["image_to_brain"]["top1"] == backwards
    with pytest.raises(UserError, match="average the repetitions"):
        retrieval.both_directions(similarity, np.zeros(10, dtype=int))


@pytest.mark.parametrize("pool", [1, 2, 7, 25, 60])
def test_pool_formula_is_the_hypergeometric_law(pool: int) -> None:
    similarity, target = _case(noise=3.0)
    found = retrieval.retrieve(similarity, target, pool=pool, n_perm=0)
    better = (similarity > similarity[np.arange(40), target][:, None]).sum(axis=1)
    for k in (1, 5):
        law = hypergeom(59, better, pool - 1).cdf(k - 1).mean()
        assert found[f"top{k}"] == pytest.approx(law, abs=1e-9)
    assert found["candidates"] == pool
    assert found["chance_top5"] == min(5, pool) / pool
    assert found["median_rank"] == pytest.approx(np.median(1 + better * (pool - 1) / 59))


def test_pool_formula_equals_drawn_pools() -> None:
    similarity, target = _case(n=6, k=9, noise=2.0)
    hits = []
    for row, right in zip(similarity, target, strict=True):
        others = [j for j in range(9) if j != right]
        pools = itertools.combinations(others, 3)
        hits.append(np.mean([all(row[right] > row[j] for j in pool) for pool in pools]))
    assert retrieval.retrieve(similarity, target, pool=4)["top1"] == pytest.approx(np.mean(hits))


@pytest.mark.parametrize("pool", [None, 11])
def test_matrix_holds_the_score_of_every_pairing(pool: int | None) -> None:
    similarity, target = _case(n=12, k=20, noise=2.0)
    similarity = np.round(similarity, 1)  # ties
    matrix = retrieval.top1_matrix(similarity, target, pool=pool)
    for shift in range(12):
        paired = np.roll(target, shift)
        score = retrieval.retrieve(similarity, paired, pool=pool, n_perm=0, n_boot=0)["top1"]
        assert matrix[np.arange(12), (np.arange(12) - shift) % 12].mean() == pytest.approx(score)


def test_permutation_p_equals_enumeration() -> None:
    matrix = np.random.default_rng(5).random((5, 5)) + 0.25 * np.eye(5)
    every = [matrix[np.arange(5), list(order)].mean() for order in itertools.permutations(range(5))]
    exact = np.mean(np.array(every) >= np.diag(matrix).mean() - 1e-12)
    assert 0.02 < exact < 0.9
    assert retrieval.permutation_p([matrix], n_perm=20000) == pytest.approx(exact, abs=0.015)


def test_p_is_uniform_without_signal_and_small_with() -> None:
    rng = np.random.default_rng(0)
    values = []
    for repeat in range(150):
        similarity = rng.normal(size=(24, 24)) + 2 * rng.normal(size=(1, 24))  # hubs, no pairing
        values.append(retrieval.retrieve(similarity, np.arange(24), pool=2, seed=repeat, n_perm=199)["p_permutation"])
    assert kstest(values, "uniform").pvalue > 0.01
    similarity, target = _case(noise=0.5)
    assert retrieval.retrieve(similarity, target, n_perm=499)["p_permutation"] == pytest.approx(1 / 500)


def test_p_of_the_coarse_top1_is_never_too_small() -> None:
    rng = np.random.default_rng(3)
    values = [
        retrieval.retrieve(rng.normal(size=(20, 20)), np.arange(20), seed=i, n_perm=199)["p_permutation"]
        for i in range(200)
    ]
    assert np.mean(np.array(values) <= 0.05) <= 0.085
    assert np.mean(np.array(values) <= 0.5) <= 0.6


def test_shared_pictures_are_permuted_together() -> None:
    """Two subjects with the same hub errors: together they are one observation, not two."""
    n = 16
    matrix = np.zeros((n, n))
    matrix[:, 0] = 1.0  # every row answers picture 0
    assert retrieval.permutation_p([matrix]) == 1.0
    shared = np.eye(n)[np.random.default_rng(0).permutation(n)]
    one = retrieval.permutation_p([shared])
    assert retrieval.permutation_p([(shared + shared) / 2]) == one


def test_bootstrap_interval_is_the_binomial_one() -> None:
    hits = np.zeros(400)
    hits[:120] = 1
    low, high = retrieval.bootstrap_interval([hits], n_boot=4000) or [0, 0]
    half = 1.96 * np.sqrt(0.3 * 0.7 / 400)
    assert (low, high) == (pytest.approx(0.3 - half, abs=0.006), pytest.approx(0.3 + half, abs=0.006))
    low, high = retrieval.bootstrap_interval([hits, 1 - hits], weights=[3, 1], n_boot=4000) or [0, 0]
    half = 1.96 * np.sqrt((0.75**2 + 0.25**2) * 0.21 / 400)
    assert (low, high) == (pytest.approx(0.4 - half, abs=0.006), pytest.approx(0.4 + half, abs=0.006))


def test_resampling_in_pieces_is_resampling_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values, matrix = np.random.default_rng(0).random(16), np.random.default_rng(1).random((16, 16)) + 0.1 * np.eye(16)
    whole = retrieval.bootstrap_interval([values], n_boot=301), retrieval.permutation_p([matrix], n_perm=301)
    for cells in (1, 16 * 7, 16 * 300):
        monkeypatch.setattr(measures, "_CHUNK", cells)
        assert retrieval.bootstrap_interval([values], n_boot=301) == whole[0]
        assert retrieval.permutation_p([matrix], n_perm=301) == whole[1]


def test_values_per_stimulus_add_up_to_the_scores() -> None:
    similarity, target = _case(n=20, k=20, noise=2.0)
    similarity = np.round(similarity[:, target], 1)  # ties
    found, scores = retrieval.per_stimulus(similarity), retrieval.both_directions(similarity)
    for direction, part in found.items():
        for name in ("top1", "top5"):
            assert np.mean(part[name]) == pytest.approx(scores[direction][name])
        assert np.median(part["rank"]) == scores[direction]["median_rank"]


def test_results_repeat_and_follow_the_seed() -> None:
    similarity, target = _case(noise=2.5)
    first = retrieval.retrieve(similarity, target, seed=1, pool=7)  # pool: values that are not whole hits
    assert retrieval.retrieve(similarity, target, seed=1, pool=7) == first
    assert retrieval.retrieve(similarity, target, seed=2, pool=7)["ci95_top1"] != first["ci95_top1"]


def test_bad_input_is_one_clear_line() -> None:
    similarity, target = _case()
    broken = similarity.copy()
    broken[3, 4] = np.nan
    with pytest.raises(UserError, match="1 NaN or infinite"):
        retrieval.retrieve(broken, target)
    with pytest.raises(UserError, match="NaN or infinite"):
        retrieval.scores(np.full((2, 3), np.inf), np.ones((2, 3)))
    with pytest.raises(UserError, match="outside the 60 candidates"):
        retrieval.retrieve(similarity, target + 60)
    with pytest.raises(UserError, match="pool=61"):
        retrieval.retrieve(similarity, target, pool=61)
    with pytest.raises(UserError, match=r"\(n, E\)"):
        retrieval.scores(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(UserError, match="one target per row"):
        retrieval.retrieve(similarity, target[:-1])
