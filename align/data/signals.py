"""What a study hands over: pictures (`Stimuli`), recordings of them (`Trials`), both together (`Recording`)."""

from __future__ import annotations

import hashlib
import math
import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from align.files import atomic_path
from align.files.checksums import append_checksum, map_npy
from align.files.made_once import made_once

HELD = 1 << 29  # bytes of float32 rows up to which they are held in memory
_RELEASED = 1 << 22  # bytes read from a map between two releases
_LOOKED_AT = 256  # rows of a mapped file whose values enter its fingerprint
_HASHED = 1 << 24  # bytes hashed at once


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
    known_hashes: Callable[[], tuple[str, ...]] | None = None  # a quicker way to `hashes`

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """SHA-256 of the decoded pixels and size of every picture."""
        if self.known_hashes is not None:
            return self.known_hashes()
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


def fingerprint(x: np.ndarray) -> str:
    """SHA-256 that stands for the values of ``x``: of all of them in memory.

    Of a mapped file: its size, the time of its last change, and `_LOOKED_AT` rows spread over ``x``.
    """
    digest = hashlib.sha256(f"{x.shape} {x.dtype.str}".encode())
    source = mapped_file(x)
    if source is None or source.filename is None:
        count = max(1, _HASHED // max(1, x[:1].nbytes))
        pieces: Iterator[np.ndarray] = (x[start : start + count] for start in range(0, len(x), count))
    else:
        file = Path(source.filename).stat()
        digest.update(f"{file.st_size} {file.st_mtime_ns}".encode())
        looked_at = np.unique(np.linspace(0, max(0, len(x) - 1), _LOOKED_AT).astype(np.int64))
        pieces = (x[row] for row in looked_at[: len(x)])
    for piece in pieces:
        digest.update(np.ascontiguousarray(piece).data)
        release(x)
    return digest.hexdigest()


def trial_size(shape: Sequence[int]) -> str:
    """Shape of one trial, (C, T) or (V,), in words."""
    return f"{shape[0]} voxels or units" if len(shape) == 1 else f"{shape[0]} channels x {shape[1]} samples"


def fits(nbytes: int) -> bool:
    """So many bytes of float32 rows are held in memory; more are left in their files."""
    return nbytes <= HELD


def save_rows(path: Path, shape: tuple[int, ...], pieces: Iterable[np.ndarray], of: str | None = None) -> None:
    """Write a float32 ``.npy`` file of ``shape`` from its rows, one or several at a time; complete or not at all.

    A checksum follows the values; `align.files.checksums.map_npy` compares it when it is given the same ``of``.
    """
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece, dtype="<f4").data)
        file.close()
        append_checksum(temporary, path.name if of is None else of)


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

    def averaged(self, store: Path | None = None) -> Trials:
        """One row per stimulus, mean over its repetitions (float32), in rising order of the stimulus index.

        Works stimulus by stimulus: of a mapped file only the result is held, and a result above `HELD` is written to
        the file ``store`` (.npy), where one is given, and mapped from there; a file that is there already is taken.
        Trials that are one per stimulus and in order are returned as they are, still mapped.
        """
        stimulus, counts = np.unique(self.stimulus, return_counts=True)
        if len(stimulus) == len(self):
            in_order = bool((np.diff(self.stimulus) > 0).all())
            return self if in_order else self.take(np.argsort(self.stimulus, kind="stable"))
        shape = (len(stimulus), *self.x.shape[1:])
        if store is None or fits(4 * math.prod(shape)):
            x = np.empty(shape, dtype=np.float32)
            for i, row in enumerate(self._means(counts)):
                x[i] = row
        else:
            target = store
            x = made_once(
                target,
                lambda: map_npy(target),
                lambda: save_rows(target, shape, self._means(counts)),
                "averaged signals",
            )
        return Trials(x=x, stimulus=stimulus, repetition=np.zeros(len(stimulus), dtype=np.int64))

    def _means(self, counts: np.ndarray) -> Iterator[np.ndarray]:
        """Mean over the repetitions of every stimulus, in rising order of the index; ``counts``: how many they are."""
        order = np.argsort(self.stimulus, kind="stable")
        unread = _RELEASED
        for end, count in zip(np.cumsum(counts), counts, strict=True):
            rows = self.x[order[end - count : end]]
            yield rows.mean(axis=0, dtype=np.float64)
            unread -= rows.nbytes
            if unread <= 0:
                release(self.x)
                unread = _RELEASED


@dataclass(frozen=True, repr=False)
class Recording:
    """One subject: training and test trials that share no picture, and the pictures.

    ``log``: sentences about what the study removed or averaged. ``sfreq`` in Hz and ``tmin`` in s for (C, T) signals.
    ``regions``: those that ``encoder.bands`` names, as indices of channels or voxels of these trials.
    ``preparation``: what made these trials of the stored ones; None where they are as stored.
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
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    preparation: Any = None  # align.data.preparing.raw.Preparation, which is built on this module

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.train.x.shape[1:]))
        return f"<Recording {self.study} {self.subject}: {len(self.train)} + {len(self.test)} trials of {shape}>"

    def _repr_html_(self) -> str:
        from align.notebook import facts_table

        facts = {
            "training": f"{len(self.train)} trials of {len(np.unique(self.train.stimulus))} pictures",
            "test": f"{len(self.test)} trials of {len(np.unique(self.test.stimulus))} pictures",
            "a trial": " x ".join(map(str, self.train.x.shape[1:])),
            "rate": None if self.sfreq is None else f"{self.sfreq:g} Hz from {self.tmin:g} s",
            "channels": ", ".join(self.ch_names[:8]) + (" ..." if len(self.ch_names) > 8 else "") or None,
            "log": "; ".join(self.log) or None,
        }
        return facts_table(f"Recording: {self.study}, subject {self.subject}", facts)
