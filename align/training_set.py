"""Training rows of one or several recordings as one set: signals, distinct pictures, who belongs to what."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from align.data.signals import Recording, Trials, fingerprint
from align.data.splits import merge_groups
from align.errors import UserError
from align.rows import Rows

_MOST_GROUPS = 1 << 32  # numbers that one recording may use for its groups


@dataclass(frozen=True)
class TrainingSet:
    """``signals`` (n, ...); ``tokens`` (K, N, D) of the distinct pictures; ``stimulus`` (n,) = picture of a row.

    ``groups`` (n,): rows whose pictures show one scene or concept. A picture that several subjects saw is one picture,
    whatever its name: pictures are told apart by their pixels.
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
        if shapes[0] != shapes[1] or recording.ch_names != first.ch_names:
            raise UserError(
                f"subjects {first.subject} and {recording.subject} have trials of {shapes[0]} and {shapes[1]}"
                f"{'' if shapes[0] != shapes[1] else ' with other channels'}; one encoder for both needs the same "
                "channels and samples (preprocess.channels, tmin, tmax, sfreq)"
            )


def _key(trials: Trials) -> str:
    digest = hashlib.sha256(fingerprint(trials.x).encode())
    digest.update(np.ascontiguousarray(trials.stimulus).tobytes())
    return digest.hexdigest()[:16]
