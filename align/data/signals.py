"""What a study hands over: pictures (`Stimuli`), recordings of them (`Trials`), both together (`Recording`)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Stimuli:
    """Pictures in a fixed order. ``load(i)`` gives picture i as uint8 (H, W, 3); sizes may differ between pictures.

    ``groups`` (n,) int: pictures of one group (scene, or concept where the study has concepts) never stand on the two
    sides of a validation split. ``concepts`` and ``captions`` are "" where the study has none.
    """

    ids: tuple[str, ...]
    load: Callable[[int], np.ndarray]
    groups: np.ndarray
    concepts: tuple[str, ...]
    captions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """SHA-256 of the decoded pixels and size of every picture."""
        return tuple(pixel_hash(self.load(i)) for i in range(len(self)))


def pixel_hash(image: np.ndarray) -> str:
    """SHA-256 of a decoded picture, uint8 (H, W, 3), and of its size."""
    head = f"{image.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(image).tobytes()).hexdigest()


@dataclass(frozen=True)
class Trials:
    """Recording windows: ``x`` (n, C, T) or (n, V), in memory or mapped from a file, any float type.

    ``stimulus`` (n,) int64 = index into `Stimuli`; ``session`` (n,) = recording session, where it is known.
    """

    x: np.ndarray
    stimulus: np.ndarray
    repetition: np.ndarray
    session: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.stimulus)

    def take(self, rows: np.ndarray) -> Trials:
        """The given rows, in the given order."""
        session = None if self.session is None else self.session[rows]
        return Trials(self.x[rows], self.stimulus[rows], self.repetition[rows], session)

    def averaged(self) -> Trials:
        """One row per stimulus, mean over its repetitions, in rising order of the stimulus index."""
        stimulus, inverse, counts = np.unique(self.stimulus, return_inverse=True, return_counts=True)
        if len(stimulus) == len(self):
            return self.take(np.argsort(self.stimulus, kind="stable"))
        order = np.argsort(inverse, kind="stable")
        ends = np.cumsum(counts)
        x = np.empty((len(stimulus), *self.x.shape[1:]), dtype=np.float32)
        for i, (end, count) in enumerate(zip(ends, counts, strict=True)):
            x[i] = self.x[order[end - count : end]].mean(axis=0, dtype=np.float32)
        return Trials(x=x, stimulus=stimulus, repetition=np.zeros(len(stimulus), dtype=np.int64))


@dataclass(frozen=True)
class Recording:
    """One subject: training and test trials that share no picture, and the pictures.

    ``log``: sentences about what the study removed or averaged. ``sfreq`` in Hz and ``tmin`` in s for (C, T) signals.
    """

    study: str
    subject: str
    train: Trials
    test: Trials
    stimuli: Stimuli
    ch_names: tuple[str, ...] = ()
    sfreq: float | None = None
    tmin: float = 0.0
    log: tuple[str, ...] = field(default=())
