"""Bring your own recordings: a folder with signals, a table of what was shown, and the pictures.

``study.root`` holds

- ``signals.npy`` (or ``.npz``, ``.h5``, ``.mat``): numbers (n, channels, samples) or (n, voxels), one row per trial;
- ``stimuli.csv``: one line per trial with the columns ``row`` (0 to n-1), ``image`` (file under the folder or its
  ``images/``; one that lies elsewhere, as `recon data import --link` leaves them, is read and told), ``split``
  (``train``, ``test`` or ``unused``), ``subject``, and optionally ``concept``, ``caption``, ``repetition``,
  ``session`` (the recording session; for all lines of a subject or none);
- optionally ``info.json``: ``sfreq`` (Hz), ``ch_names``, ``tmin`` (s), ``concept_disjoint`` (true: refuse a split
  whose training and test share a concept), ``roi`` (regions for ``study.roi``: {name: [channel names, or indices of
  channels or voxels from 0]}), and what an import writes: ``notes`` (sentences that `recon data check` repeats) and
  ``voxels`` (see `align.data.importing.voxels`).

A split in which training and test share a picture is refused; near-duplicates over the split are named in the log.
"""

from __future__ import annotations

import csv
import json
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from align.config import Config
from align.data.names import strays
from align.data.reading.safe_load import ARRAY_SUFFIXES, decode_image, load_array, require_finite, require_rows
from align.data.signals import Recording, Stimuli, Trials, fits, mapped_file
from align.data.splits import merge_groups, refuse_overlap, scene_groups, scene_twins, thumbnails
from align.data.studies.base import Fact, Study, StudyInfo, require_root
from align.errors import UserError
from align.files import no_file, read_json
from align.files.labels import found_file, is_missing, present, refuse_alike, tidy, whole
from align.files.table import refuse_separator

logger = logging.getLogger(__name__)

LAYOUT = "a folder with signals.npy (or .npz, .h5, .mat), stimuli.csv and the images"
SPLITS = ("train", "test", "unused")


@dataclass(frozen=True)
class Row:
    """One line of ``stimuli.csv``; ``line`` is its line number in the file."""

    line: int
    row: int
    image: str
    split: str
    subject: str
    concept: str
    caption: str
    repetition: int | None
    session: str


