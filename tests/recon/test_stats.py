"""Intervals and p values beside exact enumeration, formulas and their behaviour under the null."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from scipy.stats import binomtest, kstest, norm, permutation_test, ttest_1samp

from recon.metrics import stats


def test_interval_is_the_normal_one_for_many_values() -> None:
    values = np.random.default_rng(0).normal(2, 3, size=500)
    low, high = stats.bootstrap_ci(values, n_boot=4000)
    half = norm.ppf(0.975) * values.std() / np.sqrt(500)
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)


def test_t_and_exact_intervals_are_those_of_scipy() -> None:
    values = np.random.default_rng(3).normal(2, 3, size=4)
    assert stats.t_interval(values) == pytest.approx(ttest_1samp(values, 0).confidence_interval(0.95))
    for hits, n in ((0, 30), (3, 200), (29, 30), (30, 30)):
        limits = binomtest(hits, n).proportion_ci(0.95, method="exact")
        assert stats.exact_interval(hits, n) == pytest.approx([limits.low, limits.high])


def test_sign_flip_is_the_enumeration_of_all_signs() -> None:
    differences = np.random.default_rng(1).normal(0.5, 1, size=10)
    flips = np.array([np.dot(signs, differences) for signs in product((-1, 1), repeat=10)])
    assert stats.sign_flip_p(differences, n_perm=20000) == pytest.approx(
        (flips >= differences.sum() - 1e-9).mean(), abs=0.01
    )
    scipy_p = permutation_test(
        (differences, np.zeros(10)), lambda a, b: np.mean(a - b), permutation_type="samples", alternative="greater"
    ).pvalue
    assert stats.sign_flip_p(differences, n_perm=20000) == pytest.approx(scipy_p, abs=0.01)


def test_sign_flip_of_nothing_is_1_and_of_a_clear_difference_small() -> None:
    assert stats.sign_flip_p(np.zeros(20)) == 1
    assert stats.sign_flip_p(np.ones(20)) < 0.001
    assert stats.sign_flip_p(-np.ones(20)) == pytest.approx(1, abs=0.001)


def test_p_values_are_uniform_under_the_null() -> None:
    rng = np.random.default_rng(2)
    sign = [stats.sign_flip_p(rng.normal(size=30), n_perm=199, seed=i) for i in range(300)]
    assert kstest(sign, "uniform").pvalue > 0.01


def test_label_permutation_is_the_enumeration_of_all_pairings() -> None:
    read, true = np.array([0, 1, 2, 0, 1, 2, 3]), np.array([0, 1, 2, 1, 1, 0, 3])
    hits = np.array([np.sum(read == true[list(order)]) for order in permutations(range(7))])
    exact = (hits >= np.sum(read == true)).mean()
    assert stats.label_permutation_p(read, true, n_perm=20000) == pytest.approx(exact, abs=0.01)
    assert stats.label_permutation_p(np.zeros(7), true) == 1  # naming one class always cannot be significant
