"""Training on signals that stay in their files: the same numbers as in memory, whatever the parts."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from align.config import Config, load_config
from align.data import rows, signals
from align.data.rows import Rows
from align.errors import UserError
from align.model import principal
from align.model.spaces import SignalSpace, TargetSpace
from align.training import batches
from align.training.batches import Ahead, Batch, Pairs, StreamedSignals
from align.training.fit import fit
from tests.one_line import fails

N, SHAPE = 150, (4, 6)


def mapped(path: Path, x: np.ndarray) -> np.ndarray:
    np.save(path, x)
    return np.load(path, mmap_mode="r")


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is small enough to be held, and pieces are of a few rows."""
    monkeypatch.setattr(signals, "HELD", 0)
    monkeypatch.setattr(rows, "_PIECE", 4 * 24 * 7)


@pytest.fixture
def data(tmp_path: Path) -> tuple[np.ndarray, np.ndarray, Rows]:
    """Signals (150, 4, 6), tokens (150, 3, 5), and the same signals as rows of two files of different types."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(N, 6))
    x = (3 + hidden @ rng.normal(size=(6, 24)) + rng.normal(size=(N, 24))).reshape(N, *SHAPE).astype(np.float32)
    tokens = (hidden @ rng.normal(size=(6, 15)) + 0.2 * rng.normal(size=(N, 15))).reshape(N, 3, 5).astype(np.float16)
    first = mapped(tmp_path / "a.npy", x[:70].astype(">f8"))
    second = mapped(tmp_path / "b.npy", x[:69:-1])  # the rest, last row first
    return x, tokens, Rows([(first, np.arange(70)), (second, np.arange(80)[::-1])])


def test_rows_of_several_files_are_one_list(data: tuple[np.ndarray, np.ndarray, Rows], streamed: None) -> None:
    x, _, parts = data
    assert len(parts) == N and parts.shape == SHAPE and parts.nbytes == x.nbytes and not parts.in_memory
    order = np.random.default_rng(1).permutation(N)[:40]
    np.testing.assert_array_equal(parts.take(order), x[order])
    np.testing.assert_array_equal(parts.subset(order).take(np.array([3, 3, 0])), x[order[[3, 3, 0]]])
    pieces = list(parts.pieces())
    assert [len(piece) for piece in pieces] == [7] * 21 + [3], "seven rows fill a piece"
    np.testing.assert_array_equal(torch.cat(pieces), x)
    assert len({parts.digest(), parts.subset(order).digest(), Rows.of(x).digest()}) == 3
    assert list(Rows.of(x[:0]).pieces()) == []
    with pytest.raises(ValueError, match="several shapes"):
        Rows([(x, np.arange(2)), (x[:, 0], np.arange(2))])


def test_statistics_in_pieces_are_those_of_all_rows(
    data: tuple[np.ndarray, np.ndarray, Rows], streamed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, tokens, parts = data
    mean, spread = principal.moments(parts, "signals")
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(0), rtol=1e-6)
    np.testing.assert_allclose(spread, x.astype(np.float64).std(0), rtol=1e-6)
    flat = tokens.astype(np.float64).reshape(N, 15)
    reference = PCA(5, svd_solver="full").fit((flat - flat.mean(0)) / flat.std(0))
    for exact in (4000, 3):  # 3: by subspace iteration
        monkeypatch.setattr(principal, "_EXACT", exact)
        space = TargetSpace.fit(tokens, 5)
        np.testing.assert_allclose(np.abs(space.basis.numpy() @ reference.components_.T), np.eye(5), atol=2e-3)
        scores = (flat - flat.mean(0)) / flat.std(0) @ space.basis.numpy().T
        np.testing.assert_allclose((space.encode_all(Rows.of(tokens)) * space.unit).numpy(), scores, atol=2e-3)
    assert SignalSpace.fit(parts, project=True).basis is None, "no projection on all that the rows span"
    assert SignalSpace.fit(parts, 5, project=True).out_shape == (5,)


def test_units_do_not_matter() -> None:
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    x[:, 2] = 7.0
    volts, tesla = SignalSpace.fit(x), SignalSpace.fit(x * np.float32(1e-13))
    np.testing.assert_allclose(tesla.scale[:2] * 1e13, volts.scale[:2], rtol=1e-5)
    assert volts.scale[2] == tesla.scale[2] == 1, "constant"


@pytest.mark.parametrize(
    "recipe",
    [[], ["encoder.components=8"], ["encoder.name=tsconv", "encoder.kernel=2", "encoder.pool=2", "encoder.stride=1"]],
    ids=["mlp", "mlp on components", "tsconv"],
)
def test_a_streamed_fit_ends_where_a_held_one_does(
    data: tuple[np.ndarray, np.ndarray, Rows], recipe: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, tokens, parts = data
    small = ["target.components=6", "encoder.width=16", "encoder.filters=4", "train.epochs=4", "train.batch_size=30"]
    config = load_config(Config, None, [*small, *recipe])
    picture = np.arange(N) // 2
    held = fit(config, x, tokens[:75], picture)
    monkeypatch.setattr(signals, "HELD", 0)
    monkeypatch.setattr(rows, "_PIECE", 4 * 24 * 7)
    taken: list[int] = []
    take = StreamedSignals.take
    monkeypatch.setattr(
        StreamedSignals,
        "take",
        lambda self, index: taken.append(len(index)) or take(self, index),  # type: ignore
    )
    streamed = fit(config, parts, tokens[:75], picture)
    # 4 epochs of 4 batches of the 120 rows outside a fold, the 30 rows of that fold, 4 epochs of 5 batches of all rows
    assert sorted(taken) == [30] * (16 + 1 + 20), "every batch was read when it was needed"
    ours, theirs = streamed.predict(x), held.predict(x)
    for name in ("embeds", "tokens"):
        scale = np.abs(theirs[name]).max()
        np.testing.assert_allclose(
            ours[name] / scale, theirs[name] / scale, atol=2e-2
        )  # rounding, which training amplifies


def test_what_cannot_be_streamed_and_what_is_not_finite(
    data: tuple[np.ndarray, np.ndarray, Rows], streamed: None
) -> None:
    x, tokens, parts = data
    config = load_config(Config, None, ["encoder.name=ridge", "target.components=4"])
    assert "encoder.components=1000" in fails("holds all signals", lambda: fit(config, parts, tokens, np.arange(N)))
    x[-1, 0, 0] = np.nan
    fails("signals hold values that are not finite", lambda: fit(config, x, tokens, np.arange(N)))


def test_the_next_batch_is_read_while_the_last_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Batch(torch.zeros(1), torch.zeros(1), torch.zeros(1))
    threads: list[str] = []
    made = [threading.Event() for _ in range(9)]
    looks = itertools.count()
    monkeypatch.setattr(batches, "time", SimpleNamespace(monotonic=lambda: 10.0 * next(looks)))

    def make(step: int) -> Batch:
        threads.append(threading.current_thread().name)
        made[step].set()
        return batch

    reader = Ahead(make, range(3, 8), ahead=True)
    for step, item in zip(range(3, 8), reader, strict=True):
        assert item is batch
        assert step == 7 or made[step + 1].wait(60), "the next one is made while this one is in use"
        assert not made[min(step + 2, 8)].is_set(), "and no more than one"
    assert all(name.startswith("reader") for name in threads) and len(threads) == 5
    assert reader.waited == 5 * 10, "from before to after each of the five"
    assert list(Ahead(make, range(2), ahead=False)) == [batch, batch] and "reader" not in threads[-1]
    assert list(Ahead(make, range(4, 4), ahead=True)) == []


def test_an_error_of_the_reader_reaches_the_loop(data: tuple[np.ndarray, np.ndarray, Rows]) -> None:
    def broken(step: int) -> Batch:
        raise UserError("the disk is gone")

    fails("the disk is gone", lambda: list(Ahead(broken, range(3), ahead=True)))


def test_pairs_read_nothing_until_asked(data: tuple[np.ndarray, np.ndarray, Rows]) -> None:
    x, _, parts = data
    space = SignalSpace.fit(parts)
    components, stimulus = torch.arange(75.0)[:, None], torch.arange(N) // 2
    pairs = Pairs(StreamedSignals(parts, space), components, stimulus).subset(np.array([9, 140, 5]))
    assert isinstance(pairs.signals, StreamedSignals) and len(pairs) == 3
    batch = pairs.batch(np.array([2, 1]))
    np.testing.assert_allclose(batch.signals, (x[[5, 140]] - space.mean.numpy()) / space.scale.numpy(), rtol=1e-5)
    assert batch.components[:, 0].tolist() == batch.stimulus.tolist() == [2, 70]
