"""Training pictures that stand in for the test pictures: whole groups, no test row, the same from any kind of file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from align.checkpoint import find_run
from align.config import Config, load_config
from align.data import held_out
from align.data.held_out import hold_out
from align.data.signals import Recording, Stimuli, Trials
from align.data.studies import open_study
from align.errors import UserError
from align.train import train
from tests.align.fixture_studies import write_folder
from tests.one_line import fails

N, N_TEST, REPETITIONS = 12, 3, 2  # training pictures, in pairs of one group


def recording(x: np.ndarray | None = None) -> Recording:
    stimulus = np.tile(np.arange(N), REPETITIONS)
    x = np.arange(len(stimulus) * 4, dtype=np.float32).reshape(-1, 4) if x is None else x
    train = Trials(x, stimulus, np.repeat(np.arange(REPETITIONS), N), np.array(["a", "b"])[stimulus % 2])
    test = Trials(np.full((N_TEST, 4), np.nan), np.arange(N, N + N_TEST), np.zeros(N_TEST, dtype=np.int64))
    names = tuple(f"p{i}" for i in range(N + N_TEST))
    blank = ("",) * len(names)
    groups = np.concatenate([np.arange(N) // 2, 100 + np.arange(N_TEST)])
    stimuli = Stimuli(names, lambda i: np.full((4, 4, 3), i, dtype=np.uint8), groups, blank, blank)
    return Recording("study", "01", train, test, stimuli)


@pytest.mark.parametrize("seed", range(4))
def test_whole_groups_leave_training_and_are_the_test(tmp_path: Path, seed: int) -> None:
    whole = recording()
    part = hold_out(whole, 5, seed, tmp_path)
    out, kept = np.unique(part.test.stimulus), np.unique(part.train.stimulus)
    assert len(out) == 4 and sorted([*out, *kept]) == list(range(N))
    assert not set(whole.stimuli.groups[out]) & set(whole.stimuli.groups[kept])
    for trials in (part.train, part.test):
        rows = [int(x[0]) // 4 for x in trials.x]
        assert np.isfinite(trials.x).all() and rows == sorted(rows)
        np.testing.assert_array_equal(trials.stimulus, whole.train.stimulus[rows])
        np.testing.assert_array_equal(trials.session, np.asarray(whole.train.session)[rows])
        np.testing.assert_array_equal(trials.repetition, whole.train.repetition[rows])
    np.testing.assert_array_equal(hold_out(whole, 5, seed, tmp_path).test.stimulus, part.test.stimulus)
    assert "4 of 12 training pictures held out" in part.log[-1] and part.stimuli is whole.stimuli


def test_another_seed_holds_out_others(tmp_path: Path) -> None:
    assert len({tuple(hold_out(recording(), 4, seed, tmp_path).test.stimulus) for seed in range(6)}) > 2


def test_rows_too_large_for_memory_stay_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", recording().train.x)
    mapped = recording(np.load(tmp_path / "x.npy", mmap_mode="r"))
    monkeypatch.setattr(held_out, "fits", lambda nbytes: False)
    part, plain = hold_out(mapped, 4, 0, tmp_path / "cache"), hold_out(recording(), 4, 0, tmp_path)
    for split in ("train", "test"):
        found, expected = getattr(part, split), getattr(plain, split)
        assert isinstance(found.x, np.memmap)
        np.testing.assert_array_equal(found.x, expected.x)
        np.testing.assert_array_equal(found.stimulus, expected.stimulus)
        np.testing.assert_array_equal(found.session, expected.session)
    assert len(list((tmp_path / "cache" / "signals").glob("held-out-*.npy"))) == 2


def test_what_cannot_be_held_out_is_one_line(tmp_path: Path) -> None:
    fails("12 training pictures; hold out 6 of them or fewer, not 7", lambda: hold_out(recording(), 7, 0, tmp_path))
    whole = recording()
    two = replace(whole, stimuli=replace(whole.stimuli, groups=np.arange(N + N_TEST) // 6))
    fails("smallest of 2 groups has 6 pictures", lambda: hold_out(two, 5, 0, tmp_path))


def test_a_study_hands_over_the_part_and_no_command_takes_its_run(tmp_path: Path) -> None:
    rows = [
        {
            "row": i,
            "image": f"pic{i:03d}.png",
            "split": "train" if i < 14 else "test",
            "subject": "01",
            "concept": f"c{i}",
        }
        for i in range(17)
    ]
    signals = np.random.default_rng(0).normal(size=(17, 8)).astype(np.float32)
    write_folder(tmp_path / "study", signals, rows)
    pairs = ["study.name=folder", f"study.root={tmp_path / 'study'}", f"cache_dir={tmp_path / 'cache'}"]
    config = load_config(Config, None, [*pairs, "study.held_out=2", "study.held_out_seed=1"])
    subject = open_study(config).subjects[0]
    whole = open_study(load_config(Config, None, pairs)).recording(subject)
    part = open_study(config).recording(subject)
    assert set(part.test.stimulus) < set(whole.train.stimulus)
    assert not set(part.test.stimulus) & {*part.train.stimulus, *whole.test.stimulus}
    config.subjects, config.run_dir = [subject], str(tmp_path / "runs" / "inner")
    config.encoder.name, config.target.components = "ridge", 2
    train(config, progress=False)
    with pytest.raises(UserError, match="no run of subject"):
        find_run(subject, tmp_path)
