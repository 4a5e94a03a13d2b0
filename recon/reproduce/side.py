"""The training side of one subject: rows to fit on, rows to validate on, folds of pictures."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from align.config import Config
from align.data.signals import Recording, Stimuli, Trials, fingerprint
from align.data.splits import grouped_folds
from align.data.studies.base import Study
from align.encoders.shapes import SignalFacts
from align.training_set import training_rows


@dataclass(frozen=True)
class Side:
    """``train``: rows to fit on; ``averaged``: one row per picture, to validate on; ``digest``: stands for both.

    ``folds``: pairs (pictures to fit on, pictures to validate on) that share no group. ``recording`` holds the test
    rows; nothing here has read them.
    """

    name: str
    recording: Recording
    train: Trials
    averaged: Trials
    folds: list[tuple[np.ndarray, np.ndarray]]
    digest: str
    facts: SignalFacts

    @property
    def stimuli(self) -> Stimuli:
        """The pictures."""
        return self.recording.stimuli

    def fold(self, number: int) -> tuple[np.ndarray, Trials]:
        """Rows of ``train`` to fit on, and the averaged rows held out."""
        fit_on, held_out = self.folds[number]
        rows = np.flatnonzero(np.isin(self.train.stimulus, fit_on))
        return rows, self.averaged.take(np.flatnonzero(np.isin(self.averaged.stimulus, held_out)))


def side_of(study: Study, config: Config, name: str) -> Side:
    """The training side of subject ``name``; raises `UserError` for faults in the files or too many folds."""
    recording = study.recording(name)
    averaged = training_rows(recording, True, config.cache_dir)
    train = averaged if config.train.average_repetitions else recording.train
    groups = np.asarray(recording.stimuli.groups)[averaged.stimulus]
    pairs = grouped_folds(groups, config.sweep.folds, config.seed)
    folds = [(averaged.stimulus[fitted], averaged.stimulus[held_out]) for fitted, held_out in pairs]
    facts = SignalFacts(recording.sfreq, recording.ch_names)
    return Side(name, recording, train, averaged, folds, digest_rows(train, groups), facts)


def digest_rows(trials: Trials, *more: np.ndarray) -> str:
    """SHA-256 of signals (see `fingerprint`), stimulus indices and further arrays."""
    digest = hashlib.sha256(fingerprint(trials.x).encode())
    for array in (trials.stimulus, *more):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
