"""Sessions that do not answer to the same pictures: events that are shifted in one of them, or voxels in another order.

Responses to the same pictures are compared between sessions, next to those to other pictures. A session that agrees
with no other, where all others agree, is told. Of two sessions, one is told that does not agree with the other, where
repetitions within the other agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from align.data.signals import Recording, Trials, release
from align.data.twins import unit

_PICTURES = 64  # that two sessions share, at most, and at least:
_LEAST = 8
_VALUES = 4096  # of a trial, spread over it
_CLEAR, _NONE = 5.0, 2.0  # standard errors by which the same pictures agree more than others do
_LITTLE = 0.25  # part of the usual difference, which a few pictures at their own place may leave

_Agreement = dict[tuple[str, str], tuple[float, float]]  # two sessions: difference of mean correlations, and in errors


def session_answer_remarks(recording: Recording) -> Iterator[str]:
    """A remark on each split with such a session."""
    for split, trials in (("training", recording.train), ("test", recording.test)):
        found = agreements(trials)
        names = list(dict.fromkeys(name for pair in found for name in pair))
        for name in names:
            if told := _alone(name, names, found):
                yield (
                    f"{split}: session {name} does not answer to the pictures as {told[0]} (correlation of the same "
                    f"pictures minus that of others {told[1]:.2f}, elsewhere {told[2]:.2f}): are its events shifted or "
                    "those of another session, or its channels or voxels in another order?"
                )
                if len(names) == 2:
                    break


def _alone(name: str, names: list[str], found: _Agreement) -> tuple[str, float, float] | None:
    """What a session is compared with, how far it agrees, and how far is usual; None where nothing is wrong."""
    own = [value for pair, value in found.items() if name in pair and pair[0] != pair[1]]
    usual = [value for pair, value in found.items() if name not in pair and pair[0] != pair[1]]
    whose = "the others do"
    if len(names) == 2:
        other = next(one for one in names if one != name)
        usual = [value for pair, value in found.items() if pair == (other, other)]
        whose = f"session {other} does to itself"
    if not own or not usual or any(error < _CLEAR for _, error in usual):
        return None
    mean = float(np.mean([difference for difference, _ in usual]))
    if all(error < _NONE or difference < _LITTLE * mean for difference, error in own):
        return whose, float(np.mean([difference for difference, _ in own])), mean
    return None


def agreements(trials: Trials) -> _Agreement:
    """By two sessions, and by one and itself (halves of its repetitions), where enough pictures are shared."""
    if trials.session is None or not len(trials):
        return {}
    at = np.unique(np.linspace(0, trials.x[0].size - 1, _VALUES).astype(np.int64))
    means: dict[str, dict[int, list[np.ndarray]]] = {}
    shared = np.unique(trials.stimulus)
    chosen = np.isin(trials.stimulus, shared[np.unique(np.linspace(0, len(shared) - 1, _PICTURES).astype(np.int64))])
    sessions = np.array([str(name) for name in trials.session])
    for name in dict.fromkeys(sessions[chosen].tolist()):
        rows = np.flatnonzero(chosen & (sessions == name))
        x = np.asarray(trials.x[rows]).reshape(len(rows), -1)[:, at].astype(np.float64)
        x = np.nan_to_num(x, posinf=0.0, neginf=0.0)
        release(trials.x)
        spread = x.std(axis=0)
        x = (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        own = means.setdefault(name, {})
        for row, picture in zip(x, trials.stimulus[rows].tolist(), strict=True):
            own.setdefault(picture, []).append(row)
    found: _Agreement = {}
    for one, two in combinations(means, 2):
        both = [picture for picture in means[one] if picture in means[two]]
        pair = [np.array([np.mean(means[name][picture], axis=0) for picture in both]) for name in (one, two)]
        found |= _compared((one, two), *pair)
    for name, own in means.items():
        twice = [values for values in own.values() if len(values) > 1]
        halves = [np.array([np.mean(values[k::2], axis=0) for values in twice]) for k in (0, 1)]
        found |= _compared((name, name), *halves)
    return found


def _compared(names: tuple[str, str], one: np.ndarray, two: np.ndarray) -> _Agreement:
    """Of responses (k, P) to the same pictures, twice; nothing where there are too few."""
    if len(one) < _LEAST:
        return {}
    r = unit(one - one.mean(axis=0)) @ unit(two - two.mean(axis=0)).T
    same, others = np.diag(r), r[~np.eye(len(r), dtype=bool)]
    error = float(others.std() / np.sqrt(len(same)))
    difference = float(same.mean() - others.mean())
    return {names: (difference, difference / error if error > 0 else 0.0)}
