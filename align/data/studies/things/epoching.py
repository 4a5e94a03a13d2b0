"""Continuous recordings to trials: the raw files of THINGS-EEG2 through MNE, in the steps of its preprocessing code.

A raw file is a dict (``raw_eeg_data`` (channels, samples), ``ch_names``, ``ch_types``, ``sfreq`` 1000 Hz) of one
recording session and split; a channel of type ``stim`` holds the event id (the condition of the image, from 1) for as
long as a trigger lasts (Gifford, Dwivedi, Roig & Cichy 2022; data: OSF 3jk45). Event 99999 is the catch target.

A window is cut from tmin to tmax, both included, its baseline mean is subtracted, and it is resampled (FFT, edge
padding, as `mne.Epochs.resample`); at 250 Hz 1,201 samples become 300, from -0.2 s to 0.996 s.

Memory: events are found on the stim channel alone (about 40 bytes per sample of the session while they are searched);
windows are cut `_AT_ONCE` at a time from at most `_SPAN` s of the recording, about 200 MB for 63 channels. A subject
of THINGS-EEG2 becomes a file of 66,160 x 63 x 300 float32 = 5.0 GB, which is never held.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.data.reading.convert import open_container
from align.data.reading.safe_load import require_finite
from align.data.reading.stored_array import StoredArray
from align.data.signals import release
from align.errors import UserError
from align.files import atomic_path, no_file, read_json, write_sealed
from align.files.checksums import MADE_FOR, append_checksum, map_npy, require_made_for
from align.files.made_once import made_once

_RECIPE = 1  # raise it when the numbers of a step change: it is part of the key of the cache
_AT_ONCE = 32  # windows
_SPAN = 20.0  # s
_KEYS = ("raw_eeg_data", "ch_names", "ch_types", "sfreq")


@dataclass(frozen=True)
class EpochWindow:
    """How trials are cut: s around the event, baseline in s (both ends included), Hz after resampling."""

    tmin: float = -0.2
    tmax: float = 1.0
    baseline: tuple[float, float] = (-0.2, 0.0)
    sfreq: float = 250.0
    targets: tuple[int, ...] = (99999,)  # events that are no image


@dataclass(frozen=True)
class Session:
    """A raw file: ``data`` (channels, samples) in memory or mapped; ``kept``: rows of the EEG channels."""

    data: np.ndarray
    kept: np.ndarray
    ch_names: tuple[str, ...]
    stim: int
    sfreq: float


@dataclass(frozen=True)
class Epoched:
    """Trials of one subject and split, sorted by event id, then session, then time.

    ``x`` float32 (n, C, T), mapped, in the unit of the raw file; ``event_id``, ``session`` (position of the file) and
    ``repetition`` (from 0, over all sessions) are int64 (n,); ``times`` in s. Where every id was shown as often,
    ``x.reshape(n_stimuli, -1, C, T)`` is the usual array.
    """

    x: np.ndarray
    event_id: np.ndarray
    session: np.ndarray
    repetition: np.ndarray
    ch_names: tuple[str, ...]
    times: np.ndarray
    log: tuple[str, ...]


def write_epochs(files: Sequence[str | Path], cache_dir: str | Path, window: EpochWindow | None = None) -> Epoched:
    """Trials of one subject and split: one raw file per recording session, in the order of the sessions.

    Written once to ``<cache_dir>/epochs/<key>.npy`` in pieces and mapped; the key holds the window and path, size and
    time of change of every file.
    """
    window = window or EpochWindow()
    paths = [Path(file) for file in files]
    target = Path(cache_dir) / "epochs" / f"{_key(paths, window)}.npy"
    facts_file = target.with_suffix(".json")
    x, facts = made_once(
        facts_file,
        lambda: (map_npy(target), _facts(facts_file)),
        lambda: write_sealed(facts_file, {**_write(paths, target, window), MADE_FOR: facts_file.stem}),
        f"epochs of {len(paths)} raw files",
    )
    columns = {name: np.array(facts[name], dtype=np.int64) for name in ("event_id", "session", "repetition")}
    return Epoched(
        x=x,
        ch_names=tuple(facts["ch_names"]),
        times=window_times(window),
        log=tuple(facts["log"]),
        **columns,
    )


def window_times(window: EpochWindow) -> np.ndarray:
    """The times (s) of the samples of a trial."""
    return window.tmin + np.arange(round((window.tmax - window.tmin) * window.sfreq)) / window.sfreq


def open_session(raw: Any, what: str) -> Session:
    """The parts of a raw dict, checked against each other; raises `UserError` naming key and value."""
    missing = [key for key in _KEYS if key not in raw] if isinstance(raw, dict) else list(_KEYS)
    if missing:
        raise UserError(f"{what} has no {missing[0]!r}; a raw file is a dict with {', '.join(_KEYS)}")
    stored = raw["raw_eeg_data"]
    data = stored.open() if isinstance(stored, StoredArray) else np.asarray(stored)
    names, kinds = _texts(raw["ch_names"]), _texts(raw["ch_types"])
    if data.ndim != 2 or data.dtype.kind not in "iuf" or not len(data) == len(names) == len(kinds):
        raise UserError(
            f"{what}: raw_eeg_data is {data.dtype} {data.shape} for {len(names)} ch_names and {len(kinds)} ch_types; "
            "expected numbers (channels, samples)"
        )
    stims = [i for i, kind in enumerate(kinds) if kind == "stim"]
    kept = np.array([i for i, kind in enumerate(kinds) if kind == "eeg"], dtype=np.int64)
    if len(stims) != 1 or not len(kept):
        raise UserError(f"{what} has {len(stims)} channels of type 'stim' and {len(kept)} 'eeg'; one stim is needed")
    chosen = tuple(names[i] for i in kept)
    if len(set(chosen)) < len(chosen):
        twice = next(name for name in chosen if chosen.count(name) > 1)
        raise UserError(f"{what} names the channel {twice!r} twice in ch_names")
    return Session(data, kept, chosen, stims[0], _rate(raw["sfreq"], what))


def session_events(session: Session, window: EpochWindow, what: str) -> tuple[np.ndarray, int]:
    """Int64 (n, 2): sample and id of every event but the targets, whose window lies in the recording; number left out.

    An event is the onset of a rise of the stim channel (`mne.find_events`).
    """
    import mne

    stim = np.array(session.data[session.stim : session.stim + 1], dtype=np.float64)
    release(session.data)
    require_finite(stim, f"{what}, stim channel")
    raw = mne.io.RawArray(stim, mne.create_info(["stim"], session.sfreq, "stim"), verbose="ERROR")
    found = mne.find_events(raw, stim_channel="stim", shortest_event=1, verbose="ERROR")
    events = found[:, [0, 2]].astype(np.int64)
    events = events[~np.isin(events[:, 1], window.targets)]
    first, last = (round(edge * session.sfreq) for edge in (window.tmin, window.tmax))
    inside = (events[:, 0] + first >= 0) & (events[:, 0] + last < session.data.shape[1])
    if not inside.any():
        raise UserError(
            f"{what}: the stim channel marks {len(events)} images, {int(inside.sum())} of them with a whole window of "
            f"{window.tmin} to {window.tmax} s; check the file"
        )
    return events[inside], int((~inside).sum())


def epoch_pieces(
    session: Session, events: np.ndarray, window: EpochWindow, what: str
) -> Iterator[tuple[slice, np.ndarray]]:
    """Trials of ``events`` (n, 2), rising in time, as (rows, float32 (rows, C, T)), a piece at a time."""
    import mne

    info = mne.create_info(list(session.ch_names), session.sfreq, "eeg")
    before, after = round(window.tmin * session.sfreq), round(window.tmax * session.sfreq) + 1
    for rows in _groups(events[:, 0], session.sfreq):
        samples = events[rows, 0]
        start, stop = int(samples[0]) + before, int(samples[-1]) + after
        signal = np.asarray(session.data[:, start:stop][session.kept], dtype=np.float64)
        release(session.data)
        raw = mne.io.RawArray(signal, info, verbose="ERROR")
        marks = np.stack([samples - start, np.zeros_like(samples), np.arange(len(samples))], axis=1)
        epochs = mne.Epochs(
            raw, marks, tmin=window.tmin, tmax=window.tmax, baseline=window.baseline, preload=True, proj=False,
            verbose="ERROR",
        )  # fmt: skip
        if window.sfreq != session.sfreq:
            epochs.resample(window.sfreq, verbose="ERROR")
        x = epochs.get_data(copy=False)[:, :, : len(window_times(window))].astype(np.float32)
        require_finite(x, f"{what}, images {rows.start} to {rows.stop - 1}")
        yield rows, x


def _groups(samples: np.ndarray, sfreq: float) -> Iterator[slice]:
    """Runs of events that are cut together: at most `_AT_ONCE`, within `_SPAN` s."""
    start = 0
    for i in range(1, len(samples) + 1):
        if i == len(samples) or i - start == _AT_ONCE or samples[i] - samples[start] > _SPAN * sfreq:
            yield slice(start, i)
            start = i


def _facts(path: Path) -> dict[str, Any]:
    """What `_write` gave for the file of this name; raises `Damaged` for that of another, too."""
    facts: dict[str, Any] = read_json(path)
    require_made_for(path, facts, path.stem)
    return facts


def _write(paths: list[Path], target: Path, window: EpochWindow) -> dict[str, Any]:
    """Write the sorted trials; returns what ``.json`` keeps. First all events are found, then windows are cut."""
    names: tuple[str, ...] | None = None
    events, log = [], []
    for path in paths:
        session = open_session(open_container(path), str(path))
        if names is not None and session.ch_names != names:
            raise UserError(f"{str(path)!r} has other channels than {str(paths[0])!r}; the sessions must agree")
        names = session.ch_names
        found, outside = session_events(session, window, str(path))
        events.append(found)
        if outside:
            log.append(f"{path.name} of {path.parent.name}: {outside} events at the edge of the recording left out")
    event_id = np.concatenate([found[:, 1] for found in events])
    place = np.empty(len(event_id), dtype=np.int64)  # of a trial in the sorted file
    order = np.argsort(event_id, kind="stable")
    place[order] = np.arange(len(order))
    shape = (len(event_id), len(names or ()), len(window_times(window)))
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        head, row_bytes, done = file.tell(), 4 * shape[1] * shape[2], 0
        for path, found in zip(paths, events, strict=True):
            session = open_session(open_container(path), str(path))
            for rows, x in epoch_pieces(session, found, window, str(path)):
                for row, trial in zip(place[done + rows.start : done + rows.stop], x, strict=True):
                    file.seek(head + int(row) * row_bytes)
                    file.write(trial.tobytes())
            done += len(found)
        file.close()
        append_checksum(temporary, target.name)
    session_of = np.repeat(np.arange(len(paths)), [len(found) for found in events])[order]
    _, first, counts = np.unique(event_id[order], return_index=True, return_counts=True)
    repetition = np.arange(len(order)) - np.repeat(first, counts)
    return {
        "ch_names": list(names or ()),
        "event_id": event_id[order].tolist(),
        "session": session_of.tolist(),
        "repetition": repetition.tolist(),
        "log": log,
    }


def _key(paths: list[Path], window: EpochWindow) -> str:
    if not paths:
        raise UserError("no raw file of this subject was found")
    files = []
    for path in paths:
        if not path.is_file():
            raise UserError(f"{str(path)!r} {no_file(path)}")
        facts = path.stat()
        files.append([str(path.resolve()), facts.st_size, facts.st_mtime_ns])
    text = json.dumps([_RECIPE, asdict(window), files])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _texts(value: Any) -> list[str]:
    stored = value.open() if isinstance(value, StoredArray) else value
    return [str(name) for name in np.asarray(stored).ravel().tolist()]


def _rate(value: Any, what: str) -> float:
    try:
        rate = float(value.open().item() if isinstance(value, StoredArray) else value)
    except (TypeError, ValueError):
        rate = float("nan")
    if not 0 < rate < float("inf"):
        raise UserError(f"{what}: sfreq={value!r} is no rate in Hz")
    return rate
