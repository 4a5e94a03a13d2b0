"""A BIDS folder, its layout written by hand, to the `folder` layout; `mne.Epochs` is the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest
from scipy.io import savemat

from tests.align.fixture_import import (
    CHANNELS,
    imported,
    read_folder,
    shown,
    survives,
    write_brainvision,
    write_edf,
    write_pictures,
    write_table,
)
from tests.one_line import fails

SFREQ = 100
MICROVOLTS = 0.5  # per count
NAMES = ["a.png", "b.png", "animals/c.png", "d.png"]
ORDER = ["a.png", "n/a", "animals/c.png", "d.png", "b.png", "a.png"]
ONSETS = [0.5, 0.8, 1.204, 2.3, 2.996, 4.5]  # s: 1.204 and 2.996 lie between two samples
WINDOW = ("--tmin", "-0.1", "--tmax", "0.2")


def counts(seed: int, channels: int = len(CHANNELS)) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3000, 3000, (channels, 5 * SFREQ)).astype(np.int16)


def write_events(stem: Path, **changes: Any) -> None:
    columns = {
        "onset": ONSETS,
        "duration": [0.1] * 6,
        "stim_file": ORDER,
        "is_test": [int(n == "d.png") for n in ORDER],
    }
    write_table(stem.with_name(stem.name + "_events.tsv"), columns | changes)


def reference(x: np.ndarray, names: list[str], keep: list[int], first_samp: int = 0) -> np.ndarray:
    """What `mne.Epochs` cuts around the events that show a picture: (5, channels, samples) float32."""
    raw = mne.io.RawArray(x, mne.create_info(list(CHANNELS), SFREQ, "eeg"), first_samp=first_samp, verbose="error")
    onsets = [onset for onset, name in zip(ONSETS, ORDER, strict=True) if name != "n/a"]
    events = np.array([[round(onset * SFREQ) + first_samp, 0, 1] for onset in onsets])
    epochs = mne.Epochs(raw, events, tmin=-0.1, tmax=0.2, baseline=None, preload=True, verbose="error")
    return epochs.get_data(picks=names, verbose="error")[keep].astype(np.float32)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two sessions of EEG: BrainVision with a table of channels, EDF with a bad channel less; another task."""
    home = tmp_path / "bids"
    write_pictures(home / "stimuli", NAMES)
    types = ["EEG", "EEG", "EOG", "EEG"]
    for label, write, bad in (("01", write_brainvision, "none"), ("02", write_edf, "Fz")):
        stem = home / f"sub-01/ses-{label}/eeg/sub-01_ses-{label}_task-view_run-1"
        write_events(stem)
        status = ["bad" if name == bad else "good" for name in CHANNELS]
        table = {"name": CHANNELS, "type": types, "units": ["µV"] * 4, "status": status}
        write_table(stem.with_name(f"{stem.name}_channels.tsv"), table)
        ending = ".vhdr" if label == "01" else ".edf"
        write(stem.with_name(f"{stem.name}_eeg{ending}"), counts(int(label)), SFREQ, CHANNELS, MICROVOLTS)
    (home / "sub-01/ses-01/eeg/sub-01_ses-01_task-rest_eeg.vhdr").write_text("another task, never opened")
    return home


def test_windows_are_those_of_mne_in_two_sessions(root: Path, tmp_path: Path) -> None:
    words = ("--task", "view", "--test-column", "is_test", *WINDOW)
    said = imported("--bids", root, "--out", tmp_path / "out", *words)
    assert (said["trials"], said["train"], said["test"], said["images"]) == (10, 8, 2, 4)
    assert said["shape"] == [10, 2, 31]
    recording = read_folder(tmp_path / "out")
    assert (recording.ch_names, recording.sfreq, recording.tmin) == (("Oz", "POz"), 100.0, -0.1)
    for split, keep in (("train", [0, 1, 3, 4]), ("test", [2])):
        volts = [counts(seed) * MICROVOLTS * 1e-6 for seed in (1, 2)]
        expected = np.concatenate([reference(x, ["Oz", "POz"], keep) for x in volts])
        found = getattr(recording, split)
        np.testing.assert_allclose(found.x, expected, rtol=1e-5, atol=1e-9)
        assert found.session.tolist() == ["01"] * len(keep) + ["02"] * len(keep)
    assert shown(recording, "train") == ["a.png", "c.png", "b.png", "a.png"] * 2


