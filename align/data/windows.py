"""One recording counted as several: trials that hold the same numbers, or windows of one picture that share samples.

Events that are listed twice, or responses that were averaged and then repeated row by row, make repetitions without
noise between them: their reliability is 1 whatever was recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from align.data.signals import release

_PIECE = 1 << 24  # bytes of signals looked at once
_FEW = 16  # entries other than 0 from which two equal rows of whole numbers (spike counts) are no accident
_ALIKE = 1e-4  # of a channel's deviation: what baseline and rounding to float32 may change in a step between samples
_ANCHOR = 3  # steps between samples by which an overlap is searched
_SHARED = 0.5  # part of a window from which two windows of one picture are one recording
_LEAST = 8  # samples of a window that is searched
_ROUNDED = 1e-3  # of a trial's deviation: what half precision (3e-4), single precision and text files may change
_SAMPLED = 256  # trials, spread over all, that show what all share
_COARSE = 1e-2  # of a step's deviation: steps that are this near have one mark, but for those at an edge
_LISTED = 3  # pairs of rows that are spelled out


@dataclass(frozen=True)
class Repeated:
    """Pairs (row, earlier row) of ``n`` trials: equal numbers under one picture, under two, windows that overlap,
    numbers of one picture that are equal but for rounding, an offset or a factor."""

    n: int
    copies: list[tuple[int, int]]
    strangers: list[tuple[int, int]]
    overlaps: list[tuple[int, int]]
    rounded: list[tuple[int, int]]

    def __bool__(self) -> bool:
        return bool(self.pairs)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Those of the first kind that there is, of copies, overlaps and rounded copies of one picture."""
        return self.copies or self.overlaps or self.rounded

    @property
    def said(self) -> str:
        """What is wrong with copies and overlaps of one picture, and what to do."""
        pairs, what = self.pairs, "hold the numbers of another trial, but for rounding, an offset or a factor,"
        if self.copies:
            what = "hold the very numbers of another trial"
        elif self.overlaps:
            what = f"share {_SHARED:.0%} or more of their samples with another trial"
        rest = f" and {len(pairs) - _LISTED} more" if len(pairs) > _LISTED else ""
        listed = ", ".join(f"{row} = {first}" for row, first in pairs[:_LISTED])
        return (
            f"{len(pairs)} of {self.n} trials {what} of their picture (rows {listed}{rest}): one recording counted as "
            "several repetitions; list each once"
        )


def repeated(x: np.ndarray, labels: Sequence[object] | np.ndarray) -> Repeated:
    """What stands twice among trials x (n, ...), in memory or mapped; ``labels`` (n,): picture (and person) of each.

    Rows of one value throughout are left aside, and whole numbers with few entries other than 0.
    """
    labels = np.unique(np.asarray([str(label) for label in labels]), return_inverse=True)[1]
    copies, strangers = equal_rows(x, labels)
    twice = {row for row, _ in copies}
    overlaps = [pair for pair in _overlaps(x, labels) if pair[0] not in twice]
    return Repeated(len(x), copies, strangers, overlaps, [pair for pair in _rounded(x, labels) if pair[0] not in twice])


