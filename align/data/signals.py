"""What a study hands over: pictures (`Stimuli`), recordings of them (`Trials`), both together (`Recording`)."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

_RELEASED = 1 << 22  # bytes read from a map between two releases


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


def mapped_file(x: np.ndarray) -> np.memmap | None:
    """The map of a file that ``x`` is a view of; None for an array in memory."""
    at: Any = x
    while at is not None and not (isinstance(at, np.memmap) and isinstance(at.base, mmap.mmap)):
        at = getattr(at, "base", None)
    return at


def release(x: np.ndarray) -> None:
    """Let go of the pages of a mapped file that were read: they count as this process's memory until then.

    The array stays valid. Nothing happens to arrays in memory, to writable maps, and on systems without the call.
    """
    source = mapped_file(x)
    if source is not None and source.mode == "r" and hasattr(mmap, "MADV_DONTNEED"):
        source.base.madvise(mmap.MADV_DONTNEED)  # type: ignore[union-attr]


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
        """One row per stimulus, mean over its repetitions, in rising order of the stimulus index.

        Works stimulus by stimulus: of a mapped file only the result (float32) is held. Trials that are one per
        stimulus and in order already are returned as they are, still mapped.
        """
        stimulus, inverse, counts = np.unique(self.stimulus, return_inverse=True, return_counts=True)
        if len(stimulus) == len(self):
            in_order = bool((np.diff(self.stimulus) > 0).all())
            return self if in_order else self.take(np.argsort(self.stimulus, kind="stable"))
        order = np.argsort(inverse, kind="stable")
        ends = np.cumsum(counts)
        x = np.empty((len(stimulus), *self.x.shape[1:]), dtype=np.float32)
        unread = _RELEASED
        for i, (end, count) in enumerate(zip(ends, counts, strict=True)):
            rows = self.x[order[end - count : end]]
            x[i] = rows.mean(axis=0, dtype=np.float64)
            unread -= rows.nbytes
            if unread <= 0:
                release(self.x)
                unread = _RELEASED
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