def write_meg(root: Path, x: np.ndarray, first_samp: int, types: list[str]) -> None:
    """A recording that MNE splits over two files, as it splits those of 2 GB."""
    info = mne.create_info(list(CHANNELS), SFREQ, types)
    path = root / "sub-02/meg/sub-02_task-view_meg.fif"
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = mne.io.RawArray(x, info, first_samp=first_samp, verbose="error")
    raw.save(path, fmt="double", split_size="2MB", split_naming="bids", verbose="error")


def test_channels_that_are_left_out_are_named_once(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        imported("--bids", root, "--task", "view", "--test-column", "is_test", *WINDOW, "--out", tmp_path / "out")
    records = {id(record): record.getMessage() for record in caplog.records}  # one may come by two handlers
    said = sorted(line for line in records.values() if "left out 1 channel:" in line)
    assert len(said) == 2 and said[0].endswith(f"eeg: left out 1 channel: {CHANNELS[2]} (eog)")
    assert said[1] == "sub-01_ses-02_task-view_run-1_eeg.edf: left out 1 channel: Fz (bad)"


def test_onsets_count_from_the_first_sample_of_a_fif(root: Path, tmp_path: Path) -> None:
    """Recordings of MEG seldom begin at sample 0; without channels.tsv MNE's types and bad channels count."""
    x = np.tile(counts(3), 80) * 1e-12
    write_meg(root, x, 777, ["mag", "grad", "eog", "mag"])
    files = sorted(file.name for file in (root / "sub-02/meg").iterdir())
    assert files == [f"sub-02_task-view_split-0{part}_meg.fif" for part in (1, 2)]
    write_events(root / "sub-02/meg/sub-02_task-view")
    lists = tmp_path / "tests.txt"
    lists.write_text("d.png\n")
    imported("--bids", root, "--subject", "02", "--out", tmp_path / "out", "--test-list", lists, *WINDOW, "--link")
    recording = read_folder(tmp_path / "out", "02")
    assert recording.ch_names == ("Fz", "Oz", "POz") and recording.train.session is None
    expected = reference(x, ["Fz", "Oz", "POz"], [0, 1, 3, 4], 777)
    np.testing.assert_allclose(recording.train.x, expected, rtol=1e-6)
    assert shown(recording, "test") == ["../bids/stimuli/d.png"]
    assert not list((tmp_path / "out" / "images").iterdir())


def test_eeglab(root: Path, tmp_path: Path) -> None:
    """A .set as EEGLAB saves it with the samples inside: a struct EEG, numbers in microvolts."""
    x = counts(4).astype(np.float32)
    path = root / "sub-03/eeg/sub-03_task-view_eeg.set"
    places = np.array([(name,) for name in CHANNELS], dtype=[("labels", object)])
    eeg = {"setname": "x", "nbchan": 4.0, "trials": 1.0, "pnts": 500.0, "srate": 100.0, "xmin": 0.0, "xmax": 4.99}
    empty = {name: np.array([]) for name in ("event", "icawinv", "icaweights", "icasphere")}
    path.parent.mkdir(parents=True)
    savemat(path, {"EEG": eeg | empty | {"data": x, "chanlocs": places}}, appendmat=False)
    write_events(root / "sub-03/eeg/sub-03_task-view")
    imported("--bids", root, "--subject", "03", "--out", tmp_path / "out", "--test-column", "is_test", *WINDOW)
    expected = reference(x * 1e-6, list(CHANNELS), [0, 1, 3, 4])
    np.testing.assert_allclose(read_folder(tmp_path / "out", "03").train.x, expected, rtol=1e-5)


def test_faults_are_one_line_and_leave_nothing(root: Path, tmp_path: Path) -> None:
    def run(*words: object) -> Any:
        start = ("--bids", root, "--out", tmp_path / "out", "--test-column", "is_test", *WINDOW)
        return lambda: imported(*start, "--task", "view", *words)

    stem = root / "sub-01/ses-02/eeg/sub-01_ses-02_task-view_run-1"
    fails("holds no folder sub-03; name who is there: --subject 01$", run("--subject", "03"))
    fails("no recording of task draw", run("--task", "draw"))
    fails("several tasks; give --task: rest, view", lambda: imported("--bids", root, "--out", tmp_path / "out"))
    fails("windows of 2 events go beyond the recording", run("--tmax", "0.5"))
    fails("holds no two samples", run("--tmax", "-0.1"))
    fails("no column 'picture'", run("--stimulus-column", "picture"))
    fails("lacks 4 of 4 pictures", run("--images", root / "sub-01"))
    write_events(stem, onset=[*ONSETS[:2], "late", *ONSETS[3:]])
    fails("the onset of event 3 is 'late'", run())
    write_events(stem, is_test=["1", "0", "0", "n/a", "0", "0"])
    fails("column 'is_test' holds 'n/a'; expected true", run())
    text = stem.with_name(f"{stem.name}_events.tsv")
    text.write_text("onset\tstim_file\n0.5\ta.png\tx\n")
    fails("trial 1 has 3 cells, the header 2", run())
    text.write_text("onset\tonset\n0.5\t1\n")
    fails("two columns called 'onset'", run())
    text.unlink()
    fails("events.tsv' does not exist", run())
    write_events(stem)
    table = stem.with_name(f"{stem.name}_channels.tsv")
    write_table(table, {"name": ["Cz"], "type": ["EEG"]})
    fails("lists channel 'Cz', which the recording lacks", run())
    write_table(table, {"name": CHANNELS, "type": ["MISC"] * 4})
    fails("no channel is a signal and good in all 2", run())
    table.unlink()
    edf = stem.with_name(f"{stem.name}_eeg.edf")
    write_edf(edf, np.repeat(counts(2), 2, axis=1), 2 * SFREQ, CHANNELS, MICROVOLTS)
    fails("100 and 200 Hz", run())
    edf.write_bytes(b"0" * 100)
    fails("is truncated or no recording", run())
    write_brainvision(edf.with_suffix(".vhdr"), counts(2), SFREQ, CHANNELS, MICROVOLTS)
    fails("one recording is there twice", run())
    assert not (tmp_path / "out").exists() and [file.name for file in tmp_path.iterdir()] == ["bids"]


def test_damaged_files_are_read_or_refused(root: Path, tmp_path: Path) -> None:
    words = ("--bids", root, "--task", "view", "--test-column", "is_test", *WINDOW)
    for path in sorted((root / "sub-01").rglob("*run-1*")):
        survives(path, 12, tmp_path / "out", *words)


@pytest.mark.parametrize(
    ("onsets", "names", "trials"),
    [
        ({1: "n/a"}, {}, 10),  # a row without picture
        ({1: ""}, {}, 10),
        ({1: "NaN"}, {1: "NaN"}, 10),
        ({1: "n/a"}, {1: ""}, 10),
        ({1: 99.0}, {}, 10),  # beyond the end, without picture
    ],
)
def test_onsets_of_events_without_picture_are_not_asked_for(
    root: Path, tmp_path: Path, onsets: dict[int, object], names: dict[int, str], trials: int
) -> None:
    stem = root / "sub-01/ses-02/eeg/sub-01_ses-02_task-view_run-1"
    write_events(
        stem,
        onset=[onsets.get(i, onset) for i, onset in enumerate(ONSETS)],
        stim_file=[names.get(i, name) for i, name in enumerate(ORDER)],
    )
    words = ("--bids", root, "--out", tmp_path / "out", "--task", "view", "--test-column", "is_test", *WINDOW)
    assert imported(*words)["trials"] == trials


def test_onsets_of_unused_events_are_not_asked_for_and_those_of_used_ones_are(root: Path, tmp_path: Path) -> None:
    split = ["train", "train", "unused", "test", "train", "unused"]
    words = ("--bids", root, "--out", tmp_path / "out", "--task", "view", *WINDOW)
    for label in ("01", "02"):
        stem = root / f"sub-01/ses-{label}/eeg/sub-01_ses-{label}_task-view_run-1"
        write_events(stem, onset=[*ONSETS[:2], "n/a", *ONSETS[3:5], 4.99], split=split)
    assert imported(*words)["trials"] == 6
    write_events(stem, onset=["n/a", *ONSETS[1:]], split=split)
    fails("event 1 shows a picture and has no onset", lambda: imported(*words[:3], tmp_path / "b", *words[4:]))
    fails("did you mean --subject 01", lambda: imported(*words[:3], tmp_path / "b", *words[4:], "--subject", "1"))