def equal_rows(x: np.ndarray, labels: np.ndarray) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Pairs (row, first row) of x (n, ...) that hold the same numbers: under one of ``labels`` (n,), and under two."""
    first: dict[bytes, int] = {}
    copies, strangers = list[tuple[int, int]](), list[tuple[int, int]]()
    step = max(1, _PIECE // max(1, x[:1].nbytes))
    for start in range(0, len(x), step):
        for i, row in enumerate(np.ascontiguousarray(x[start : start + step]), start):
            if not tells(row):
                continue
            other = first.setdefault(hashlib.blake2b(row.tobytes(), digest_size=16).digest(), i)
            if other != i:
                (copies if labels[i] == labels[other] else strangers).append((i, other))
        release(x)
    return copies, strangers


def equal_across(train: np.ndarray, test: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (test row, first training row) that hold the same numbers; trials (n, ...) in memory or mapped."""
    first: dict[bytes, int] = {}
    found = list[tuple[int, int]]()
    for x, known in ((train, True), (test, False)):
        step = max(1, _PIECE // max(1, x[:1].nbytes))
        for start in range(0, len(x), step):
            for i, row in enumerate(np.ascontiguousarray(x[start : start + step]), start):
                digest = hashlib.blake2b(row.tobytes(), digest_size=16).digest() if tells(row) else b""
                if digest and known:
                    first.setdefault(digest, i)
                elif digest in first:
                    found.append((i, first[digest]))
            release(x)
    return found


def flat_rows(x: np.ndarray) -> np.ndarray:
    """Trials of x (n, ...) of one value throughout, such as the empty volumes that fill a file up, by row."""
    flat = x.reshape(len(x), -1)
    return np.flatnonzero((flat == flat[:, :1]).all(axis=1)) if flat.shape[1] > 1 else np.arange(0)


def tells(row: np.ndarray) -> bool:
    """Whether another row can hardly be equal by accident."""
    if row.min() == row.max() or not np.isfinite(row).all():
        return False
    return bool((row != np.rint(row)).any()) or int(np.count_nonzero(row)) >= _FEW


def _rounded(x: np.ndarray, labels: np.ndarray) -> list[tuple[int, int]]:
    """Trials of one picture, of `_FEW` entries or more, that are one but for rounding, an offset and a factor above 0.

    The offset of a channel is taken away, and in trials without time what the trials share (the mean of a voxel): large
    ones make all trials alike. Then a factor is not seen.
    """
    twice = np.flatnonzero(np.bincount(labels) > 1)
    if x[:1].size < _FEW or not len(twice):
        return []
    timed = x.ndim == 3 and x.shape[2] >= _LEAST
    spread = np.unique(np.linspace(0, len(x) - 1, _SAMPLED).astype(np.int64))
    shared = 0.0 if timed else np.median(np.nan_to_num(np.asarray(x[spread], dtype=np.float64)), axis=0)
    found = []
    for label in twice:
        rows = np.flatnonzero(labels == label)
        rows = rows[np.array([tells(x[row]) for row in rows], dtype=bool)]
        if len(rows) < 2:
            continue
        stored = np.asarray(x[rows], dtype=np.float64)
        part = stored - (stored.mean(axis=2, keepdims=True) if timed else shared)
        part = part.reshape(len(rows), -1)
        part -= part.mean(axis=1, keepdims=True)
        size = np.linalg.norm(part, axis=1)
        plain = size > _ALIKE**2 * np.abs(stored).max(initial=0)
        rows, unit = rows[plain], part[plain] / size[plain, None]
        near = np.argwhere(np.tril(unit @ unit.T, -1) > 1 - _ROUNDED**2 / 2)
        first = {int(i): int(k) for i, k in near[::-1]}  # the earliest of several
        found += [(int(rows[i]), int(rows[k])) for i, k in first.items()]
        release(x)
    return sorted(found)


def _overlaps(x: np.ndarray, labels: np.ndarray) -> list[tuple[int, int]]:
    if x.ndim != 3 or x.shape[2] < _LEAST:
        return []
    found = []
    for label in np.flatnonzero(np.bincount(labels) > 1):
        rows = np.flatnonzero(labels == label)
        steps = np.diff(np.asarray(x[rows], dtype=np.float64), axis=2)  # whatever a baseline took away is gone
        found += [(max(rows[i], rows[k]), min(rows[i], rows[k])) for i, k in _shifted(steps)]
        release(x)
    return sorted({(int(later), int(earlier)) for later, earlier in found})


def _shifted(steps: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (i, k) of windows (r, C, T): the first part of i is the last part of k, from `_SHARED` of it on."""
    spread = steps.std(axis=(0, 2))
    channel = int(spread.argmax())
    if spread[channel] == 0:
        return []
    signal, length = steps[:, channel], steps.shape[2]
    most = int(length * (1 - _SHARED))
    ahead = np.lib.stride_tricks.sliding_window_view(signal, _ANCHOR, axis=1)[:, 1 : most + 1]
    pairs = []
    for i, start in enumerate(signal[:, :_ANCHOR]):
        near = (np.abs(ahead - start) <= _ALIKE * spread[channel]).all(axis=2)
        for k, lag in np.argwhere(near):
            part, other = steps[i, :, : length - lag - 1], steps[k, :, lag + 1 :]
            alike = (np.abs(part - other) <= 10 * _ALIKE * spread[:, None]).all()
            if i != k and alike and part[channel].std() > _ALIKE * spread[channel]:
                pairs.append((i, int(k)))
    return pairs


@dataclass(frozen=True)
class Shared:
    """Test trials whose windows hold samples of a training trial: triples (test row, training row, samples)."""

    n: int
    length: int
    found: list[tuple[int, int, int]]


def shared_samples(train: np.ndarray, test: np.ndarray) -> Shared:
    """Windows of training and test trials (n, C, T) that were cut from one stretch of a recording.

    Their steps from sample to sample agree in `_LEAST` samples or more, in every channel, whatever a baseline took
    away. Trials without time are left aside.
    """
    if train.ndim != 3 or train.shape[1:] != test.shape[1:] or train.shape[2] < _LEAST or not len(train):
        return Shared(len(test), 0, [])
    length, anchor = train.shape[2], _LEAST - 1
    part = np.asarray(train[np.unique(np.linspace(0, len(train) - 1, _SAMPLED).astype(np.int64))], dtype=np.float64)
    spread = np.diff(part, axis=2).std(axis=(0, 2))
    channel = int(spread.argmax())
    if not spread[channel] > 0:
        return Shared(len(test), length, [])
    known, place = np.unique(_marks(train[:, channel], spread[channel], anchor).ravel(), return_index=True)
    marks = _marks(test[:, channel], spread[channel], anchor)
    release(train)
    triples = []
    for row in range(len(test)):
        for at in (0, marks.shape[1] - 1):  # a window that began earlier ends in the other, a later one begins there
            k = int(np.searchsorted(known, marks[row, at]))
            if k == len(known) or known[k] != marks[row, at]:
                continue
            other, start = divmod(int(place[k]), marks.shape[1])
            lag = start - at
            own, theirs = test[row][:, max(0, -lag) : length - max(0, lag)], train[other][:, max(0, lag) :][:, :length]
            theirs = theirs[:, : own.shape[1]]
            if _one_stretch(own, theirs, spread):
                triples.append((row, other, own.shape[1]))
                break
    release(test)
    return Shared(len(test), length, triples)


def _marks(signal: np.ndarray, spread: float, anchor: int) -> np.ndarray:
    """(n, T - anchor) int64: a number for every run of ``anchor`` steps of a signal (n, T), equal for equal runs."""
    steps = np.rint(np.diff(np.asarray(signal, dtype=np.float64), axis=1) / (_COARSE * spread)).astype(np.int64)
    weights = np.random.default_rng(0).integers(1, 1 << 62, anchor, dtype=np.int64)
    marks = np.zeros((len(steps), steps.shape[1] - anchor + 1), dtype=np.int64)
    for k, weight in enumerate(weights):  # what goes beyond 64 bits is dropped alike in all
        marks += steps[:, k : k + marks.shape[1]] * weight
    return marks


def _one_stretch(own: np.ndarray, theirs: np.ndarray, spread: np.ndarray) -> bool:
    """Whether two pieces (C, t) are one but for an offset of each channel, and no piece without a signal."""
    steps, other = (np.diff(np.asarray(piece, dtype=np.float64), axis=1) for piece in (own, theirs))
    moving = np.count_nonzero(np.abs(steps) > _ALIKE * spread[:, None])
    return bool((np.abs(steps - other) <= 10 * _ALIKE * spread[:, None]).all() and moving >= _FEW)
