"""Ranks in blocks against a float64 brute force that looks at one pair at a time."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from align.errors import UserError
from align.retrieval.ranks import similarity_rows, standing, unit_rows


def _brute(
    queries: np.ndarray, candidates: np.ndarray, target: np.ndarray, columns: np.ndarray | None = None
) -> tuple[list[int], list[int]]:
    """Better and equal counts from exact pairwise cosines; copies of a vector get the very same number."""
    columns = np.arange(len(candidates)) if columns is None else columns
    better, equal = [], []
    for query, own in zip(queries, target, strict=True):
        score = {int(j): _cosine(query, candidates[j]) for j in columns}
        others = [value for j, value in score.items() if j != own]
        better.append(sum(value > score[int(own)] for value in others))
        equal.append(sum(value == score[int(own)] for value in others))
    return better, equal


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    a, b = (x / (np.sqrt((x * x).sum()) or 1.0) for x in (a, b))
    return float((a * b).sum())


@pytest.mark.parametrize("width", [3, 16, 77])
@pytest.mark.parametrize("block_bytes", [1, 4000, 2**27])
def test_equal_to_brute_force_with_copies_and_near_ties(width: int, block_bytes: int) -> None:
    rng = np.random.default_rng(width)
    candidates = rng.normal(size=(60, width)).astype(np.float32)
    candidates[40:45] = candidates[7]  # copies tie
    candidates[50] = candidates[8]
    candidates[50, 0] += np.float32(1e-6)  # float32 products cannot tell these apart, float64 can
    target = np.concatenate([np.arange(12), [41]])
    queries = candidates[target] + rng.normal(size=(13, width)).astype(np.float32)
    found = standing(queries, candidates, target, block_bytes=block_bytes)
    assert [part.tolist() for part in found] == list(_brute(queries, candidates, target))
    assert found[1][7] == 5 and found[1][12] == 5
    backwards = standing(candidates[target[:12]], queries[:12], np.arange(12), block_bytes=block_bytes)
    assert [part.tolist() for part in backwards] == list(_brute(candidates[:12], queries[:12], np.arange(12)))


def test_near_ties_are_decided_in_double_precision() -> None:
    """All candidates lie within 1e-6 of each other: float32 alone would give an arbitrary order."""
    rng = np.random.default_rng(0)
    centre = rng.normal(size=64)
    candidates = centre + 1e-5 * rng.normal(size=(200, 64))
    queries = centre + 0.1 * rng.normal(size=(5, 64))
    target = np.arange(5)
    cosine = (queries / np.linalg.norm(queries, axis=1)[:, None]) @ (
        candidates / np.linalg.norm(candidates, axis=1)[:, None]
    ).T
    single = cosine.astype(np.float32)
    exact = (cosine > cosine[target, target][:, None]).sum(axis=1)
    assert ((single > single[target, target][:, None]).sum(axis=1) != exact).any()
    better, _ = standing(queries, candidates, target)
    assert better.tolist() == exact.tolist()


def test_a_silent_query_ties_and_scaled_copies_count_as_copies() -> None:
    candidates = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    queries = np.array([[0.0, 0.0], [3.0, 0.0], [1.0, 1.0]])
    better, equal = standing(queries, candidates, np.array([0, 0, 3]))
    assert better.tolist() == [0, 0, 3]
    assert equal.tolist() == [3, 1, 0]


def test_a_contest_among_some_columns() -> None:
    rng = np.random.default_rng(2)
    candidates, columns = rng.normal(size=(30, 5)), np.array([29, 3, 0, 1, 2, 17, 11])
    queries, target = rng.normal(size=(4, 5)), np.array([0, 1, 2, 17])
    found = standing(queries, candidates, target, columns=columns, block_bytes=100)
    assert [part.tolist() for part in found] == list(_brute(queries, candidates, target, columns))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
def test_any_number_type(dtype: type) -> None:
    rng = np.random.default_rng(3)
    candidates: np.ndarray = (20 * rng.normal(size=(40, 9))).astype(dtype)
    queries: np.ndarray = (20 * rng.normal(size=(6, 9))).astype(dtype)
    found = standing(queries, candidates, np.arange(6))
    assert [part.tolist() for part in found] == list(_brute(queries, candidates, np.arange(6)))


def test_a_row_has_one_length_alone_or_in_company() -> None:
    """Whatever the layout of the array; else copies of a picture would not tie."""
    x = np.asfortranarray(np.random.default_rng(6).normal(size=(60, 77)))
    np.testing.assert_array_equal(unit_rows(x, "x"), np.concatenate([unit_rows(x[i : i + 1], "x") for i in range(60)]))


def test_rows_are_cosines() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(7, 5)).astype(np.float32), rng.normal(size=(9, 5))
    whole = np.concatenate([block for _, block in similarity_rows(a, b, block_bytes=300)])
    np.testing.assert_allclose(whole, [[_cosine(x, y) for y in b] for x in a], atol=1e-12)


def test_memory_follows_the_block_and_not_the_matrix() -> None:
    rng = np.random.default_rng(5)
    queries, candidates = rng.normal(size=(400, 8)), rng.normal(size=(30_000, 8))
    tracemalloc.start()
    try:
        standing(queries, candidates, np.arange(400), block_bytes=2**18)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * 2**18 < 400 * 30_000 * 4 / 10


def test_bad_input_is_one_clear_line() -> None:
    good = np.ones((3, 4))
    broken = good.copy()
    broken[1, 2] = np.nan
    with pytest.raises(UserError, match="candidates hold NaN or infinite values, first in row 1"):
        standing(good, broken, np.zeros(3, dtype=int))
    with pytest.raises(UserError, match="queries hold NaN or infinite values, first in row 1"):
        standing(broken, good, np.zeros(3, dtype=int))
    with pytest.raises(UserError, match=r"\(n, E\)"):
        standing(good, np.ones((3, 5)), np.zeros(3, dtype=int))
    with pytest.raises(UserError, match="target index 3 is outside the 3"):
        standing(good, good, np.array([0, 1, 3]))
    with pytest.raises(UserError, match="one target each"):
        standing(good, good, np.array([0, 1]))
