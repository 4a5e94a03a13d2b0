"""Preprocessing: every step against MNE, scikit-learn, scipy or numpy; fits on training rows; cache; memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest
from scipy.linalg import fractional_matrix_power
from sklearn.covariance import ledoit_wolf
from sklearn.preprocessing import RobustScaler, StandardScaler

from align.config import PreprocessConfig
from align.data import signals
from align.data.preparing import preprocess, steps
from align.data.preparing.noise_normalisation import shrunk_covariances
from align.data.preparing.preprocess import prepare
from align.data.signals import Recording, Stimuli, Trials
from align.data.spans import span
from align.errors import UserError

NAMES = ("Fp1", "Pz", "P1", "P10", "PO7", "O1", "Oz", "O2")
SFREQ, TMIN, N_TIMES = 250.0, -0.2, 300


def trials(
    rng: np.random.Generator, n: int, repetitions: int, shape: tuple[int, ...], dtype: str, first: int
) -> Trials:
    """Correlated channels with offsets and unequal variances; repetition-major rows, two recording sessions."""
    x = rng.normal(size=(n * repetitions, *shape))
    if len(shape) == 2:
        mixing = np.eye(shape[0]) + 0.4 * np.random.default_rng(99).normal(size=(shape[0], shape[0]))
        x = 5 * (mixing @ x) + 20 * rng.normal(size=(len(x), shape[0], 1))
    return Trials(
        x=x.astype(dtype),
        stimulus=first + np.tile(np.arange(n), repetitions),
        repetition=np.repeat(np.arange(repetitions), n),
        session=np.repeat(np.arange(repetitions), n) % 2,
    )


def recording(
    seed: int = 0, shape: tuple[int, ...] = (len(NAMES), N_TIMES), dtype: str = "f8", **facts: Any
) -> Recording:
    rng = np.random.default_rng(seed)
    ids = tuple(f"s{i}" for i in range(14))
    given = {"ch_names": NAMES, "sfreq": SFREQ, "tmin": TMIN, **facts} if len(shape) == 2 else facts
    return Recording(
        study="folder",
        subject="01",
        train=trials(rng, 10, 4, shape, dtype, 0),
        test=trials(rng, 4, 6, shape, dtype, 10),
        stimuli=Stimuli(ids, lambda i: np.zeros((2, 2, 3), np.uint8), np.arange(14), ("",) * 14, ("",) * 14),
        log=("a sentence of the study",),
        **given,
    )


def mapped(given: Recording, folder: Path) -> Recording:
    """The same recording, its signals mapped from files."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = {}
    for split in ("train", "test"):
        np.save(folder / f"{split}.npy", getattr(given, split).x)
        changed[split] = replace(getattr(given, split), x=np.load(folder / f"{split}.npy", mmap_mode="r"))
    return replace(given, **changed)


def epochs(x: np.ndarray, sfreq: float = SFREQ, tmin: float = TMIN) -> mne.EpochsArray:
    info = mne.create_info(list(NAMES), sfreq, "eeg")
    return mne.EpochsArray(np.array(x, dtype=np.float64), info, tmin=tmin, baseline=None, verbose="ERROR")