@dataclass(frozen=True)
class Info:
    """What ``info.json`` may say."""

    sfreq: float | None = None
    ch_names: tuple[str, ...] = ()
    tmin: float = 0.0
    concept_disjoint: bool = False
    roi: dict[str, tuple[int | str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Folder(Study):
    """Recordings described by ``stimuli.csv`` in ``study.root``."""

    info: ClassVar[StudyInfo] = StudyInfo(
        name="folder",
        title="Recordings brought by the user",
        signal="any",
        source="the folder study.root",
        licence="that of the recordings",
        row_order="the column row of stimuli.csv, every row listed once; there is nothing else to compare it with",
    )

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.root = require_root(config, LAYOUT)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Subject labels in order of appearance in ``stimuli.csv``."""
        return tuple(dict.fromkeys(row.subject for row in self.table if row.subject))

    @cached_property
    def table(self) -> list[Row]:
        """The lines of ``stimuli.csv``."""
        return _read_table(self.root / "stimuli.csv")

    @cached_property
    def signals(self) -> np.ndarray:
        """All trials of all subjects, (n, channels, samples) or (n, voxels), as stored."""
        signals = load_array(_signals_file(self.root), mapped=True)
        if signals.ndim not in (2, 3) or 0 in signals.shape:
            raise UserError(f"signals have shape {signals.shape}; expected (n, channels, samples) or (n, voxels)")
        if len(signals) > len(self.table):
            raise UserError(
                f"{str(self.root)!r} holds {len(signals)} rows of signals and stimuli.csv lists {len(self.table)}; if "
                "recon data import --append was stopped there, give it again; else list every row, with split=unused "
                "for those to leave out"
            )
        require_rows(len(signals), len(self.table), f"{str(self.root)!r}")
        _require_each_row_once(self.table)
        return signals

    @cached_property
    def details(self) -> Info:
        """``info.json``, checked against the signals."""
        info = _read_info(self.root / "info.json")
        if info.ch_names and len(info.ch_names) != self.signals.shape[1]:
            raise UserError(f"info.json names {len(info.ch_names)} channels, the signals have {self.signals.shape[1]}")
        return info

    def read(self, subject: str) -> Recording:
        """One subject: ``x`` float32 in the units of the file, not standardised; one `Trials` row per line."""
        self.require_subject(subject)
        lines = [row for row in self.table if row.subject == subject and row.split != "unused"]
        for split in ("train", "test"):
            if not any(row.split == split for row in lines):
                raise UserError(f"subject {subject} has no {split} rows in stimuli.csv; mark some with split={split}")
        _require_sessions_or_none(lines)
        first: dict[str, Row] = {}
        for row in lines:
            first.setdefault(row.image, row)
        stimuli, log = _stimuli(self.root, list(first.values()))
        log += _outside(self.root, list(first.values()))
        index = {image: i for i, image in enumerate(first)}
        recording = Recording(
            study=self.info.name,
            subject=subject,
            train=self._trials([row for row in lines if row.split == "train"], index),
            test=self._trials([row for row in lines if row.split == "test"], index),
            stimuli=stimuli,
            ch_names=self.details.ch_names,
            sfreq=self.details.sfreq,
            tmin=self.details.tmin,
            log=tuple(log),
        )
        refuse_overlap(recording, self.details.concept_disjoint)
        return recording

    def rois(self, subject: str) -> dict[str, tuple[int | str, ...]]:
        """The regions of ``info.json``, the same for all subjects."""
        return self.details.roi

    def notes(self) -> tuple[str, ...]:
        """What the import found doubtful."""
        return self.details.notes

    def check(self) -> list[Fact]:
        """What ``stimuli.csv`` lists beside what can be read; every fault in the files raises `UserError`."""
        facts = [Fact("trials", str(len(self.table)), str(len(self.signals)))]
        for subject in self.config.subjects or self.subjects:
            recording = self.recording(subject)
            lines = [row for row in self.table if row.subject == subject]
            for split, trials in (("train", recording.train), ("test", recording.test)):
                listed = [row for row in lines if row.split == split]
                declared = f"{len(listed)} trials of {len({row.image for row in listed})} images"
                hashes = {recording.stimuli.hashes[i] for i in trials.stimulus}
                facts.append(Fact(f"{subject} {split}", declared, f"{len(trials)} trials of {len(hashes)} images"))
        return facts

    def _trials(self, lines: Sequence[Row], index: dict[str, int]) -> Trials:
        counted: Counter[str] = Counter()
        repetition = []
        for row in lines:
            repetition.append(counted[row.image] if row.repetition is None else row.repetition)
            counted[row.image] += 1
        return Trials(
            x=self._rows(np.array([row.row for row in lines]), f"subject {lines[0].subject}, {lines[0].split} rows"),
            stimulus=np.array([index[row.image] for row in lines], dtype=np.int64),
            repetition=np.array(repetition, dtype=np.int64),
            session=np.array([row.session for row in lines]) if lines[0].session else None,
        )

    def _rows(self, rows: np.ndarray, what: str) -> np.ndarray:
        """Rows of the signals as float32; a large block of them stays mapped from the file, in the file's type."""
        if mapped_file(self.signals) is not None and not fits(4 * len(rows) * self.signals[0].size):
            if (np.diff(rows) == 1).all():
                return self.signals[rows[0] : rows[-1] + 1]
            logger.warning("signals of %s are scattered over the file and are copied to memory", what)
        with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite and is named below
            x = self.signals[rows].astype(np.float32)
        require_finite(x, f"signals of {what}")
        return x


def _signals_file(root: Path) -> Path:
    found = [root / f"signals{suffix}" for suffix in ARRAY_SUFFIXES if (root / f"signals{suffix}").is_file()]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or f"no signals file ({', '.join(ARRAY_SUFFIXES)})"
        raise UserError(f"{str(root)!r} holds {names}; it should hold exactly one signals file")
    return found[0]


def _read_table(path: Path) -> list[Row]:
    if not path.is_file():
        raise UserError(f"{str(path)!r} {no_file(path)}; list the trials there (row, image, split, subject)")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            header = [_column(name or "") for name in reader.fieldnames or []]
            reader.fieldnames = header
            refuse_separator(header, path.name)
            twice = [name for i, name in enumerate(header) if name and name in header[:i]]
            if twice:
                raise UserError(f"{path.name} has two columns called {twice[0]!r}; rename one")
            missing = [name for name in ("row", "image", "split", "subject") if name not in header]
            if missing:
                raise UserError(f"{path.name} lacks the column {missing[0]!r}; it has: {', '.join(header) or 'none'}")
            rows = [_row(cells, reader.line_num) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path.name} is not a UTF-8 table with commas ({error})") from error
    if not rows:
        raise UserError(f"{path.name} lists no trials")
    refuse_alike((row.subject for row in rows if row.subject), "subjects", path.name)
    for subject in dict.fromkeys(row.subject for row in rows):
        sessions = (row.session for row in rows if row.subject == subject and row.session)
        refuse_alike(sessions, f"subject {subject}, sessions", path.name)
    return rows


def _column(name: str) -> str:
    name = tidy(name).lower().replace(" ", "_")
    return "image" if name == "image_file" else name


def _row(cells: dict[str, str | None], line: int) -> Row:
    if None in cells:  # where the reader puts what the header has no column for
        raise UserError(f"stimuli.csv line {line}: more cells than columns; put texts with commas in double quotes")
    text = {name: tidy(value) for name, value in cells.items()}
    unused = text["split"].lower() == "unused"
    for name in ("row", "split", "image", "subject"):
        if is_missing(text[name]) and not (unused and name in ("image", "subject")):
            said = f"{text[name]!r}" if text[name] else "empty"
            raise UserError(f"stimuli.csv line {line}: {name} is {said}; say what it is, or set split to unused")
    if text["split"].lower() not in SPLITS:
        raise UserError(f"stimuli.csv line {line}: split {text['split']!r} is not one of {', '.join(SPLITS)}")
    known = {name: present(text.get(name)) for name in ("concept", "caption", "repetition", "session")}
    return Row(
        line=line,
        row=_whole(text["row"], "row", line),
        image=present(text["image"]),
        split=text["split"].lower(),
        subject=present(text["subject"]),
        concept=known["concept"],
        caption=known["caption"],
        repetition=_whole(known["repetition"], "repetition", line) if known["repetition"] else None,
        session=whole(known["session"]),
    )


def _whole(text: str, name: str, line: int) -> int:
    plain = whole(text)
    if not (plain.isascii() and plain.isdigit()):
        raise UserError(f"stimuli.csv line {line}: {name} {text!r} is not a whole number from 0 up")
    return int(plain)


def _require_each_row_once(table: Sequence[Row]) -> None:
    first: dict[int, int] = {}
    for row in table:
        if row.row >= len(table):
            raise UserError(
                f"stimuli.csv line {row.line}: row {row.row} is beyond the last row {len(table) - 1} (from 0)"
            )
        if row.row in first:
            raise UserError(f"stimuli.csv line {row.line}: row {row.row} stands in line {first[row.row]} already")
        first[row.row] = row.line


def _require_sessions_or_none(lines: Sequence[Row]) -> None:
    named = [row for row in lines if row.session]
    for row in lines:
        if named and not row.session:
            raise UserError(f"stimuli.csv line {row.line}: session is empty, line {named[0].line} names one; name all")


def _read_info(path: Path) -> Info:
    if not path.exists():
        return Info()
    content = read_json(path)
    names = ("sfreq", "ch_names", "tmin", "concept_disjoint", "roi", "voxels", "notes")
    unknown = [name for name in content if name not in names] if isinstance(content, dict) else [json.dumps(content)]
    if unknown:
        raise UserError(f"info.json: {unknown[0]!r} is not known; it may hold {', '.join(names)}")
    ch_names = content.get("ch_names", [])
    if not isinstance(ch_names, list) or not all(isinstance(name, str) for name in ch_names):
        raise UserError("info.json: ch_names is not a list of texts")
    sfreq = None if content.get("sfreq") is None else _number(content["sfreq"], "sfreq")
    if sfreq is not None and sfreq <= 0:
        raise UserError(f"info.json: sfreq {sfreq} is not a rate in Hz above 0")
    disjoint = content.get("concept_disjoint", False)
    if not isinstance(disjoint, bool):
        raise UserError(f"info.json: concept_disjoint {disjoint!r} is not true or false")
    roi, notes = _read_rois(content.get("roi", {})), content.get("notes", [])
    if not isinstance(notes, list) or not all(isinstance(text, str) for text in notes):
        raise UserError("info.json: notes is not a list of texts")
    return Info(sfreq, tuple(ch_names), _number(content.get("tmin", 0.0), "tmin"), disjoint, roi, tuple(notes))


def _read_rois(content: object) -> dict[str, tuple[int | str, ...]]:
    """Regions by name, each a list of texts or whole numbers; whether they fit the signals is seen when one is used."""
    if not isinstance(content, dict):
        raise UserError('info.json: roi is no object of lists, such as {"V1": [0, 1, 2]}')
    for name, members in content.items():
        if not isinstance(members, list) or not all(type(entry) in (int, str) for entry in members):
            raise UserError(f"info.json: roi {name!r} is not a list of channel names or whole numbers")
    return {name: tuple(members) for name, members in content.items()}


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(f"info.json: {name} {value!r} is not a number")
    return float(value)


def _stimuli(root: Path, shown: Sequence[Row]) -> tuple[Stimuli, list[str]]:
    """The pictures of ``shown`` and sentences about them.

    Groups join near-duplicates and, where concepts are given, pictures of one concept.
    """
    paths = [_picture_file(root, row) for row in shown]
    bare = Stimuli(
        ids=tuple(row.image for row in shown),
        load=lambda i: decode_image(paths[i]),
        groups=np.arange(len(shown)),
        concepts=tuple(row.concept for row in shown),
        captions=tuple(row.caption for row in shown),
    )
    thumbs = thumbnails(bare.load(i) for i in range(len(bare)))
    groups = merge_groups(scene_groups(thumbs, bare.hashes), bare.concepts)
    return replace(bare, groups=groups), _near_duplicates(thumbs, shown)


def _picture_file(root: Path, row: Row) -> Path:
    found = found_file((root / row.image, root / "images" / row.image))
    if found is not None:
        return found
    raise UserError(f"stimuli.csv line {row.line}: image {row.image!r} is neither in the folder nor in its images/")


def _outside(root: Path, shown: Sequence[Row]) -> list[str]:
    """A sentence about pictures that lie outside the study's folder, also by way of a link; told once in the log."""
    away = strays(root, [_picture_file(root, row) for row in shown])
    if not away:
        return []
    first = shown[away[0]]
    text = (
        f"{len(away)} of {len(shown)} pictures lie outside the study's folder, the first is {first.image!r} "
        f"(stimuli.csv line {first.line}); that is right after import with --link, else ask where they come from"
    )
    _tell(str(root), text)
    return [text]


@cache
def _tell(root: str, text: str) -> None:
    """Once per study and sentence."""
    logger.warning("%s: %s", root, text)


def _near_duplicates(thumbs: np.ndarray, shown: Sequence[Row]) -> list[str]:
    """A sentence naming training pictures that look like a test picture (thumbnail r > .97)."""
    train = [i for i, row in enumerate(shown) if row.split == "train"]
    test = [i for i, row in enumerate(shown) if row.split == "test"]
    twins = scene_twins(thumbs[train], thumbs[test], [], [])
    names = [shown[i].image for i, twin in zip(train, twins, strict=True) if twin]
    if not names:
        return []
    head = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return [f"kept {len(names)} training pictures that look like a test picture (thumbnail r > .97): {head}"]
