"""`recon data import --arrays`: a numpy array of trials and a table, with rate, first sample and names of channels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.align.fixture_import import imported, read_folder, shown, write_pictures, write_table
from tests.one_line import fails

NAMES = ["a.png", "b.png", "c.png", "d.png"]
TIMES = ["--sfreq", 100, "--tmin", -0.2]


@pytest.fixture
def words(tmp_path: Path) -> list[object]:
    """A complete import without --out and without times."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(4, 3, 20)))
    events = write_table(tmp_path / "events.csv", {"image": NAMES, "split": ["train", "train", "train", "test"]})
    return ["--arrays", tmp_path / "x.npy", "--events", events, "--images", write_pictures(tmp_path / "p", NAMES)]


def test_trials_with_what_is_known_of_them(words: list[object], tmp_path: Path) -> None:
    imported(*words, *TIMES, "--channels", "Fz, Cz,Oz", "--out", tmp_path / "my01")
    recording = read_folder(tmp_path / "my01")
    x = np.load(tmp_path / "x.npy").astype(np.float32)
    assert np.array_equal(recording.train.x, x[:3]) and np.array_equal(recording.test.x, x[3:])
    assert (recording.ch_names, recording.sfreq, recording.tmin) == (("Fz", "Cz", "Oz"), 100.0, -0.2)
    assert shown(recording, "train") == NAMES[:3] and shown(recording, "test") == NAMES[3:]


def test_times_and_names_that_do_not_fit(words: list[object], tmp_path: Path) -> None:
    out = ["--out", tmp_path / "out"]
    fails("holds 3 channels x 20 samples; give --sfreq HZ and --tmin S", lambda: imported(*words, *out))
    fails("give --sfreq HZ and --tmin S", lambda: imported(*words, *out, "--sfreq", 100))
    fails("--sfreq 0 is not a rate", lambda: imported(*words, *out, "--sfreq", 0, "--tmin", 0))
    fails("names 2 channels, .* has 3", lambda: imported(*words, *out, *TIMES, "--channels", "a,b"))
    fails("names 'a' twice", lambda: imported(*words, *out, *TIMES, "--channels", "a,b,a"))
    fails("--arrays needs --events too", lambda: imported(*words[:2], *words[4:], *out, *TIMES))
    fails("--arrays does not use --tmax", lambda: imported(*words, *out, *TIMES, "--tmax", 1))
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(4, 30)))
    fails("no time; leave out --sfreq and --tmin", lambda: imported(*words, *out, *TIMES))
    assert not (tmp_path / "out").exists()
    assert imported(*words, *out)["shape"] == [4, 30]


def test_append_to_a_folder_with_the_same_facts(words: list[object], tmp_path: Path) -> None:
    out = ["--out", tmp_path / "out"]
    imported(*words, *TIMES, "--channels", "a,b,c", *out)
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(4, 3, 20)))
    again = [*words, *out, "--subject", "02", "--append", "--channels"]
    fails("differ in ch_names: the same channels .*2 of 3 places", lambda: imported(*again, "a,c,b", *TIMES))
    fails("differ in sfreq", lambda: imported(*again, "a,b,c", "--sfreq", 50, "--tmin", -0.2))
    assert imported(*again, "a,b,c", *TIMES)["subject"] == "01, 02"


def test_a_folder_without_tmin_begins_at_0(words: list[object], tmp_path: Path) -> None:
    out = ["--out", tmp_path / "out"]
    imported(*words, "--sfreq", 100, "--tmin", 0, *out)
    (tmp_path / "out" / "info.json").write_text(json.dumps({"sfreq": 100.0}))
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(4, 3, 20)))
    found = imported(*words, "--sfreq", 100, "--tmin", 0, "--subject", "02", "--append", *out)
    assert found["subject"] == "01, 02"
