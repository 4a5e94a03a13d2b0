"""The training side of one subject: rows to fit on, rows to validate on, folds of pictures; no test rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from align.config import Config
from align.data.signals import Stimuli, Trials, fingerprint
from align.data.splits import grouped_folds
from align.data.studies.base import Study
from align.encoders.shapes import SignalFacts
from align.fit import fit
from align.model import Aligner
from align.rows import Rows
from align.training_set import training_rows
from align.vision.targets import Targets


@dataclass(frozen=True)
class TrainingSide:
    """``train``: rows to fit on; ``averaged``: one row per picture, to validate on; ``digest``: stands for both.

    ``folds``: pairs (pictures to fit on, pictures to validate on) that share no group.
    """

    name: str
    stimuli: Stimuli
    train: Trials
    averaged: Trials
    folds: list[tuple[np.ndarray, np.ndarray]]
    digest: str
    facts: SignalFacts

    def fold(self, number: int) -> tuple[np.ndarray, Trials]:
        """Rows of ``train`` to fit on, and the averaged rows held out."""
        fit_on, held_out = self.folds[number]
        rows = np.flatnonzero(np.isin(self.train.stimulus, fit_on))
        return rows, self.averaged.take(np.flatnonzero(np.isin(self.averaged.stimulus, held_out)))

    def fit(self, config: Config, rows: np.ndarray, targets: Targets, **options: Any) -> Aligner:
        """`fit` on the given rows of ``train``; of the targets it is handed the pictures of these rows only."""
        stimulus = self.train.stimulus[rows]
        pictures, index = np.unique(stimulus, return_inverse=True)
        return fit(
            config,
            Rows.of(self.train.x).only(rows),
            Rows.of(targets.tokens).only(pictures),
            index,
            groups=np.asarray(self.stimuli.groups)[stimulus],
            widths=targets.widths,
            around=[Rows.of(level).only(pictures) for level in targets.around],
            facts=self.facts,
            device=device(),
            **options,
        )


def training_side(study: Study, config: Config, name: str) -> TrainingSide:
    """Training rows and folds of subject ``name``; raises `UserError` for faults in the files or too many folds."""
    recording = study.recording(name)
    averaged = training_rows(recording, True, config.cache_dir)
    train = averaged if config.train.average_repetitions else recording.train
    groups = np.asarray(recording.stimuli.groups)[averaged.stimulus]
    pairs = grouped_folds(groups, config.sweep.folds, config.seed)
    folds = [(averaged.stimulus[fitted], averaged.stimulus[held_out]) for fitted, held_out in pairs]
    facts = SignalFacts(recording.sfreq, recording.ch_names)
    return TrainingSide(name, recording.stimuli, train, averaged, folds, digest_rows(train, groups), facts)


def digest_rows(trials: Trials, *more: np.ndarray) -> str:
    """SHA-256 of signals (see `fingerprint`), stimulus indices and further arrays."""
    digest = hashlib.sha256(fingerprint(trials.x).encode())
    for array in (trials.stimulus, *more):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def device() -> str:
    """Where fits and backbones run: the GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"