def close(found: np.ndarray, expected: np.ndarray) -> None:
    """To 1e-6 of the largest value."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


# ------------------------------------------------------------------------------------------------ the single steps


def test_nothing_asked_is_nothing_done(tmp_path: Path) -> None:
    given = recording()
    assert prepare(given, PreprocessConfig(), tmp_path / "cache") is given
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", ">f8", "i2"])
@pytest.mark.parametrize("on_disk", [True, False])
def test_baseline_and_crop_equal_mne(tmp_path: Path, dtype: str, on_disk: bool) -> None:
    given = recording(dtype=dtype)
    source = mapped(given, tmp_path / "x") if on_disk else given
    done = prepare(source, PreprocessConfig(baseline=[-0.2, 0.0], tmin=0.0, tmax=0.8), tmp_path)
    for split in ("train", "test"):
        reference = epochs(getattr(given, split).x).apply_baseline((-0.2, 0.0), verbose="ERROR")
        reference.crop(0.0, 0.8, include_tmax=False)
        assert getattr(done, split).x.dtype == np.float32
        close(getattr(done, split).x, reference.get_data(copy=False))
        for name in ("stimulus", "repetition", "session"):
            assert (getattr(getattr(done, split), name) == getattr(getattr(given, split), name)).all()
    assert (done.tmin, done.sfreq, done.ch_names) == (0.0, SFREQ, NAMES)
    assert done.log[0] == "a sentence of the study"
    assert done.log[1:] == (
        "subtracted the mean of -0.2 to 0 s",
        f"cropped to {span(0, 200, 250)} at 250 Hz, 200 samples",
    )


@pytest.mark.parametrize(("old", "new", "n"), [(250, 100, 300), (1000, 250, 1201), (250, 125, 250), (250, 500, 77)])
def test_resampling_equals_mne(tmp_path: Path, old: float, new: float, n: int) -> None:
    given = recording(shape=(len(NAMES), n), sfreq=float(old), tmin=-0.1)
    done = prepare(given, PreprocessConfig(sfreq=float(new)), tmp_path)
    reference = epochs(given.train.x, old, -0.1).resample(new, verbose="ERROR").get_data(copy=False)
    close(done.train.x, reference)
    assert (done.sfreq, done.tmin) == (float(new), -0.1)


def test_resampling_keeps_a_slow_wave_where_it_was() -> None:
    t = np.arange(1201) / 1000 - 0.2
    slow = np.exp(-(((t - 0.35) / 0.08) ** 2))  # far from the edges, well below 50 Hz
    found = steps.resampled(slow, 1000, 100)
    expected = np.exp(-(((np.arange(120) / 100 - 0.2 - 0.35) / 0.08) ** 2))
    assert np.abs(found - expected).max() < 0.06, "half a new sample at most"
    assert found.argmax() == expected.argmax() == 55


def test_zscore_and_robust_equal_scikit_learn(tmp_path: Path) -> None:
    for name, scaler in (("zscore", StandardScaler()), ("robust", RobustScaler())):
        for shape in ((len(NAMES), N_TIMES), (50,)):
            given = recording(shape=shape)
            done = prepare(given, PreprocessConfig(scale=name), tmp_path)
            columns = [np.moveaxis(s.x, 1, -1).reshape(-1, shape[0]) for s in (given.train, given.test)]
            scaler.fit(columns[0])
            for found, rows in zip((done.train.x, done.test.x), columns, strict=True):
                close(np.moveaxis(found, 1, -1).reshape(-1, shape[0]), scaler.transform(rows))


def test_steps_keep_their_order(tmp_path: Path) -> None:
    """Channels, baseline, crop, resampling, whitening, scale, clamp, each redone by other means."""
    given = recording()
    config = PreprocessConfig(["O.*", "Pz"], [-0.2, 0.0], 0.0, 1.0, 125.0, True, "zscore", 2.0)
    done = prepare(given, config, tmp_path)
    assert done.ch_names == ("O1", "Oz", "O2", "Pz")
    assert done.train.x.shape == (40, 4, 125)
    parts = []
    for split in (given.train, given.test):
        reference = epochs(split.x).pick(["O1", "Oz", "O2", "Pz"]).reorder_channels(["O1", "Oz", "O2", "Pz"])
        reference.apply_baseline((None, 0), verbose="ERROR").crop(0.0, None).resample(125, verbose="ERROR")
        parts.append(reference.get_data(copy=True))
    expected = whitened(parts, given)
    mean, deviation = (f(expected[0], axis=(0, 2), keepdims=True) for f in (np.mean, np.std))
    for found, x in zip((done.train.x, done.test.x), expected, strict=True):
        close(found, np.clip((x - mean) / deviation, -2, 2))
    assert np.abs(done.test.x).max() == 2
    assert len(done.log) == 8
    assert done.log[-1] == "clamped to 2"


def test_quartiles_of_many_trials_are_those_of_every_kth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = recording()
    monkeypatch.setattr(steps, "SAMPLED", 10 * len(NAMES) * N_TIMES)  # a quarter of the 40 training trials
    monkeypatch.setattr(steps, "PIECE", 8 * 3 * len(NAMES) * N_TIMES)  # three trials at once
    done = prepare(given, PreprocessConfig(scale="robust"), tmp_path)
    assert done.log[-1] == "scaled every channel by median and interquartile range of 10 training trials"
    kept = np.moveaxis(given.train.x[::4], 1, -1).reshape(-1, len(NAMES))
    expected = RobustScaler().fit(kept).transform(np.moveaxis(given.test.x, 1, -1).reshape(-1, len(NAMES)))
    close(np.moveaxis(done.test.x, 1, -1).reshape(-1, len(NAMES)), expected)
    voxels = recording(shape=(50,), dtype="f4")
    monkeypatch.setattr(steps, "SAMPLED", 40 * 7)  # 7 voxels at once, all rows
    close(
        prepare(voxels, PreprocessConfig(scale="robust"), tmp_path).test.x,
        RobustScaler().fit(voxels.train.x.astype("f8")).transform(voxels.test.x.astype("f8")),
    )


def test_constant_channels_are_centred_and_left(tmp_path: Path) -> None:
    for scale in ("zscore", "robust"):
        given = recording()
        given.train.x[:, 3], given.test.x[:, 3] = 0.1, 0.4
        done = prepare(given, PreprocessConfig(scale=scale), tmp_path)
        assert np.abs(done.train.x[:, 3]).max() < 1e-6
        assert done.test.x[:, 3] == pytest.approx(0.3, abs=1e-6)
        assert done.log[-1].endswith("40 training trials; 1 without spread only centred")


# -------------------------------------------------------------------------------------------------------- whitening


def shrunk(x: np.ndarray) -> np.ndarray:
    """Covariance (C, C) of samples x (T, C): Ledoit-Wolf on standardised channels, by scikit-learn."""
    scaler = StandardScaler().fit(x)
    deviation = np.sqrt(scaler.var_)
    return deviation[:, None] * ledoit_wolf(scaler.transform(x))[0] * deviation[None]


def whitened(parts: list[np.ndarray], given: Recording, by_session: bool = True) -> list[np.ndarray]:
    """Training and test trials of ``parts`` whitened by loops over sessions and stimuli of the training trials."""
    train, test = parts
    sessions = [split.session if by_session else np.zeros(len(split)) for split in (given.train, given.test)]
    out = [np.empty_like(train), np.empty_like(test)]
    for session in np.unique(sessions[0]):
        per_stimulus = []
        for stimulus in np.unique(given.train.stimulus):
            rows = np.flatnonzero((given.train.stimulus == stimulus) & (sessions[0] == session))
            if len(rows):
                per_stimulus.append(np.mean([shrunk(train[row].T) for row in rows], axis=0))
        root = fractional_matrix_power(np.mean(per_stimulus, axis=0), -0.5)
        for x, result, labels in zip(parts, out, sessions, strict=True):
            for row in np.flatnonzero(labels == session):
                result[row] = root @ x[row]
    return out


def test_shrinkage_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(size=(6, n)) * 3 ** np.arange(6)[:, None] for n in (40,) * 3])
    x[1, 2] = 4.0  # flat in one trial
    x[2, :3] += 10 * x[2, 3]  # far from a multiple of the identity: little shrinkage
    for trial, found in zip(x, shrunk_covariances(x), strict=True):
        np.testing.assert_allclose(found, shrunk(trial.T), rtol=1e-9, atol=1e-9)
    few = rng.normal(size=(4, 30, 5))  # more channels than samples
    for trial, found in zip(few, shrunk_covariances(few), strict=True):
        np.testing.assert_allclose(found, shrunk(trial.T), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("piece", [1 << 23, 8 * 3 * len(NAMES) * N_TIMES])
def test_whitening_equals_loops_over_stimuli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(steps, "PIECE", piece)
    given = recording()
    # repetitions are unequal within and between sessions, so every mean has its own count
    keep = np.r_[0:17, 20:40]
    given = replace(given, train=given.train.take(keep))
    done = prepare(given, PreprocessConfig(mvnn=True), tmp_path)
    for found, expected in zip(
        (done.train.x, done.test.x), whitened([given.train.x, given.test.x], given), strict=True
    ):
        close(found, expected)
    assert done.log[1] == "whitened each of 2 recording sessions by the noise covariance of its training trials (MVNN)"


def test_sessions_are_whitened_apart_and_named_in_text(tmp_path: Path) -> None:
    given = recording()
    louder = np.where(given.train.session == 1, 30.0, 1.0)[:, None, None]
    texts = {split: np.array(["a", "b"])[getattr(given, split).session] for split in ("train", "test")}
    given = replace(
        given,
        train=replace(given.train, x=given.train.x * louder, session=texts["train"]),
        test=replace(given.test, session=texts["test"]),
    )
    done = prepare(given, PreprocessConfig(mvnn=True), tmp_path)
    first, second = (done.train.x[texts["train"] == name].var(axis=2).mean() for name in "ab")
    assert first == pytest.approx(second, rel=0.1)
    for name, alone in (("train", {"session": None}), ("test", {"session": None})):
        unknown = replace(given, **{name: replace(getattr(given, name), **alone)})
        done = prepare(unknown, PreprocessConfig(mvnn=True), tmp_path)
        expected = whitened([given.train.x, given.test.x], given, by_session=False)
        close(done.train.x, expected[0])
        close(done.test.x, expected[1])
        assert "all trials as one session (none named)" in done.log[1]


@pytest.mark.parametrize("options", [{"mvnn": True}, {"scale": "zscore"}, {"scale": "robust"}])
def test_statistics_come_from_training_rows_alone(tmp_path: Path, options: dict[str, Any]) -> None:
    """A signal that only the test holds changes neither the training data nor what is done to the test."""
    given, config = recording(), PreprocessConfig(**options)
    planted = 1e3 * np.random.default_rng(5).normal(size=(1, len(NAMES), N_TIMES))
    other = replace(given, test=replace(given.test, x=given.test.x + planted))
    before, after = prepare(given, config, tmp_path / "a"), prepare(other, config, tmp_path / "b")
    assert before.train.x.tobytes() == after.train.x.tobytes()
    change = after.test.x.astype(np.float64) - before.test.x  # linear in what was planted, by training statistics
    if options.get("mvnn"):
        roots = {s: fractional_matrix_power(covariance(given, s), -0.5) for s in (0, 1)}
        expected = np.stack([roots[s] @ planted[0] for s in given.test.session])
    else:
        x = np.moveaxis(given.train.x, 1, -1).reshape(-1, len(NAMES))
        scaler = StandardScaler() if options["scale"] == "zscore" else RobustScaler()
        expected = np.repeat(planted / scaler.fit(x).scale_[:, None], len(given.test), axis=0)
    close(change, expected)


def covariance(given: Recording, session: int) -> np.ndarray:
    train = given.train
    rows = np.flatnonzero(train.session == session)  # every stimulus as often in each session
    return np.mean([shrunk(train.x[row].T) for row in rows], axis=0)


# -------------------------------------------------------------------------------------------------------- the cache


def count_writes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    written: list[Path] = []
    write = preprocess._write

    def counted(path: Path, *rest: Any) -> None:
        written.append(path)
        write(path, *rest)

    monkeypatch.setattr(preprocess, "_write", counted)
    return written


def test_a_second_call_reads_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = PreprocessConfig(["O.*"], mvnn=True)
    given = mapped(recording(), tmp_path / "x")
    first = prepare(given, config, tmp_path)
    monkeypatch.setattr(preprocess, "fit_chain", None)  # would fail
    second = prepare(given, config, tmp_path)
    assert isinstance(second.train.x, np.memmap) and isinstance(second.test.x, np.memmap)
    assert first.train.x.tobytes() == second.train.x.tobytes()
    assert (first.log, first.ch_names, first.sfreq, first.tmin) == (
        second.log, second.ch_names, second.sfreq, second.tmin,
    )  # fmt: skip


def test_what_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = PreprocessConfig(scale="zscore")
    done = prepare(recording(), config, tmp_path)
    folder = Path(done.train.x.filename).parent
    whole = (folder / "test.npy").read_bytes()
    (folder / "test.npy").unlink()
    (folder / "signals.json").unlink()
    written = count_writes(monkeypatch)
    prepare(recording(), config, tmp_path)
    assert [path.name for path in written] == ["test.npy"]
    assert (folder / "test.npy").read_bytes() == whole
    assert json.loads((folder / "signals.json").read_text())["preprocess"]["scale"] == "zscore"


def variations() -> list[tuple[str, Any]]:
    def changed(split: str, **what: Any) -> Any:
        return lambda r: replace(r, **{split: replace(getattr(r, split), **what)})

    x = recording().test.x.copy()
    x[7, 3, 11] += 1e-6
    return [
        ("subject", lambda r: replace(r, subject="02")),
        ("study", lambda r: replace(r, study="other")),
        ("sfreq", lambda r: replace(r, sfreq=200.0)),
        ("tmin", lambda r: replace(r, tmin=0.0)),
        ("names", lambda r: replace(r, ch_names=NAMES[::-1])),
        ("one value", changed("test", x=x)),
        ("dtype", changed("train", x=recording().train.x.astype("f4"))),
        ("sessions", changed("train", session=np.zeros(40, dtype=np.int64))),
        ("stimuli", changed("train", stimulus=np.arange(40) % 8)),
    ]


@pytest.mark.parametrize(("what", "change"), variations(), ids=[name for name, _ in variations()])
def test_whatever_changes_the_result_misses_the_cache(tmp_path: Path, what: str, change: Any) -> None:
    config = PreprocessConfig(scale="zscore")
    key = preprocess.cache_key(recording(), config)
    assert preprocess.cache_key(recording(), config) == key
    assert preprocess.cache_key(change(recording()), config) != key


def test_every_key_of_the_configuration_enters_the_cache_key() -> None:
    values: dict[str, Any] = {
        "channels": ["O1"], "baseline": [-0.2, 0.0], "tmin": 0.0, "tmax": 0.5, "sfreq": 100.0, "mvnn": True,
        "scale": "robust", "clamp": 5.0,
    }  # fmt: skip
    assert set(values) == set(PreprocessConfig.__dataclass_fields__)
    keys = {preprocess.cache_key(recording(), PreprocessConfig(**{name: value})) for name, value in values.items()}
    assert len(keys | {preprocess.cache_key(recording(), PreprocessConfig())}) == len(values) + 1


def test_a_changed_file_misses_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_LOOKED_AT", 3)  # rows 0, 19 and 39 of the training trials
    config = PreprocessConfig(baseline=[-0.2, 0.0])
    given = mapped(recording(), tmp_path / "x")
    first = prepare(given, config, tmp_path)
    file = tmp_path / "x" / "train.npy"
    stamp = file.stat()
    raw = np.load(file, mmap_mode="r+")
    raw[5, 0, -1] += 100  # a row that is not looked at: the time of the change tells
    raw.flush()
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    second = prepare(mapped_again(given, tmp_path / "x"), config, tmp_path)
    assert np.abs(second.train.x[5, 0, -1] - first.train.x[5, 0, -1] - 100) < 1e-3
    key = preprocess.cache_key(second, config)
    raw[19, 0, -1] += 100  # a row that is looked at, the clock set back
    raw.flush()
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert preprocess.cache_key(mapped_again(given, tmp_path / "x"), config) != key
    third = prepare(mapped_again(given, tmp_path / "x"), config, tmp_path)
    assert np.abs(third.train.x[19, 0, -1] - first.train.x[19, 0, -1] - 100) < 1e-3


def mapped_again(given: Recording, folder: Path) -> Recording:
    return replace(given, train=replace(given.train, x=np.load(folder / "train.npy", mmap_mode="r")))


# ----------------------------------------------------------------------------------------------------- faults, memory


@pytest.mark.parametrize(
    ("options", "facts", "message"),
    [
        ({"channels": ["POz"]}, {}, "'POz' fits no channel of folder subject 01; did you mean 'Pz'?"),
        ({"channels": ["^O *|^P *"]}, {}, "must fit the whole name"),
        ({"channels": ["Oz", "Pz", "Oz"]}, {}, "chooses the channel 'Oz' twice ('Oz' and 'Oz')"),
        ({"channels": ["O.*", "P.*", "Oz"]}, {}, "chooses the channel 'Oz' twice ('O.*' and 'Oz')"),
        ({"channels": ["O("]}, {}, "preprocess.channels='O(' cannot be used: no regular expression"),
        ({"channels": ["Oz"]}, {"ch_names": ()}, "needs channel names"),
        ({"channels": ["O1"]}, {"ch_names": ("O1", *NAMES[1:])}, "the recording has it twice"),
        ({"baseline": [-0.3, 0.0]}, {}, "preprocess.baseline=[-0.3, 0.0] leaves the window"),
        ({"baseline": [0.9, 1.1]}, {}, "-0.2 to 0.996 s (first and last sample) at 250 Hz"),
        ({"baseline": [0.0]}, {}, "preprocess.baseline=[0.0] is not [from, to]"),
        ({"baseline": [0.0, -0.2]}, {}, "is not [from, to]"),
        ({"baseline": [-0.2, 0.0]}, {"sfreq": None}, "preprocess.baseline needs the sampling rate"),
        ({"tmin": -0.5}, {}, "preprocess.tmin=-0.5 lies outside"),
        ({"tmin": 1.0}, {}, "preprocess.tmin=1 lies outside"),
        ({"tmax": 1.1}, {}, "preprocess.tmax=1.1 leaves nothing of, or goes beyond"),
        ({"tmin": 0.5, "tmax": 0.5}, {}, "preprocess.tmin=0.5 should be below preprocess.tmax=0.5"),
        ({"sfreq": 100.0}, {"sfreq": None}, "preprocess.sfreq needs the sampling rate"),
        ({"sfreq": -1.0}, {}, "preprocess.sfreq=-1 should be above 0"),
        ({"scale": "minmax"}, {}, "preprocess.scale='minmax' is not known"),
        ({"clamp": 0.0}, {}, "preprocess.clamp=0 should be above 0"),
    ],
)
def test_faults_name_key_and_value(
    tmp_path: Path, options: dict[str, Any], facts: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        prepare(recording(**facts), PreprocessConfig(**options), tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"baseline": [0.0, 0.1]}, {"tmin": 0.1}, {"tmax": 0.1}, {"sfreq": 9.0}, {"mvnn": True}]
)
def test_steps_over_time_refuse_voxels(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"preprocess.{next(iter(options))} needs signals over time .*\(n, 50\)"):
        prepare(recording(shape=(50,)), PreprocessConfig(**options), tmp_path)


def test_faults_in_the_signals_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = recording()
    broken.train.x[13, 2, 4] = np.nan
    with pytest.raises(UserError, match=r"train rows 0 to 39: .* NaN or infinite, the first at index \(13, 2, 4\)"):
        prepare(broken, PreprocessConfig(baseline=[-0.2, 0.0]), tmp_path)
    for config in (PreprocessConfig(mvnn=True), PreprocessConfig(scale="robust")):
        with pytest.raises(UserError, match="train rows 0 to 39: 1 values are NaN"):
            prepare(broken, config, tmp_path)
    flat = recording()
    flat.train.x[:, 4] = 0.0
    with pytest.raises(UserError, match=r"session 0: the noise covariance is singular \(channel 'PO7' is flat"):
        prepare(flat, PreprocessConfig(mvnn=True), tmp_path)
    huge = recording()
    huge.test.x[0, 0, 0] = 1e200
    with pytest.raises(UserError, match="test rows 0 to 23 after preprocess: 1 values"):
        prepare(huge, PreprocessConfig(clamp=1e300), tmp_path)
    apart = recording()
    apart = replace(apart, test=replace(apart.test, session=np.full(len(apart.test), 3)))
    with pytest.raises(UserError, match="session '3' of folder subject 01 has test trials but no training trials"):
        prepare(apart, PreprocessConfig(mvnn=True), tmp_path)
    unlike = recording()
    with pytest.raises(UserError, match="alike in both"):
        prepare(
            replace(unlike, test=replace(unlike.test, x=unlike.test.x[:, :3])), PreprocessConfig(clamp=1.0), tmp_path
        )
    assert not list(tmp_path.rglob(".*.tmp-*")), "no half file stays"


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = PreprocessConfig(clamp=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(preprocess.shutil, "disk_usage", lambda path: type("usage", (), {"free": 1000}))
        with pytest.raises(UserError, match=r"need [\d.]+ k?B in .*, 1 kB are free; set cache_dir=FOLDER"):
            prepare(recording(), config, tmp_path)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(UserError, match=r"cannot write .*train\.npy.*: No space left on device; make room"):
        prepare(recording(), config, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cache_dir: cannot make"):
        prepare(recording(), config, tmp_path / "file")


MEASURED = """
import sys
from pathlib import Path
import numpy as np
import scipy.fft
from align.config import PreprocessConfig
from align.data.preparing.preprocess import prepare
from align.data.signals import Recording, Trials

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024

