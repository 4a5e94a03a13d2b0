"""Epoching of raw THINGS-EEG2 files: against MNE on the whole recording, and against loops in numpy."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest

from align.config import PreprocessConfig
from align.data.preparing.preprocess import prepare
from align.data.reading.containers import read_container
from align.data.signals import Recording, Stimuli, Trials
from align.data.studies.things import epoching
from align.data.studies.things.epoching import (
    EpochWindow,
    epoch_pieces,
    open_session,
    session_events,
    window_times,
    write_epochs,
)
from align.errors import UserError

NAMES = ["Fp1", "Pz", "O1", "Oz"]
TARGET = 99999


def epoch_session(
    raw: dict[str, Any], window: EpochWindow | None = None, what: str = "raw file"
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...], np.ndarray]:
    """All trials of one recording session in memory: x (n, C, T), event ids (n,), channels, times (T,) in s."""
    window = window or EpochWindow()
    session = open_session(raw, what)
    events, _ = session_events(session, window, what)
    pieces = [np.empty((0, len(session.ch_names), len(window_times(window))), dtype=np.float32)]
    pieces += [x for _, x in epoch_pieces(session, events, window, what)]
    return np.concatenate(pieces), events[:, 1], session.ch_names, window_times(window)


def raw_file(
    order: list[int], seed: int = 0, soa: int = 200, first: int = 400, pulse: int = 12, sfreq: float = 1000
) -> dict[str, Any]:
    """A session as the public files hold it: float64 in V, drifts, overlapping windows, stim channel last."""
    rng = np.random.default_rng(seed)
    n = first + soa * len(order) + 1300
    data = np.zeros((len(NAMES) + 1, n))
    data[:-1] = np.cumsum(rng.normal(size=(len(NAMES), n)), axis=1) * 1e-6 + rng.normal(size=(len(NAMES), 1)) * 1e-4
    for k, name in enumerate(order):
        data[-1, first + k * soa : first + k * soa + pulse] = name
    return {
        "raw_eeg_data": data,
        "ch_names": [*NAMES, "stim"],
        "ch_types": ["eeg"] * len(NAMES) + ["stim"],
        "sfreq": sfreq,
    }


def by_mne(raw: dict[str, Any], window: EpochWindow) -> tuple[np.ndarray, np.ndarray]:
    """The whole recording at once through MNE, as the public preprocessing code of the data does it."""
    info = mne.create_info(raw["ch_names"], raw["sfreq"], raw["ch_types"])
    whole = mne.io.RawArray(raw["raw_eeg_data"].copy(), info, verbose="ERROR")
    events = mne.find_events(whole, stim_channel="stim", verbose="ERROR")
    events = events[events[:, 2] != TARGET]
    whole.pick(NAMES)
    epochs = mne.Epochs(whole, events, None, window.tmin, window.tmax, (None, 0), preload=True, verbose="ERROR")
    epochs.resample(window.sfreq, verbose="ERROR")
    return epochs.get_data(copy=True), epochs.events[:, 2]


def saved(folder: Path, sessions: list[dict[str, Any]]) -> list[Path]:
    paths = []
    for k, raw in enumerate(sessions):
        paths.append(folder / f"ses-{k + 1:02d}" / "raw_eeg_training.npy")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        np.save(paths[-1], raw)
    return paths


def close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("window", [EpochWindow(), EpochWindow(tmax=0.8, sfreq=100.0)])
def test_trials_equal_those_of_mne(monkeypatch: pytest.MonkeyPatch, window: EpochWindow) -> None:
    monkeypatch.setattr(epoching, "_AT_ONCE", 7)  # pieces whose windows overlap
    raw = raw_file([3, 1, TARGET, 2, 5, 5, 4] * 5)
    x, event_id, names, times = epoch_session(raw, window)
    expected, ids = by_mne(raw, window)
    close(x, expected)
    assert x.dtype == np.float32
    assert event_id.tolist() == ids.tolist()
    assert TARGET not in event_id
    assert names == tuple(NAMES)
    assert (len(times), times[0]) == (x.shape[2], -0.2)
    assert times[-1] == pytest.approx(window.tmax - 1 / window.sfreq), "the end is no longer part of it"


def test_trials_equal_loops_in_numpy() -> None:
    """Without resampling everything is a cut and a mean; at 250 Hz it is a Fourier sum, written out."""
    raw = raw_file([1, 2, 3], soa=700, sfreq=500.0)
    window = EpochWindow(tmax=0.6, sfreq=500.0)
    x, event_id, _, times = epoch_session(raw, window)
    expected = []
    for onset in (400, 1100, 1800):
        cut = raw["raw_eeg_data"][:-1, onset - 100 : onset + 300]
        expected.append(cut - cut[:, :101].mean(axis=1, keepdims=True))
    close(x, np.stack(expected))
    assert event_id.tolist() == [1, 2, 3]
    np.testing.assert_allclose(times, np.arange(-100, 300) / 500)

    slow = epoch_session(raw, EpochWindow(tmax=0.6, sfreq=250.0))[0]
    trial = raw["raw_eeg_data"][0, 300:701] - raw["raw_eeg_data"][0, 300:401].mean()
    length, left = 512, 55  # 401 samples and 2 * 50 at least, up to a power of two
    padded = np.r_[np.full(left, trial[0]), trial, np.full(length - left - 401, trial[-1])]
    spectrum = np.fft.fft(padded)
    sample = np.arange(256) * 2
    total = np.full(256, spectrum[0].real)
    for k in range(1, 128):
        total += 2 * (spectrum[k] * np.exp(2j * np.pi * k * sample / length)).real
    total += (2 * spectrum[128] * np.exp(2j * np.pi * 128 * sample / length)).real  # the new Nyquist frequency
    close(slow[0, 0], (total / length)[28 : 28 + 200])


def test_events_are_onsets_and_targets_are_dropped() -> None:
    raw = raw_file([4, TARGET, 4, 9], pulse=1)  # a pulse of one sample counts too
    assert epoch_session(raw)[1].tolist() == [4, 4, 9]
    kept = EpochWindow(targets=(9,))
    assert epoch_session(raw, kept)[1].tolist() == [4, TARGET, 4]


def test_windows_beyond_the_recording_are_left_out(tmp_path: Path) -> None:
    raw = raw_file([1, 2, 3, 4], first=150)
    assert epoch_session(raw)[1].tolist() == [2, 3, 4], "the first image has no whole baseline"
    expected, ids = by_mne(raw, EpochWindow())
    assert ids.tolist() == [2, 3, 4]
    close(epoch_session(raw)[0], expected)
    raw["raw_eeg_data"] = raw["raw_eeg_data"][:, : 150 + 2 * 200 + 1001]
    assert epoch_session(raw)[1].tolist() == [2, 3], "up to 1.0 s, the end included"
    raw["raw_eeg_data"] = raw["raw_eeg_data"][:, :-1]
    assert epoch_session(raw)[1].tolist() == [2] == by_mne(raw, EpochWindow())[1].tolist()
    done = write_epochs(saved(tmp_path, [raw]), tmp_path)
    assert done.log == ("raw_eeg_training.npy of ses-01: 3 events at the edge of the recording left out",)


def test_a_subject_is_sorted_by_image_and_keeps_its_sessions(tmp_path: Path) -> None:
    orders = [[3, 1, TARGET, 2, 1, 3, 2], [2, 2, 1, 3, 1, 3]]
    raws = [raw_file(order, seed=k) for k, order in enumerate(orders)]
    done = write_epochs(saved(tmp_path, raws), tmp_path / "cache")
    assert done.event_id.tolist() == [1] * 4 + [2] * 4 + [3] * 4
    assert done.session.tolist() == [0, 0, 1, 1] * 3
    assert done.repetition.tolist() == [0, 1, 2, 3] * 3
    assert isinstance(done.x, np.memmap)
    usual = done.x.reshape(3, 4, len(NAMES), 300)
    for image in (1, 2, 3):
        shown = []
        for raw in raws:
            x, ids = by_mne(raw, EpochWindow())
            shown += list(x[ids == image])
        close(usual[image - 1], np.stack(shown))
    assert done.ch_names == tuple(NAMES)
    np.testing.assert_allclose(done.times, np.arange(-50, 250) / 250, atol=1e-12)


def test_unequal_repetitions_are_kept(tmp_path: Path) -> None:
    done = write_epochs(saved(tmp_path, [raw_file([2, 7, 2, 2])]), tmp_path)
    assert done.event_id.tolist() == [2, 2, 2, 7]
    assert done.repetition.tolist() == [0, 1, 2, 0]


def test_a_second_call_reads_the_cache_and_a_new_file_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = saved(tmp_path, [raw_file([1, 2, 1]), raw_file([2, 1, 2], seed=1)])
    first = write_epochs(paths, tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(epoching, "epoch_pieces", None)  # would fail
        second = write_epochs(paths, tmp_path / "cache")
    assert first.x.tobytes() == second.x.tobytes()
    facts = json.loads(next((tmp_path / "cache" / "epochs").glob("*.json")).read_text())
    assert facts["session"] == [0, 0, 1, 0, 1, 1]
    np.save(paths[1], raw_file([2, 1, 2], seed=2))
    os.utime(paths[1], ns=(0, paths[0].stat().st_mtime_ns + 7))
    third = write_epochs(paths, tmp_path / "cache")
    assert (third.x[[0, 1]] == first.x[[0, 1]]).all()
    assert (third.x[2] != first.x[2]).any()
    assert write_epochs(paths, tmp_path / "cache", EpochWindow(tmax=0.8)).x.shape[2] == 250
    assert len(list((tmp_path / "cache" / "epochs").glob("*.npy"))) == 3


def test_sessions_lead_to_whitening(tmp_path: Path) -> None:
    """Raw files to whitened trials, the path of a study: sessions fitted apart, on training trials."""
    parts = {}
    for split, seed in (("train", 0), ("test", 10)):
        raws = [raw_file([1, 2, 3, 4] * 6, seed + k) for k in range(2)]
        raws[1]["raw_eeg_data"][:-1] *= 50
        done = write_epochs(saved(tmp_path / split, raws), tmp_path)
        parts[split] = Trials(done.x, done.event_id - 1 + (4 if split == "test" else 0), done.repetition, done.session)
    stimuli = Stimuli(tuple("abcdefgh"), lambda i: np.zeros((2, 2, 3)), np.arange(8), ("",) * 8, ("",) * 8)
    given = Recording("folder", "01", parts["train"], parts["test"], stimuli, tuple(NAMES), 250.0, -0.2)
    whitened = prepare(given, PreprocessConfig(tmin=0.0, mvnn=True), tmp_path)
    for split in ("train", "test"):
        x, session = getattr(whitened, split).x, getattr(whitened, split).session
        assert x.shape == (48, len(NAMES), 250)
        assert 0.5 < x[session == 0].std() / x[session == 1].std() < 2


def test_pickled_files_stay_in_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path, [raw_file([1, 2] * 20)])[0]
    session = epoching.open_session(read_container(path), str(path))
    assert isinstance(session.data, np.memmap)
    close(epoch_session(read_container(path))[0], by_mne(raw_file([1, 2] * 20), EpochWindow())[0])


def test_long_pauses_do_not_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.array([0, 200, 400, 30_000, 30_200, 60_000])
    assert list(epoching._groups(samples, 1000.0)) == [slice(0, 3), slice(3, 5), slice(5, 6)]
    monkeypatch.setattr(epoching, "_AT_ONCE", 2)
    assert list(epoching._groups(samples, 1000.0)) == [slice(0, 2), slice(2, 3), slice(3, 5), slice(5, 6)]


def broken(**changes: Any) -> dict[str, Any]:
    return {**raw_file([1, 2]), **changes}


def spoiled(channel: int) -> np.ndarray:
    data: np.ndarray = broken()["raw_eeg_data"]
    data[channel, 700] = np.nan
    return data


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([1, 2], "has no 'raw_eeg_data'"),
        ({"raw_eeg_data": np.zeros((2, 9))}, "has no 'ch_names'"),
        (broken(ch_names=["a", "b"]), "float64 (5, 2100) for 2 ch_names and 5 ch_types"),
        (broken(raw_eeg_data=np.zeros(7)), "float64 (7,) for 5 ch_names"),
        (broken(ch_types=["eeg"] * 5), "0 channels of type 'stim' and 5 'eeg'"),
        (broken(ch_names=["Oz", "Pz", "Oz", "O1", "stim"]), "names the channel 'Oz' twice"),
        (broken(sfreq=0), "sfreq=0 is no rate"),
        (broken(sfreq="fast"), "sfreq='fast' is no rate"),
        (broken(raw_eeg_data=np.zeros((5, 4000))), "the stim channel marks 0 images"),
        (broken(raw_eeg_data=broken()["raw_eeg_data"][:, :900]), "marks 2 images, 0 of them with a whole window"),
        (broken(raw_eeg_data=spoiled(2)), "images 0 to 1: 600 values are NaN"),
        (broken(raw_eeg_data=spoiled(4)), "ses-01, stim channel: 1 values are NaN"),
    ],
)
def test_faults_are_one_line(raw: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        epoch_session(raw, what="ses-01")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_faults_of_a_subject_name_the_file(tmp_path: Path) -> None:
    paths = saved(tmp_path, [raw_file([1, 2]), broken(ch_names=["a", "b", "c", "d", "stim"])])
    with pytest.raises(UserError, match=r"ses-02/raw_eeg_training\.npy' has other channels than .*ses-01"):
        write_epochs(paths, tmp_path)
    with pytest.raises(UserError, match=r"ses-09.*does not exist"):
        write_epochs([tmp_path / "ses-09" / "raw_eeg_training.npy"], tmp_path)
    with pytest.raises(UserError, match="no raw file"):
        write_epochs([], tmp_path)
    assert not list(tmp_path.rglob(".*.tmp-*"))


def test_the_public_window_has_300_samples() -> None:
    assert len(window_times(EpochWindow())) == 300
    assert window_times(EpochWindow())[50] == pytest.approx(0.0, abs=1e-12)
    assert len(window_times(EpochWindow(tmax=0.8, sfreq=100.0))) == 100
