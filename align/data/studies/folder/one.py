"""One folder of recordings: a signals file, a table of what was shown, and the pictures."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from align.data.reading.safe_load import ARRAY_SUFFIXES, load_array, require_finite, require_rows
from align.data.signals import Recording, Trials, fits, mapped_file
from align.data.splits import refuse_overlap
from align.data.studies.base import Fact
from align.data.studies.folder.info import Info, read_info
from align.data.studies.folder.pictures import outside, stimuli_of
from align.data.studies.folder.table import Row, read_stimuli, require_each_row_once, require_sessions_or_none
from align.errors import UserError

logger = logging.getLogger(__name__)


class OneFolder:
    """Recordings described by ``stimuli.csv`` in ``root``, all of one shape; ``study``: the name they go by."""

    def __init__(self, root: Path, study: str) -> None:
        self.root = root
        self.study = study

    @property
    def subjects(self) -> tuple[str, ...]:
        """Subject labels in order of appearance in ``stimuli.csv``."""
        return tuple(dict.fromkeys(row.subject for row in self.table if row.subject))

    @cached_property
    def table(self) -> list[Row]:
        """The lines of ``stimuli.csv``."""
        return read_stimuli(self.root / "stimuli.csv")

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
        require_each_row_once(self.table)
        return signals

    @cached_property
    def details(self) -> Info:
        """``info.json``, checked against the signals."""
        info = read_info(self.root / "info.json")
        if info.ch_names and len(info.ch_names) != self.signals.shape[1]:
            raise UserError(f"info.json names {len(info.ch_names)} channels, the signals have {self.signals.shape[1]}")
        return info

    def read(self, subject: str) -> Recording:
        """One subject: ``x`` float32 in the units of the file, not standardised; one `Trials` row per line."""
        lines = [row for row in self.table if row.subject == subject and row.split != "unused"]
        for split in ("train", "test"):
            if not any(row.split == split for row in lines):
                raise UserError(f"subject {subject} has no {split} rows in stimuli.csv; mark some with split={split}")
        require_sessions_or_none(lines)
        first: dict[str, Row] = {}
        for row in lines:
            first.setdefault(row.image, row)
        stimuli, log = stimuli_of(self.root, list(first.values()))
        log += outside(self.root, list(first.values()))
        index = {image: i for i, image in enumerate(first)}
        recording = Recording(
            study=self.study,
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

    def trials(self) -> Fact:
        """Lines of ``stimuli.csv`` beside rows of the signals."""
        return Fact("trials", str(len(self.table)), str(len(self.signals)))

    def check(self, subject: str, recording: Recording) -> list[Fact]:
        """What ``stimuli.csv`` lists for a subject beside what its recording holds."""
        facts = []
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
