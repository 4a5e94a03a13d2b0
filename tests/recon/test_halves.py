"""Two signals of one picture with independent noise, from repetitions and from one row, and their null brains."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from align.data.signals import Recording, Stimuli, Trials
from recon.decoding.halves import MARGIN, AddedNoise, Repetitions, noise_like


def recording(x: np.ndarray, stimulus: np.ndarray) -> Recording:
    n = int(stimulus.max()) + 1
    names = tuple(f"p{i}" for i in range(n))
    stimuli = Stimuli(names, lambda i: np.zeros((4, 4, 3), np.uint8), np.arange(n), ("",) * n, ("",) * n)
    test = Trials(x, stimulus, np.zeros(len(x), dtype=np.int64))
    return Recording("made", "01", test, test, stimuli)


def splits(x: np.ndarray, half: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Sums of all pairs of disjoint halves."""
    rows = set(range(len(x)))
    return [
        (x[list(one)].sum(0), x[list(two)].sum(0))
        for one in combinations(rows, half)
        for two in combinations(rows - set(one), half)
    ]


def test_halves_are_means_of_disjoint_repetitions_drawn_at_random() -> None:
    rng = np.random.default_rng(0)
    x, stimulus = rng.normal(size=(20, 7)), np.tile(np.arange(4), 5)
    made = recording(x, stimulus)
    drawn = []
    for picture in range(4):
        own = splits(x[stimulus == picture], 2)
        a, b = Repetitions(made, seed=1).two(picture)
        apart = [max(np.abs(a - p / 2).max(), np.abs(b - q / 2).max()) for p, q in own]
        assert min(apart) < 1e-12
        null = Repetitions(made, seed=1).null(picture)
        assert min(np.abs(null - (p - q) / np.sqrt(8)).max() for p, q in own) < 1e-12
        drawn.append(int(np.argmin(apart)))
    assert len(set(drawn)) > 1
    assert not np.array_equal(Repetitions(made, 1).two(0), Repetitions(made, 2).two(0))
    assert np.array_equal(Repetitions(made, 1).two(0), Repetitions(made, 1).two(0))
    assert Repetitions(made, 0).left_out(np.array([0, 3])) == 2


@pytest.mark.parametrize("k", [2, 5, 20])
def test_noise_of_halves_is_independent_and_that_of_the_null_brain_as_large(k: int) -> None:
    rng = np.random.default_rng(k)
    response = 100 * rng.normal(size=20_000)
    source = Repetitions(recording(response + 3 * rng.normal(size=(k, 20_000)), np.zeros(k, dtype=int)), 0)
    a, b = source.two(0) - response
    null = source.null(0)
    expected = 3 / np.sqrt(k // 2)
    assert [a.std(), b.std(), null.std()] == pytest.approx([expected] * 3, rel=0.03)
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.03
    assert abs(np.corrcoef(null, response)[0, 1]) < 0.03


def test_what_is_added_to_one_row_leaves_the_two_no_noise_in_common() -> None:
    rng = np.random.default_rng(1)
    mixing, n = rng.normal(size=(3, 3)), 6000
    noise = rng.normal(size=(n, 3)) @ mixing
    left = np.sqrt(200) * np.linalg.qr(rng.normal(size=(200, 3)))[0] @ mixing  # of exactly that covariance
    source = AddedNoise(recording(noise, np.arange(n)), 0, left)
    a, b = np.stack([source.two(i) for i in range(n)], axis=1)
    whole, own = mixing.T @ mixing, np.diag(np.diag(mixing.T @ mixing))
    near = 0.06 * whole.max()
    np.testing.assert_allclose((a + b) / 2, noise, atol=1e-12)
    np.testing.assert_allclose(a.T @ b / n, -MARGIN * own, atol=near)
    np.testing.assert_allclose(a.T @ a / n, 2 * whole + MARGIN * own, atol=2 * near)
    null = np.stack([source.null(i) for i in range(n)])
    np.testing.assert_allclose(null.T @ null / n, 2 * whole + 2 * MARGIN * own, atol=2 * near)
    assert np.abs(null.T @ (a - b) / n).max() < 5 * near and source.left_out(np.arange(n)) == 0


def test_a_mean_of_repetitions_gets_less_noise() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(5, 4000))
    source = AddedNoise(recording(x, np.array([0, 1, 1, 1, 1])), 0, rng.normal(size=(50, 4000)))
    one, four = ((a - b).std() / 2 for a, b in (source.two(0), source.two(1)))
    assert (one, four) == (pytest.approx(np.sqrt(1 + MARGIN), rel=0.2), pytest.approx(one / 2, rel=0.2))
    np.testing.assert_allclose(source.two(1).mean(0), x[1:].mean(0), atol=1e-12)


def test_drawn_noise_has_the_covariance_and_more_of_its_diagonal() -> None:
    rng = np.random.default_rng(1)
    left = rng.normal(size=(9, 3)) @ rng.normal(size=(3, 3))
    drawn = np.stack([noise_like(left, rng) for _ in range(20_000)])
    whole = left.T @ left / 9
    np.testing.assert_allclose(
        drawn.T @ drawn / len(drawn), whole + 0.5 * np.diag(np.diag(whole)), atol=0.04 * whole.max()
    )
