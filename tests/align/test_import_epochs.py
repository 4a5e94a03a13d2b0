"""MNE epochs, as `mne.Epochs.save` writes them, to the `folder` layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mne
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from align.data.importing import layout
from tests.align.fixture_import import imported, read_folder, shown, survives, write_pictures
from tests.one_line import fails

# MNE 1.13 reads metadata in a way that pandas 3.1 warns of
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.set_index:DeprecationWarning")

NAMES = ["a.png", "b.png", "c.png", "d.png"]
ORDER = ["c.png", "a.png", "d.png", "a.png", "b.png", "d.png", "c.png"]  # trial by trial; d is the test
CHANNELS = {"Fz": "eeg", "EOG1": "eog", "Oz": "eeg", "T7": "eeg", "MEG1": "mag", "STI": "stim"}
KEPT = ["Fz", "Oz", "MEG1"]  # T7 is marked bad
T = 7


def metadata(**changes: Any) -> pd.DataFrame:
    held_out = [name == "d.png" for name in ORDER]
    split = ["test" if held else "train" for held in held_out]
    columns = {"image": ORDER, "split": split, "held_out": held_out, "block": [1, 1, 1, 2, 2, 2, 2]}
    return pd.DataFrame(columns | changes)


def write_epochs(path: Path, frame: pd.DataFrame | None, data: np.ndarray | None = None) -> np.ndarray:
    """Float64 epochs from -0.02 s at 100 Hz; returns (n, channels, samples) as written."""
    info = mne.create_info(list(CHANNELS), 100.0, list(CHANNELS.values()))
    info["bads"] = ["T7"]
    if data is None:
        data = np.random.default_rng(0).normal(size=(len(ORDER), len(CHANNELS), T)) * 1e-6
    epochs = mne.EpochsArray(data, info, tmin=-0.02, metadata=frame, baseline=None, verbose="error")
    epochs.save(path, overwrite=True, fmt="double", verbose="error")
    return data[:, [list(CHANNELS).index(name) for name in KEPT]]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures", NAMES)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sub-01-epo.fif"


def test_recording_is_what_was_saved(path: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "PIECE", 2 * 8 * len(KEPT) * T)  # two trials at a time, the last piece is one
    x = write_epochs(path, metadata())
    said = imported("--epochs", path, "--images", images, "--out", tmp_path / "out", "--session-column", "block")
    assert (said["trials"], said["train"], said["test"], said["images"]) == (7, 5, 2, 4)
    assert said["shape"] == [7, 3, T] and said["source"] == "epochs"
    recording = read_folder(tmp_path / "out")
    is_test = np.array(ORDER) == "d.png"
    np.testing.assert_array_equal(recording.train.x, x[~is_test].astype(np.float32))
    np.testing.assert_array_equal(recording.test.x, x[is_test].astype(np.float32))
    assert shown(recording, "train") == [name for name in ORDER if name != "d.png"]
    assert recording.train.session.tolist() == ["1", "1", "2", "2", "2"] and recording.test.session.tolist() == [
        "1",
        "2",
    ]
    assert recording.train.repetition.tolist() == [0, 0, 1, 0, 1]
    assert (recording.sfreq, recording.tmin, recording.ch_names) == (100.0, -0.02, tuple(KEPT))
    for i, name in enumerate(recording.stimuli.ids):
        np.testing.assert_array_equal(recording.stimuli.load(i), np.asarray(Image.open(images / name)))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "pictures", path.name]


def test_channels_that_are_left_out_are_named(
    path: Path, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_epochs(path, metadata())
    with caplog.at_level("INFO"):
        imported("--epochs", path, "--images", images, "--out", tmp_path / "out")
    assert "sub-01-epo.fif: left out 3 channels: EOG1 (eog), T7 (bad), STI (stim)" in caplog.text


def test_split_from_each_of_three_places(path: Path, images: Path, tmp_path: Path) -> None:
    write_epochs(path, metadata(split=None, mine=["unused", *metadata()["split"][1:]]))
    tests = tmp_path / "test.txt"
    tests.write_text("d\n\n")
    start = ["--epochs", path, "--images", images, "--out"]
    for number, words in enumerate((["--test-column", "held_out"], ["--test-list", tests], ["--split-column", "mine"])):
        said = imported(*start, tmp_path / str(number), *words)
        assert (said["train"], said["test"], said["unused"]) == ((4, 2, 1) if number == 2 else (5, 2, 0))
        assert set(shown(read_folder(tmp_path / str(number)), "test")) == {"d.png"}
    fails(
        "give one of --split-column",
        lambda: imported(*start, tmp_path / "x", "--test-column", "b", "--test-list", tests),
    )


def test_trials_without_picture_are_left_out(path: Path, images: Path, tmp_path: Path) -> None:
    x = write_epochs(path, metadata(image=[None, *ORDER[1:5], "n/a", ORDER[6]]))
    said = imported("--epochs", path, "--images", images, "--out", tmp_path / "out", "--subject", "S7")
    assert said["trials"] == 5
    recording = read_folder(tmp_path / "out", "S7")
    np.testing.assert_array_equal(recording.train.x, x[[1, 3, 4, 6]].astype(np.float32))
    np.testing.assert_array_equal(recording.test.x, x[[2]].astype(np.float32))


def test_faults_are_one_line_and_leave_nothing(path: Path, images: Path, tmp_path: Path) -> None:
    def again(*words: object, data: np.ndarray | None = None, **changes: Any) -> Any:
        write_epochs(path, metadata(**changes), data)
        return lambda: imported("--epochs", path, "--images", images, "--out", tmp_path / "out", *words)

    fails("has no column 'picture'; it has: image, split", again("--stimulus-column", "picture"))
    fails("has no column 'run'", again("--session-column", "run"))
    fails("lacks 1 of 5 pictures, first 'e.png'", again(image=["e.png", *ORDER[1:]]))
    fails("first 'D.PNG'; 'd.png' is there", again(image=[name.replace("d.png", "D.PNG") for name in ORDER]))
    fails("first 'd.jpg'; 'd.png' is there", again(image=[name.replace("d.png", "d.jpg") for name in ORDER]))
    fails("no trial belongs to the test split", again(split="train"))
    fails("no trial belongs to the train split", again(split="test"))
    fails("training and test share 1 pictures, first 'd.png'", again(split=["train"] * 5 + ["test"] + ["train"]))
    fails("column 'split' holds 'dev'; expected train, training, test, unused", again(split="dev"))
    fails("column 'block' holds '2'; expected true", again("--test-column", "block"))
    fails("names no picture", again(image="n/a"))
    fails("session of some trials is missing", again(session=["1", None, "1", "1", "1", "1", "1"]))
    fails("'no.txt' does not exist", again("--test-list", "no.txt"))
    spoiled = np.zeros((len(ORDER), len(CHANNELS), T))
    spoiled[3, 2, 1] = np.nan
    fails(r"row 3 of the signals \(picture 'a.png'\) holds NaN", again(data=spoiled))
    (images / "copy.png").write_bytes((images / "a.png").read_bytes())
    fails("'a.png' and 'copy.png' are the same pixel by pixel", again(image=["copy.png", *ORDER[1:]]))
    (images / "copy.png").write_bytes(b"no picture")
    fails("copy.png' is corrupt", again(image=["copy.png", *ORDER[1:]]))
    write_epochs(path, None)
    run = again()
    write_epochs(path, None)
    fails("holds no metadata", run)
    whole = path.read_bytes()
    path.write_bytes(whole[:700])
    fails("is truncated or no FIFF file", run)
    path.write_bytes(whole[:8] + np.array([-16, 0], ">i4").tobytes() + whole[16:])  # a tag that follows itself
    fails("is truncated or no FIFF file", run)
    path.unlink()
    fails("does not exist", run)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["pictures"]


def test_names_in_folders(path: Path, images: Path, tmp_path: Path) -> None:
    """Two pictures of one file name are set apart by their folders; a name that fits both is refused."""
    write_pictures(images, ["x/a.png", "y/a.png"])
    (images / "y/a.png").write_bytes((images / "b.png").read_bytes())
    (images / "a.png").unlink()
    names = {"a.png": "x/a.png", "b.png": "y\\a.png", "c.png": "./c.png", "d.png": "pictures/d.png"}
    write_epochs(path, metadata(image=[names[name] for name in ORDER]))
    words = ("--epochs", path, "--images", images, "--out", tmp_path / "out")
    imported(*words)
    assert shown(read_folder(tmp_path / "out"), "train") == ["c.png", "x/a.png", "x/a.png", "y/a.png", "c.png"]
    write_epochs(path, metadata())
    fails("two pictures are called 'a.png'", lambda: imported(*words[:-1], tmp_path / "other"))


def test_damaged_files_are_read_or_refused(path: Path, images: Path, tmp_path: Path) -> None:
    write_epochs(path, metadata())
    survives(path, 80, tmp_path / "out", "--epochs", path, "--images", images)
