"""Files of another kind than wanted, subjects that are not named, sessions of one person that do not fit together."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest

from align.data.importing.mne_files import say_left_out
from tests.align.fixture_import import imported, write_pictures
from tests.align.test_import_bids import WINDOW, write_events
from tests.align.test_import_epochs import metadata, write_epochs
from tests.one_line import fails

# MNE 1.13 reads metadata in a way that pandas 3.1 warns of
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.set_index:DeprecationWarning")


def info(channels: int = 4) -> Any:
    return mne.create_info([f"E{i}" for i in range(channels)], 100.0, "eeg")


def raw(path: Path) -> Path:
    mne.io.RawArray(np.random.default_rng(0).normal(size=(4, 500)), info(), verbose="error").save(path, verbose="error")
    return path


def evoked(path: Path) -> Path:
    one = mne.EvokedArray(np.random.default_rng(0).normal(size=(4, 50)), info(), verbose="error")
    mne.write_evokeds(path, [one], verbose="error")
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "images", ["a.png", "b.png"])


def test_epochs_are_wanted(tmp_path: Path, images: Path) -> None:
    def run(path: Path) -> Any:
        return lambda: imported("--epochs", path, "--images", images, "--out", tmp_path / "out")

    words = "is a raw recording, but epochs are wanted here; cut it with mne.Epochs, .*column image.*split.*--bids"
    fails(words, run(raw(tmp_path / "one_raw.fif")))
    fails("is averages of epochs .evoked., but epochs are wanted", run(evoked(tmp_path / "one-ave.fif")))


def test_a_raw_recording_is_wanted(tmp_path: Path, images: Path) -> None:
    def run(kind: str) -> Any:
        return lambda: imported("--bids", tmp_path / kind, "--images", images, "--out", tmp_path / "out", *WINDOW)

    for kind in ("epochs", "evoked"):
        stem = tmp_path / kind / "sub-01/meg/sub-01_task-view"
        stem.parent.mkdir(parents=True)
        write_events(stem)
        path = stem.with_name(f"{stem.name}_meg.fif")
        if kind == "evoked":
            evoked(path)
        else:
            write_epochs(path, metadata())
    fails("is epochs, but a raw recording is wanted here; give it to --epochs", run("epochs"))
    fails("is averages of epochs .evoked., but a raw recording is wanted", run("evoked"))
    one = raw(tmp_path / "one_raw.fif")
    fails("is a file; give --bids the folder", lambda: imported("--bids", one, "--out", tmp_path / "out"))


def test_bids_without_a_subject_names_those_that_are_there(tmp_path: Path) -> None:
    for label in ("ann", "bob"):
        (tmp_path / "root" / f"sub-{label}").mkdir(parents=True)
    run = lambda *words: lambda: imported("--bids", tmp_path / "root", "--out", tmp_path / "out", *words)  # noqa: E731
    fails("holds no folder sub-01; name who is there: --subject ann bob$", run())
    fails("holds no folder sub-Ann; did you mean --subject ann[?]$", run("--subject", "Ann"))
    fails("nor of another subject", lambda: imported("--bids", tmp_path / "images", "--out", tmp_path / "out"))


def session(path: Path, rate: float, samples: int, tmin: float) -> Path:
    frame = metadata()
    x = np.random.default_rng(samples).normal(size=(len(frame), 4, samples))
    made = mne.create_info([f"E{i}" for i in range(4)], rate, "eeg")
    mne.EpochsArray(x, made, tmin=tmin, metadata=frame, verbose="error").save(path, verbose="error")
    return path


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ((200, 40, -0.2), "of one person .ann. and have 250 and 200 Hz; bring them to one rate .*resample.250"),
        ((250, 60, -0.2), "windows: 50 samples, -0.2 to -0.004 s .*, and 60 samples, -0.2 to 0.036 s .*tmin and tmax"),
        ((250, 50, 0.0), "windows: 50 samples, -0.2 to -0.004 s .*, and 50 samples, 0 to 0.196 s .*tmin and tmax"),
    ],
)
def test_sessions_of_one_person(other: tuple[float, int, float], told: str, tmp_path: Path) -> None:
    names = list(dict.fromkeys(metadata()["image"].dropna()))
    images = write_pictures(tmp_path / "images", names)
    files = [session(tmp_path / "1-epo.fif", 250, 50, -0.2), session(tmp_path / "2-epo.fif", *other)]
    start = ("--images", images, "--subject", "ann", "--split-column", "split", "--out", tmp_path / "out")
    fails(told, lambda: imported("--epochs", *files, *start))
    imported("--epochs", files[0], *start)
    fails(told, lambda: imported("--epochs", files[1], *start, "--append"))


def test_one_channel_is_no_channels(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="align"):
        say_left_out(["STI 014 (stim)"], "a")
        say_left_out(["STI 014 (stim)", "EOG (eog)"], "b")
    assert "a: left out 1 channel: STI" in caplog.text and "b: left out 2 channels: STI" in caplog.text
