"""Trials: averaging of repetitions over arrays in memory and over mapped files."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from align.data.signals import Trials, mapped_file, release


def mapped(path: Path, x: np.ndarray) -> np.ndarray:
    np.save(path, x)
    return np.load(path, mmap_mode="r")


def brute_force(x: np.ndarray, stimulus: np.ndarray) -> np.ndarray:
    """One row per stimulus in rising order, every value summed by Python."""
    rows = []
    for name in sorted({int(i) for i in stimulus}):
        shown = [x[k].astype(np.float64) for k in range(len(x)) if stimulus[k] == name]
        rows.append(sum(shown) / len(shown))
    return np.stack(rows)


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", ">f4", "i2"])
@pytest.mark.parametrize("shape", [(3, 4), (5,)])
def test_averaged_is_the_mean_over_repetitions(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(11, *shape)) * 100).astype(dtype)
    stimulus = np.array([7, 2, 7, 9, 2, 2, 7, 4, 9, 7, 7])  # unequal counts, out of order
    for signals in (x, mapped(tmp_path / "x.npy", x)):
        averaged = Trials(signals, stimulus, np.arange(11), session=np.arange(11) % 2).averaged()
        assert averaged.x.dtype == np.float32
        assert averaged.stimulus.tolist() == [2, 4, 7, 9]
        assert averaged.repetition.tolist() == [0, 0, 0, 0]
        assert averaged.session is None, "a mean over sessions belongs to none"
        np.testing.assert_allclose(averaged.x, brute_force(x, stimulus), rtol=1e-6, atol=1e-6)


def test_averages_of_large_values_keep_their_digits() -> None:
    x = np.random.default_rng(0).uniform(1e5, 2e5, size=(80, 4, 5))  # an offset, as unfiltered EEG has
    averaged = Trials(x, np.zeros(80, dtype=np.int64), np.arange(80)).averaged()
    assert (averaged.x[0] == x.mean(axis=0).astype(np.float32)).all()


def test_single_repetitions_are_left_alone_or_sorted(tmp_path: Path) -> None:
    x = mapped(tmp_path / "x.npy", np.arange(12.0).reshape(4, 3))
    trials = Trials(x, np.array([1, 3, 5, 6]), np.array([2, 0, 1, 0]), np.array([0, 0, 1, 1]))
    assert trials.averaged() is trials, "nothing is read"
    mixed = Trials(x, np.array([5, 1, 6, 3]), np.array([2, 0, 1, 0]), np.array([0, 0, 1, 1])).averaged()
    assert mixed.stimulus.tolist() == [1, 3, 5, 6]
    assert mixed.x.tolist() == x[[1, 3, 0, 2]].tolist()
    assert mixed.repetition.tolist() == [0, 0, 2, 1]
    assert mixed.session.tolist() == [0, 1, 0, 1]


def test_averaging_a_mapped_file_holds_only_the_result(tmp_path: Path) -> None:
    peaks = []
    for n in (250, 1000):
        x = mapped(tmp_path / f"{n}.npy", np.zeros((n * 8, 17, 50)))
        trials = Trials(x, np.repeat(np.arange(n), 8), np.tile(np.arange(8), n))
        tracemalloc.start()
        result = trials.averaged().x.nbytes
        peaks.append(tracemalloc.get_traced_memory()[1] - result)
        tracemalloc.stop()
    assert peaks[1] < 1_000_000, "the file is 54 MB"
    assert peaks[1] - peaks[0] < 8 * 64_000, "a few integers per trial"


class Counted:
    """A mapped array that notes which rows are read, call by call."""

    def __init__(self, x: np.ndarray) -> None:
        self.x, self.shape, self.read = x, x.shape, []

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.read.append(np.array(rows))
        return self.x[rows]


def test_averaging_reads_every_row_of_a_file_once(tmp_path: Path) -> None:
    n = 400
    x = Counted(mapped(tmp_path / "x.npy", np.ones((n * 4, 17, 10), dtype=np.float32)))
    order = np.random.default_rng(0).permutation(n * 4)
    trials = Trials(x, np.tile(np.arange(n), 4)[order], np.zeros(n * 4, dtype=np.int64))
    assert (trials.averaged().x == 1).all()
    assert len(x.read) == n, "one call a picture, whatever the number of trials"
    np.testing.assert_array_equal(np.sort(np.concatenate(x.read)), np.arange(n * 4))


def test_released_maps_stay_valid(tmp_path: Path) -> None:
    values = np.arange(6.0e5).reshape(100, -1)
    x = mapped(tmp_path / "x.npy", values)
    for view in (x, x[3:], x.reshape(50, 2, -1), np.asarray(x), x.T):
        assert Path(mapped_file(view).filename) == tmp_path / "x.npy"
        release(view)
    assert mapped_file(x[[1, 2]]) is None, "a copy in memory"
    assert (x == values).all()
    changed = np.load(tmp_path / "x.npy", mmap_mode="c")
    changed[0, 0] = 7
    release(changed)
    assert changed[0, 0] == 7, "private changes survive"
    release(values)
    assert values[-1, -1] == 6.0e5 - 1