folder = Path(sys.argv[1])
n, names = int(sys.argv[2]), tuple(f"c{i}" for i in range(16))
map_of = lambda split, n: np.memmap(folder / f"{split}.bin", "f8", "w+" if not n else "r", 0, (n, 16, 250))
train = Trials(map_of("train", n), np.arange(n) // 4, np.arange(n) % 4, np.arange(n) % 4)
test = Trials(map_of("test", 16), np.arange(16) + n, np.zeros(16, int), np.arange(16) % 4)
recording = Recording("folder", "01", train, test, None, names, 250.0, 0.0)
import torch  # what a training has loaded anyway

before = peak()
config = PreprocessConfig(baseline=[0.0, 0.1], tmin=0.8, mvnn=True, scale="robust", clamp=20.0)
done = prepare(recording, config, folder)
print(peak() - before, done.train.x.shape)
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A mapped float64 file of 400 MB through every step: less than 150 MB more than before the call."""
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    n = 400_000_000 // (16 * 250 * 8)
    some = np.random.default_rng(0).normal(size=(16, 16, 250)).tobytes()
    for split, count in (("train", n), ("test", 16)):
        with (tmp_path / f"{split}.bin").open("wb") as file:  # the rest are holes: zeros that cost no disk
            file.write(some)
            file.truncate(count * 16 * 250 * 8)
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEASURED, str(tmp_path), str(n)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **threads}, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "train.bin").stat().st_size == 400_000_000
    grown = float(done.stdout.split()[0])
    assert done.stdout.strip().endswith(f"({n}, 16, 50)")
    assert grown < 150, f"{grown:.0f} MB"
