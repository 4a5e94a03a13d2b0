"""`align.data.mark`: the same signals are known again, others are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from align.data.mark import signals_mark
from align.data.signals import Trials

N, REPEATS, SHAPE = 90, 3, (7, 11)


def _trials(seed: int = 0, offset: float = 0.0) -> Trials:
    rng = np.random.default_rng(seed)
    x = rng.normal(offset, 1, size=(N * REPEATS, *SHAPE)).astype(np.float32)
    return Trials(x, np.repeat(np.arange(N), REPEATS), np.tile(np.arange(REPEATS), N))


def test_a_path_an_order_of_trials_and_rounding_leave_the_mark(tmp_path: Path) -> None:
    own = _trials()
    mark = signals_mark(own)
    assert len(mark) == 16
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, own.x)
        mapped = np.load(tmp_path / name, mmap_mode="r")
        assert signals_mark(Trials(mapped, own.stimulus, own.repetition)) == mark
    assert signals_mark(own.take(np.random.default_rng(1).permutation(len(own)))) == mark
    noise = 1 + 1e-7 * np.random.default_rng(2).normal(size=own.x.shape)
    assert signals_mark(Trials(own.x * noise, own.stimulus, own.repetition)) == mark
    assert signals_mark(Trials(own.x.astype(np.float64), own.stimulus, own.repetition)) == mark


def test_other_signals_have_other_marks() -> None:
    own = _trials()
    flat = own.x.copy()
    flat[::9] = 0
    standardised = own.x / own.x.std(axis=0)
    others = [
        _trials(1).x,
        _trials(0, 0.5).x,
        own.x[:, ::-1],
        own.x * 1e6,
        -own.x,
        flat,
        standardised * np.random.default_rng(3).choice([-1, 1], SHAPE),
        own.x[::-1],
    ]
    marks = [signals_mark(Trials(np.ascontiguousarray(x), own.stimulus, own.repetition)) for x in (own.x, *others)]
    assert len(set(marks)) == len(marks)
    fewer = own.take(np.flatnonzero(own.stimulus < N - 1))
    assert signals_mark(fewer) != marks[0]


def test_nothing_and_zeros() -> None:
    own = _trials()
    assert signals_mark(own.take(np.zeros(0, np.int64))) == ""
    assert len(signals_mark(Trials(own.x * 0, own.stimulus, own.repetition))) == 16
