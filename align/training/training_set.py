"""Training rows of one or several recordings as one set: signals, distinct pictures, who belongs to what.

`TrainingSide` is that of one subject with its folds: rows to fit on, rows to validate on, no test rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from align.config import Config
from align.data.channel_order import channels_apart
from align.data.rows import Rows
from align.data.signals import Recording, Stimuli, Trials, fingerprint
from align.data.splits import grouped_folds, merge_groups
from align.data.studies.base import Study
from align.encoders.shapes import SignalFacts
from align.errors import UserError
from align.model.aligner import Aligner
from align.training.fit import fit
from align.vision.targets import Targets

_MOST_GROUPS = 1 << 32  # numbers that one recording may use for its groups


@dataclass(frozen=True)
class TrainingSet:
    """``signals`` (n, ...); ``tokens`` (K, N, D) of the distinct pictures; ``stimulus`` (n,) = picture of a row.

    ``groups`` (n,): rows whose pictures show one scene or concept. A picture that several subjects saw is one picture,
    whatever its name: pictures are set apart by their pixels.
    """

    signals: Rows
    tokens: Rows
    stimulus: np.ndarray
    groups: np.ndarray
    shown: list[np.ndarray]  # of every recording, the pictures that it brings

    def of_pictures(self, tokens: Sequence[np.ndarray]) -> Rows:
        """Other tokens of the same pictures, in the same order; ``tokens[i]``: (n_pictures, N, D) of recording i."""
        return Rows(list(zip(tokens, self.shown, strict=True)))


def training_rows(recording: Recording, average: bool, cache_dir: str | Path) -> Trials:
    """The training trials, or their averages over repetitions; averages too large to be held are kept on disk.

    These lie in ``<cache_dir>/signals/averaged-<key>.npy``; the key stands for signals and stimuli.
    """
    trials = recording.train
    if not average:
        return trials
    return trials.averaged(Path(cache_dir) / "signals" / f"averaged-{_key(trials)}.npy")


def join(recordings: Sequence[Recording], trials: Sequence[Trials], tokens: Sequence[np.ndarray]) -> TrainingSet:
    """One set of ``trials[i]`` of ``recordings[i]``, whose pictures have the tokens ``tokens[i]`` (n_pictures, N, D).

    Raises `UserError` when the subjects' signals differ in channels or samples.
    """
    _require_alike(recordings, trials)
    picture: dict[str, int] = {}
    seen: list[np.ndarray] = []
    stimulus, scenes = [], []
    for k, (recording, part) in enumerate(zip(recordings, trials, strict=True)):
        stimuli = recording.stimuli
        shown = np.unique(part.stimulus)
        new = [int(i) for i in shown if stimuli.hashes[i] not in picture]
        picture |= {stimuli.hashes[i]: len(picture) + at for at, i in enumerate(new)}
        seen.append(np.array(new, dtype=np.int64))
        number = np.zeros(len(stimuli), dtype=np.int64)
        number[shown] = [picture[stimuli.hashes[i]] for i in shown]
        stimulus.append(number[part.stimulus])
        scenes.append(k * _MOST_GROUPS + np.asarray(stimuli.groups, dtype=np.int64)[part.stimulus])
    stimuli_of_rows = np.concatenate(stimulus)
    groups = scenes[0] if len(scenes) == 1 else merge_groups(np.concatenate(scenes), [str(i) for i in stimuli_of_rows])
    return TrainingSet(
        Rows([(part.x, np.arange(len(part))) for part in trials]),
        Rows(list(zip(tokens, seen, strict=True))),
        stimuli_of_rows,
        groups,
        seen,
    )


def _require_alike(recordings: Sequence[Recording], trials: Sequence[Trials]) -> None:
    first = recordings[0]
    for recording, part in zip(recordings, trials, strict=True):
        shapes = tuple(trials[0].x.shape[1:]), tuple(part.x.shape[1:])
        names = channels_apart(first.ch_names, recording.ch_names)
        if shapes[0] != shapes[1] or names:
            raise UserError(
                f"subjects {first.subject} and {recording.subject} have trials of {shapes[0]} and {shapes[1]}"
                f"{'' if shapes[0] != shapes[1] else f' with other channels: {names}'}; one encoder for both needs "
                "the same channels and samples (preprocess.channels, tmin, tmax, sfreq; names in preprocess.channels "
                "set the order too)"
            )


def _key(trials: Trials) -> str:
    digest = hashlib.sha256(fingerprint(trials.x).encode())
    digest.update(np.ascontiguousarray(trials.stimulus).tobytes())
    return digest.hexdigest()[:16]


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
            Rows.of(self.train.x).subset(rows),
            Rows.of(targets.tokens).subset(pictures),
            index,
            groups=np.asarray(self.stimuli.groups)[stimulus],
            widths=targets.widths,
            view_tokens=[Rows.of(level).subset(pictures) for level in targets.view_tokens],
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
    regions = [np.array(voxels) for _, voxels in sorted(recording.regions.items())]
    digest = digest_rows(train, groups, *regions)
    return TrainingSide(name, recording.stimuli, train, averaged, folds, digest, SignalFacts.of(recording))


def digest_rows(trials: Trials, *more: np.ndarray) -> str:
    """SHA-256 of signals (see `fingerprint`), stimulus indices and further arrays."""
    digest = hashlib.sha256(fingerprint(trials.x).encode())
    for array in (trials.stimulus, *more):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def device() -> str:
    """Where fits and backbones run: the GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"
