"""Channels that record no brain: flat in one session and not in others, the same whenever a picture is shown, counting.

A loose electrode or a padded channel is flat; a trigger channel that was taken for EEG carries the number of the
picture, from which every decoder reads it; a column of row numbers or onsets rises from trial to trial.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from align.data.columns import sampled_trials
from align.data.measure import some
from align.data.signals import Recording, Trials, release
from align.data.twins import pictures_with

_PIECE = 1 << 24  # bytes of signals looked at once
_FLAT = 10  # trials in a row from which a flat channel is more than an accident, where no session is told
_EXACT = 1e-6  # of a channel's variance over pictures: what rounding changes from one repetition to the next
_NOISY = 1e-3  # the same of the median channel; below, the recording as a whole is without noise
_COUNTED = 16  # trials from which a value that always rises is no accident
_PICTURES = 4  # shown twice or more from which exact repetitions say something


def channel_remarks(recording: Recording) -> Iterator[str]:
    """Remarks on flat channels by session, on channels that repeat exactly, and on those that count."""
    names = recording.ch_names
    for split, trials in (("training", recording.train), ("test", recording.test)):
        if len(trials):
            found = recording.train.x.shape[1] == len(names)
            yield from _flat_remarks(split, trials, names if found else ())
    exact = sorted({i for trials in (recording.train, recording.test) for i in exact_channels(trials)})
    if exact:
        count = "1 channel is" if len(exact) == 1 else f"{len(exact)} channels are"
        yield (
            f"{count} exactly the same whenever a picture is shown again, and another for other pictures: "
            f"{some([_name(names, i) for i in exact])}; a trigger channel? Leave it out"
        )
    counting = sorted({i for trials in (recording.train, recording.test) for i in counting_channels(trials)})
    if counting:
        count = "1 channel or voxel rises" if len(counting) == 1 else f"{len(counting)} channels or voxels rise"
        yield (
            f"{count} (or always falls) from each trial to the next: {some([_name(names, i) for i in counting])}; an "
            "index, a trial number or a time? Leave it out"
        )


def counting_channels(trials: Trials) -> list[int]:
    """Channels or voxels of one value in each trial that rises, or falls, from every trial to the next, and are few."""
    x = sampled_trials(trials.x) if len(trials) >= _COUNTED else np.zeros((0, 1))
    if len(x) < _COUNTED:
        return []
    flat = x.reshape(len(x), x.shape[1], -1)
    steps = np.diff(flat[:, :, 0], axis=0)
    counts = ((steps > 0).all(axis=0) | (steps < 0).all(axis=0)) & (np.ptp(flat, axis=2) == 0).all(axis=0)
    return [int(i) for i in np.flatnonzero(counts)] if 2 * counts.sum() <= len(counts) else []


def exact_channels(trials: Trials) -> list[int]:
    """Channels or voxels that are the same in all trials of a picture, differ between pictures, and are few."""
    pictures = pictures_with(trials, 2)
    if len(pictures) < _PICTURES:
        return []
    means, within = [], np.zeros(trials.x.shape[1])
    for rows in pictures:
        x = np.asarray(trials.x[rows], dtype=np.float64).reshape(len(rows), trials.x.shape[1], -1)
        means.append(x.mean(axis=0))
        within += x.var(axis=0).mean(axis=1) / len(pictures)
        release(trials.x)
    between = np.var(means, axis=0).mean(axis=1)
    ratio = np.divide(within, between, out=np.full(len(within), np.inf), where=between > 0)
    if not np.isfinite(ratio).any() or np.median(ratio) < _NOISY:
        return []
    several = [i for i in np.flatnonzero(ratio < _EXACT) if _kinds(np.array([mean[i] for mean in means])) > 2]
    return [int(i) for i in several]


def flat_channels(trials: Trials) -> Iterator[tuple[int, str]]:
    """(channel, where) of each channel that is one value in a session and varies in others; without sessions, in one
    run of rows."""
    if trials.session is not None and len(np.unique(trials.session)) > 1:
        low, high, labels = _ends_by_session(trials)
        flat = low == high
        for s, i in np.argwhere(flat & ~flat.all(axis=0)):
            yield int(i), f"session {labels[s]}"
    elif trials.x.ndim == 3 and trials.x.shape[2] > 1:
        flat = _flat_trials(trials.x)
        for i in np.flatnonzero(flat.any(axis=0) & ~flat.all(axis=0)):
            rows = np.flatnonzero(flat[:, i])
            if len(rows) >= _FLAT and rows[-1] - rows[0] + 1 == len(rows):  # silent units are silent here and there
                yield int(i), f"rows {rows[0]} to {rows[-1]}"


def _flat_remarks(split: str, trials: Trials, names: tuple[str, ...]) -> Iterator[str]:
    places: dict[str, list[str]] = {}
    for i, where in flat_channels(trials):
        places.setdefault(where, []).append(_name(names, i))
    for where, channels in places.items():
        count = "1 channel never changes" if len(channels) == 1 else f"{len(channels)} channels never change"
        yield (
            f"{split}: {count} in {where}, but elsewhere: {some(channels)}; is that part of another person, mask or "
            "cap? Leave out channels or trials"
        )


def _name(names: tuple[str, ...], i: int) -> str:
    return names[i] if i < len(names) else str(i)


def _kinds(values: np.ndarray) -> int:
    """How many different rows (n, T) there are, but for rounding."""
    step = np.sqrt(_EXACT) * max(float(np.ptp(values)), 1e-300)
    return len(np.unique(np.rint(values / step), axis=0))


def _ends_by_session(trials: Trials) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least and largest value (sessions, channels), and the labels of the sessions."""
    labels, place = np.unique(np.asarray(trials.session), return_inverse=True)
    low = np.full((len(labels), trials.x.shape[1]), np.inf)
    high = -low
    for start, piece in _pieces(trials.x):
        flat = piece.reshape(len(piece), piece.shape[1], -1)
        for s in np.unique(place[start : start + len(piece)]):
            own = flat[place[start : start + len(piece)] == s]
            low[s] = np.minimum(low[s], own.min(axis=(0, 2)))
            high[s] = np.maximum(high[s], own.max(axis=(0, 2)))
    return low, high, labels


def _flat_trials(x: np.ndarray) -> np.ndarray:
    """(n, C) whether a channel is one value throughout a trial."""
    return np.concatenate([np.ptp(piece, axis=2) == 0 for _, piece in _pieces(x)])


def _pieces(x: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    step = max(1, _PIECE // max(1, x[:1].nbytes))
    for start in range(0, len(x), step):
        yield start, np.asarray(x[start : start + step])
        release(x)
