"""A BIDS subject (EEG, MEG or intracranial) to the `folder` layout: windows around the events that show a picture.

    ROOT/sub-01/[ses-02/]eeg/sub-01[_ses-02]_task-view[_run-1]_eeg.vhdr   also .edf .bdf .set, _meg.fif, _ieeg.*
                                                            ..._events.tsv        onset (s), stim_file, ...
                                                            ..._channels.tsv      optional: name, type, status
    ROOT/stimuli/                                                                 where stim_file is looked up

All sessions and runs of the task are joined. Windows are cut as recorded, without filter, baseline or resampling.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.data.importing.layout import Pieces, rows_at_once
from align.data.importing.mne_files import require_tags, say_left_out, signal_channels, unreadable
from align.data.importing.mne_kinds import RAW, refuse_kind
from align.data.importing.parts import Part
from align.data.importing.people import few
from align.data.importing.trials import Table, TrialChoice, choose, read_table
from align.errors import UserError, counted
from align.files.labels import alike, is_missing

KINDS = ("eeg", "meg", "ieeg")
SUFFIXES = (".vhdr", ".edf", ".bdf", ".set", ".fif")
TYPES = ("EEG", "MEGMAG", "MEGGRADAXIAL", "MEGGRADPLANAR", "SEEG", "ECOG", "DBS")  # of channels.tsv

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """One recording: the file, what its name shares with its tables, session label ("" without) and task."""

    path: Path
    stem: str
    session: str
    task: str

    def table(self, name: str) -> Path:
        """Where a table of this recording lies; ``name`` is events or channels."""
        return self.path.with_name(f"{self.stem}_{name}.tsv")


@dataclass(frozen=True)
class Facts:
    """Of one recording: Hz, good channels of signals in its order, number of samples, sample of every event (float, NaN
    where the table says none), the other channels with the reason."""

    sfreq: float
    channels: list[str]
    n_times: int
    onsets: np.ndarray
    left_out: list[str]


def read_bids(
    root: str | Path,
    choice: TrialChoice,
    task: str | None = None,
    window: tuple[float, float] = (-0.2, 1.0),
    images: str | Path | None = None,
) -> Part:
    """The trials of the subject ``choice.subject``: x (n, C, T) in V or T.

    ``window``: first and last sample in s around the onset, both included, rounded to samples. ``images``: default
    ``root/stimuli``. Only channels that are good in every recording are kept. Raises `UserError` as `choose` does,
    and for recordings that do not fit together or a window beyond the ends of one.
    """
    root = Path(root)
    runs = find_runs(root, choice.subject, task)
    tables = [_events(run) for run in runs]
    facts = [_facts(run, table) for run, table in zip(runs, tables, strict=True)]
    sfreq, channels = _agree(runs, facts)
    first, last = (round(edge * sfreq) for edge in window)
    if not first < last:
        raise UserError(f"the window from {window[0]:g} to {window[1]:g} s holds no two samples; widen it")
    rows, trials, files = choose(_joined(tables, root, choice.subject), choice, Path(images or root / "stimuli"))
    run_of = np.repeat(np.arange(len(runs)), [len(table) for table in tables])[rows]
    onset = np.concatenate([fact.onsets for fact in facts])[rows]
    end = np.array([fact.n_times for fact in facts])[run_of]
    with np.errstate(invalid="ignore"):
        whole = (onset + first >= 0) & (onset + last < end)  # False without an onset
    kept = [i for i, trial in enumerate(trials) if whole[i] or trial.split != "unused"]
    if len(kept) < len(trials):
        logger.info("left out %s without a whole window", counted(len(trials) - len(kept), "unused trial"))
    run_of, onset, trials = run_of[kept], onset[kept], [trials[i] for i in kept]
    _require_onsets(tables, runs, np.array(rows)[kept], onset)
    start = onset.astype(np.int64) + first
    _require_inside(runs, facts, run_of, start, start + last - first)
    shape = (len(kept), len(channels), last - first + 1)
    pieces = Pieces(shape, _read(runs, run_of, start, channels, shape))
    info = {"sfreq": sfreq, "ch_names": channels, "tmin": first / sfreq}
    return Part(f"sub-{choice.subject} of {str(root)!r}", pieces, trials, files, info)


def find_runs(root: Path, subject: str, task: str | None) -> list[Run]:
    """The recordings of a subject and task, sessions and runs in the order of their names.

    Raises `UserError` when there is none, when several tasks are there and none is named, and when one recording is
    there in two formats.
    """
    home = root / f"sub-{subject}"
    if not home.is_dir():
        if root.is_file():
            raise UserError(
                f"{str(root)!r} is a file; give --bids the folder that holds sub-..., or a file to --epochs"
            )
        there = sorted(path.name for path in root.glob("sub-*") if path.is_dir())
        same = [name for name in there if alike(name) == alike(subject)]
        labels = [name.removeprefix("sub-") for name in (same or there)]
        if not labels:
            raise UserError(
                f"{str(root)!r} holds no folder sub-{subject}, nor of another subject; is it a BIDS folder?"
            )
        told = "did you mean" if same else "name who is there:"
        raise UserError(
            f"{str(root)!r} holds no folder sub-{subject}; {told} --subject {' '.join(labels)}{'?' if same else ''}"
        )
    found = [run for run in _all_runs(home) if task in (None, run.task)]
    if not found:
        kinds = ", ".join(SUFFIXES)
        raise UserError(f"{str(home)!r} holds no recording of task {task or 'any'} ({kinds} in eeg, meg or ieeg)")
    tasks = sorted({run.task for run in found})
    if len(tasks) > 1:
        raise UserError(f"{str(home)!r} holds recordings of several tasks; give --task: {', '.join(tasks)}")
    stems: dict[str, Path] = {}
    for run in found:
        first = stems.setdefault(run.stem, run.path)
        if first != run.path:
            raise UserError(f"one recording is there twice: {first.name} and {run.path.name}; move one away")
    return found


def _all_runs(home: Path) -> Iterator[Run]:
    for folder in (home, *sorted(home.glob("ses-*"))):
        for path in sorted(path for kind in KINDS for path in folder.glob(f"{kind}/{home.name}_*_{kind}.*")):
            parts = path.stem.split("_")[:-1]
            entities = dict(part.partition("-")[::2] for part in parts)
            if path.suffix not in SUFFIXES or "task" not in entities or entities.get("split", "1").lstrip("0") != "1":
                continue  # MNE reads the later parts of a split file after the first
            stem = "_".join(part for part in parts if not part.startswith("split-"))
            yield Run(path, stem, entities.get("ses", ""), entities["task"])


def _events(run: Run) -> Table:
    """events.tsv with the session as a column."""
    table = read_table(run.table("events"))
    return Table(table.source, {"session": [run.session] * len(table)} | table.columns, len(table))


def _joined(tables: list[Table], root: Path, subject: str) -> Table:
    """All lines under each other; a column that one table lacks is n/a there."""
    names = dict.fromkeys(name for table in tables for name in table.columns)
    columns = {name: [cell for t in tables for cell in t.columns.get(name, ["n/a"] * len(t))] for name in names}
    return Table(f"the events of sub-{subject} in {str(root)!r}", columns, sum(len(table) for table in tables))


def _facts(run: Run, events: Table) -> Facts:
    with _opened(run) as raw:
        sfreq, n_times, names = float(raw.info["sfreq"]), len(raw.times), list(raw.ch_names)
        table = run.table("channels")
        listed = _listed_channels(read_table(table), names) if table.is_file() else None
        channels, left_out = signal_channels(raw, run.path) if listed is None else listed
    onsets = [_onset(text, i, events.source) for i, text in enumerate(events.column("onset"), 1)]
    return Facts(sfreq, channels, n_times, np.array([np.rint(onset * sfreq) for onset in onsets]), left_out)


def _require_onsets(tables: list[Table], runs: list[Run], rows: np.ndarray, onset: np.ndarray) -> None:
    """Raise `UserError` for an event that shows a picture and has no onset; ``rows``: of all tables joined."""
    lacking = rows[np.isnan(onset)]
    if len(lacking):
        ends = np.cumsum([len(table) for table in tables])
        run = int(np.searchsorted(ends, lacking[0], side="right"))
        line = int(lacking[0] - ends[run] + len(tables[run]) + 1)
        raise UserError(
            f"{tables[run].source}: event {line} shows a picture and has no onset ({len(lacking)} such events); give "
            "its onset, or set its picture to n/a"
        )


def _onset(text: str, line: int, source: str) -> float:
    """Seconds; NaN for n/a, which events without picture may have. Raises `UserError` for any other text."""
    if is_missing(text):
        return math.nan
    try:
        onset = float(text)
    except ValueError:
        onset = math.nan
    if not math.isfinite(onset):
        raise UserError(f"{source}: the onset of event {line} is {text!r}, expected seconds")
    return onset


def _listed_channels(table: Table, recorded: list[str]) -> tuple[list[str], list[str]]:
    """Signals that channels.tsv does not call bad, in the order of the recording, and the others with the reason."""
    names, types = table.column("name"), table.column("type")
    status = table.columns.get("status", ["n/a"] * len(table))
    kept = {n for n, t, s in zip(names, types, status, strict=True) if t.upper() in TYPES and s.lower() != "bad"}
    unknown = sorted(kept - set(recorded))
    if unknown:
        raise UserError(f"{table.source} lists channel {unknown[0]!r}, which the recording lacks; mend the table")
    kinds = {n: t.lower() if t.upper() not in TYPES else "bad" for n, t in zip(names, types, strict=True)}
    left_out = [f"{name} ({kinds.get(name, 'not listed')})" for name in recorded if name not in kept]
    return [name for name in recorded if name in kept], left_out


def _agree(runs: list[Run], facts: list[Facts]) -> tuple[float, list[str]]:
    """The sampling rate of all recordings and the channels that are good in each."""
    for run, fact in zip(runs, facts, strict=True):
        if fact.sfreq != facts[0].sfreq:
            rates = f"{facts[0].sfreq:g} and {fact.sfreq:g} Hz"
            raise UserError(
                f"{runs[0].path.name} and {run.path.name} have {rates}; bring them to one rate (MNE: raw.resample)"
            )
    channels = [name for name in facts[0].channels if all(name in fact.channels for fact in facts)]
    if not channels:
        raise UserError(f"no channel is a signal and good in all {len(runs)} recordings, first {runs[0].path.name}")
    where: dict[str, list[str]] = {}  # one session alone may call a channel bad
    for run, fact in zip(runs, facts, strict=True):
        for name in fact.left_out:
            where.setdefault(name, []).append(run.path.name)
    for files in dict.fromkeys(tuple(files) for files in where.values()):
        names = [name for name, found in where.items() if tuple(found) == files]
        say_left_out(names, runs[0].path.parent if len(files) == len(runs) else few(files))
    dropped = sorted({name for fact in facts for name in fact.channels} - set(channels))
    if dropped:
        told = "1 channel that is" if len(dropped) == 1 else f"{len(dropped)} channels that are"
        logger.info("left out %s not good in every recording: %s", told, ", ".join(dropped))
    return facts[0].sfreq, channels


def _require_inside(
    runs: list[Run], facts: list[Facts], run_of: np.ndarray, first: np.ndarray, last: np.ndarray
) -> None:
    end = np.array([fact.n_times for fact in facts])[run_of]
    outside = np.flatnonzero((first < 0) | (last >= end))
    if len(outside):
        run = runs[run_of[outside[0]]]
        raise UserError(
            f"{run.path.name}: the windows of {len(outside)} events go beyond the recording, first the one from sample "
            f"{first[outside[0]]} to {last[outside[0]]} of {end[outside[0]]}; set their stim_file to n/a or take "
            "another window"
        )


def _read(
    runs: list[Run], run_of: np.ndarray, first: np.ndarray, channels: list[str], shape: tuple[int, int, int]
) -> Iterator[np.ndarray]:
    step = rows_at_once(shape)
    for number, run in enumerate(runs):
        starts = first[run_of == number]
        if not len(starts):
            continue
        with _opened(run) as raw:
            picks = [raw.ch_names.index(name) for name in channels]
            for at in range(0, len(starts), step):
                yield np.stack([_cut(run, raw, picks, int(s), shape[2]) for s in starts[at : at + step]])


def _cut(run: Run, raw: Any, picks: list[int], start: int, length: int) -> np.ndarray:
    try:
        x: np.ndarray = raw.get_data(picks=picks, start=start, stop=start + length, verbose="error")
    except Exception as error:
        raise unreadable(run.path, error, "recording") from error
    return x


@contextmanager
def _opened(run: Run) -> Iterator[Any]:
    import mne

    if run.path.suffix == ".fif":
        require_tags([run.path, *run.path.parent.glob(f"{run.stem}_split-*.fif")])
    try:
        raw = mne.io.read_raw(run.path, preload=False, verbose="error")
    except Exception as error:
        refuse_kind(run.path, RAW)
        raise unreadable(run.path, error, "recording") from error
    try:
        yield raw
    finally:
        raw.close()
