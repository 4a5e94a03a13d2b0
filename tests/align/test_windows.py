"""One recording counted as several: copies of rows and windows that share samples are found, noise never is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.config import Config, load_config
from align.data.check import check_study
from align.data.importing.layout import Shown, write_layout
from align.data.studies import open_study
from align.data.windows import repeated, shared_samples
from align.errors import UserError
from recon.audit.signals import shared_recordings
from tests.align.fixture_import import imported, write_pictures, write_table
from tests.align.fixture_studies import default_rows, picture, write_folder
from tests.one_line import fails

RNG = np.random.default_rng(0)
RAW = RNG.normal(size=(3, 400)).cumsum(axis=1)  # a recording: 3 channels
LABELS = ["a", "a", "b", "b"]


def windows(*starts: int, length: int = 40, baseline: bool = False) -> np.ndarray:
    x = np.stack([RAW[:, start : start + length] for start in starts])
    return (x - x[:, :, :5].mean(axis=2, keepdims=True)).astype(np.float32) if baseline else x


def with_copy(x: np.ndarray, row: int, first: int) -> np.ndarray:
    x = x.copy()
    x[row] = x[first]
    return x


def altered(how: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...] = (4, 40), base: float = 0) -> np.ndarray:
    x = RNG.normal(size=shape) + base * RNG.normal(size=shape[1:])
    return with_copy(x, 1, 0) if how is None else np.concatenate([x[:1], how(x[:1]), x[2:]])


FOUND: dict[str, np.ndarray] = {
    "an event listed twice": windows(0, 0, 100, 200),
    "the same, rows of betas": with_copy(RNG.normal(size=(4, 9)), 1, 0),
    "the same, half precision": with_copy(RNG.normal(size=(4, 9)).astype(np.float16), 1, 0),
    "counts of many units": with_copy(RNG.poisson(2, (4, 60)).astype(float), 1, 0),
    "one sample later": windows(0, 1, 100, 200),
    "half a window later": windows(0, 19, 100, 200),
    "earlier": windows(12, 0, 100, 200),
    "once through half precision": altered(lambda x: x.astype(np.float16)),
    "once as text": altered(lambda x: x.round(4), (4, 20)),
    "once in another unit": altered(lambda x: (x * 1e6).astype(np.float32), (4, 3, 40)),
    "once after a baseline": altered(lambda x: x - 0.7, (4, 3, 40)),
    "with offsets of the channels": altered(lambda x: x.astype(np.float32), (4, 100), base=100),
    "after a baseline": windows(0, 7, 100, 200, baseline=True),
}


@pytest.mark.parametrize("kind", FOUND)
def test_one_recording_is_found(kind: str) -> None:
    found = repeated(FOUND[kind], LABELS)
    assert found.pairs == [(1, 0)] and not found.strangers
    assert "1 of 4 trials" in found.said and "rows 1 = 0" in found.said


@pytest.mark.parametrize(
    "x",
    [
        RNG.normal(size=(4, 3, 40)),
        windows(0, 100, 200, 300),
        windows(0, 60, 30, 90),  # overlaps between pictures, as in rapid series
        np.ones((4, 3, 40)),
        RNG.poisson(0.2, (4, 3)).astype(float),  # few spikes of few units
        np.zeros((4, 5)),
        np.repeat(np.arange(4.0)[:, None], 5, axis=1),
        RNG.normal(size=(4, 2, 5)).round(1),
        RNG.normal(size=(4, 64, 1)) + 0 * RNG.normal(size=(4, 64, 20)) + 1e4 * RNG.normal(size=(1, 64, 1)),  # offsets
        RNG.normal(size=40) * 1e5 + RNG.normal(size=(4, 40)),  # what all trials share
        RNG.normal(size=(2, 1, 40)).repeat(2, 1).reshape(4, 40) + 0.05 * RNG.normal(size=(4, 40)),  # little noise
    ],
)
def test_noise_and_rapid_series_are_not(x: np.ndarray) -> None:
    assert not repeated(x, LABELS)


def test_the_same_numbers_under_two_pictures_are_told_apart() -> None:
    found = repeated(with_copy(RNG.normal(size=(4, 9)), 2, 0), LABELS)
    assert not found and found.strangers == [(2, 0)]


def test_a_mapped_file_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("align.data.windows._PIECE", 100)
    np.save(tmp_path / "x.npy", with_copy(RNG.normal(size=(4, 9)), 3, 2))
    assert repeated(np.load(tmp_path / "x.npy", mmap_mode="r"), LABELS).copies == [(3, 2)]


def embeddings(tmp_path: Path, x: np.ndarray) -> list[object]:
    np.save(tmp_path / "E.npy", x)
    images = write_pictures(tmp_path / "pictures", ["a.png", "b.png"])
    table = {"id": LABELS, "split": ["train", "train", "test", "test"]}
    ids = write_table(tmp_path / "ids.csv", table)
    return ["--embeddings", tmp_path / "E.npy", "--ids", ids, "--images", images, "--out", tmp_path / "out"]


@pytest.mark.parametrize("kind", FOUND)
def test_import_refuses_it_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    words = embeddings(tmp_path, FOUND[kind])
    fails("subject 01: 1 of 4 trials .* one recording counted as several", lambda: imported(*words))
    assert not (tmp_path / "out").exists()


def test_import_tells_of_other_pictures_and_passes_unused_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    x = RNG.normal(size=(3, 9))
    x[2] = x[0]
    images: dict[str, Any] = {"a.png": np.asarray(picture(1)), "b.png": np.asarray(picture(2))}
    trials = [Shown("a.png", "train", "01"), Shown("b.png", "test", "01"), Shown("b.png", "test", "01")]
    with caplog.at_level(logging.WARNING):
        write_layout(tmp_path / "one", x, trials, images)
    assert "1 trials hold the very numbers" in caplog.text
    x[2] = x[1]
    trials[2] = Shown("b.png", "unused", "01")
    write_layout(tmp_path / "two", x, trials, images)
    people = [*trials[:2], Shown("b.png", "test", "02"), Shown("a.png", "train", "02")]
    with pytest.raises(UserError, match="subject 02: all 2 trials hold the very numbers of trials of subject 01"):
        write_layout(tmp_path / "three", np.concatenate([x, x[:1]]), people, images)
    with caplog.at_level(logging.WARNING):
        write_layout(tmp_path / "four", np.concatenate([x, 2 * x[:1]]), people, images)
    assert "subject 02: 1 trials hold the very numbers of trials of subject 01" in caplog.text


def study_of(root: Path, x: np.ndarray) -> Any:
    write_folder(root, x)
    return open_study(load_config(Config, None, ["study.name=folder", f"study.root={root}"]))


def folder_signals(change: Callable[[np.ndarray], None]) -> np.ndarray:
    x = RNG.normal(size=(len(default_rows()), 4, 12)).astype(np.float32)
    change(x)
    return x


def test_check_and_whatever_reads_the_study_stop(tmp_path: Path) -> None:
    def twice(x: np.ndarray) -> None:
        x[-2] = x[-1]  # rows stand in reverse: lines 1 and 2, one picture of training

    study = study_of(tmp_path, folder_signals(twice))
    report = check_study(study)
    assert not report["usable"] and report["verdict"].count("one recording counted as several repetitions") == 1
    fails("folder subject 01: training: 1 of 12 trials .*rows 1 = 0", lambda: study.recording("01"))
    assert len(study.recording("08").train) == 12


def test_the_same_numbers_under_two_pictures_are_a_remark(tmp_path: Path) -> None:
    def strangers(x: np.ndarray) -> None:
        x[-3] = x[-1]

    study = study_of(tmp_path, folder_signals(strangers))
    assert any("very numbers of a trial of another picture" in text for text in check_study(study)["remarks"])
    assert any("very numbers" in line for line in study.recording("01").log)


@pytest.mark.parametrize("lag", [-30, -7, 0, 12, 32])
@pytest.mark.parametrize("baseline", [False, True])
def test_windows_of_training_and_test_that_share_samples_are_found(lag: int, baseline: bool) -> None:
    train, test = windows(100, 200, baseline=baseline), windows(300, 200 + lag, baseline=baseline)
    found = shared_samples(train, test)
    assert found.found == [(1, 1, 40 - abs(lag))] and (found.n, found.length) == (2, 40)


def test_windows_apart_share_nothing() -> None:
    for apart in (windows(0, 300), windows(60, 141), RNG.normal(size=(4, 3, 40)), np.zeros((4, 3, 40))):
        assert shared_samples(windows(100, 200), apart).found == []
    counts = RNG.integers(0, 3, (300, 3, 40)).astype(float)
    assert shared_samples(counts[:200], counts[200:]).found == []
    padded, before = RNG.normal(size=(2, 4, 3, 40))
    padded[:, :, :12] = before[:, :, -12:] = 0
    assert shared_samples(padded, before).found == []
    betas = RNG.normal(size=(4, 9))
    assert shared_samples(betas, betas).found == []


def test_audit_finds_copies_within_a_split() -> None:
    train, test = RNG.normal(size=(20, 9)), RNG.normal(size=(12, 9))
    assert shared_recordings(train, test).verdict == "clear"
    found = shared_recordings(train, with_copy(test, 3, 2))
    assert found.verdict == "suspect" and "1 test recordings" in found.evidence
    found = shared_recordings(with_copy(train, 3, 2), test)
    assert found.verdict == "suspect" and "1 training recordings" in found.evidence
    test[5] = train[0]
    assert shared_recordings(train, test).verdict == "leak"
