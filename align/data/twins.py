"""One recording in two versions (raw and filtered, another reference) that counts as more repetitions of its pictures.

Two repetitions share what the picture evoked and have noise of their own. So what is left of each trial without the
mean of its picture is compared: two versions of one trial share that too, two repetitions do not. The same comparison
between trials of different pictures tells how alike noise is anyway (few channels, slow drifts, a common gain).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from align.data.signals import Recording, Trials, release

_PICTURES = 64  # that are looked at, spread over all
_TRIALS = 96  # of one picture
_LEAST = 3  # trials of a picture: what is left of two without their mean is always one but for the sign
_SAME = 0.8  # correlation from which noise is one; filters and references leave .9 or more in one of the views
_SHARE = 0.05  # of trials, and `_PAIRED` of them: fewer partners may be an accident
_PAIRED = 6
_CHANCE = 10  # times as many partners within pictures as between them
_SMOOTH = 5  # samples of the moving average, whose steps are free of what filters take away
_ENTRIES = 16  # of a trial: noise of fewer is alike by accident


@dataclass(frozen=True)
class Twins:
    """Pairs (row, earlier row) among ``n`` trials that were looked at, whose noise is the same."""

    n: int
    pairs: list[tuple[int, int]]


def pictures_with(trials: Trials, least: int) -> list[np.ndarray]:
    """Rows of each of up to `_PICTURES` pictures with ``least`` trials or more, up to `_TRIALS` of each."""
    order = np.argsort(trials.stimulus, kind="stable")
    rows = np.split(order, np.flatnonzero(np.diff(trials.stimulus[order])) + 1)
    found = [part[_spread(len(part), _TRIALS)] for part in rows if len(part) >= least]
    return [found[i] for i in _spread(len(found), _PICTURES)]


def twins(trials: Trials) -> Twins:
    """Trials of one picture that share their noise; none where noise is as alike between pictures."""
    pictures = pictures_with(trials, _LEAST)
    if trials.x[:1].size < _ENTRIES or len(pictures) < 2:
        return Twins(0, [])
    shared = _shared(trials)
    best: list[tuple[int, int]] = []
    before: dict[str, np.ndarray] = {}
    pairs: dict[str, list[tuple[int, int]]] = {}
    strangers: dict[str, int] = {}
    for rows in pictures:
        x = np.nan_to_num(np.asarray(trials.x[rows], dtype=np.float64), posinf=0.0, neginf=0.0)
        release(trials.x)
        for name, view in _views(x, shared):
            left = _without_mean(view)
            pairs.setdefault(name, []).extend((int(rows[i]), int(rows[k])) for i, k in _partners(left))
            if name in before:
                alike = left @ before[name].T > _SAME
                strangers[name] = strangers.get(name, 0) + int(alike.any(axis=1).sum())
            before[name] = left
    n = sum(map(len, pictures))
    for name, found in pairs.items():
        paired = len({row for pair in found for row in pair})
        if paired >= max(_PAIRED, _SHARE * n) and paired >= _CHANCE * strangers.get(name, 0) and len(found) > len(best):
            best = found
    return Twins(n, sorted((max(pair), min(pair)) for pair in best))


def twin_remarks(recording: Recording, known: Collection[str] = ()) -> Iterator[str]:
    """A remark on splits where trials come in two versions; ``known``: splits of which worse is told already."""
    for split, trials in (("training", recording.train), ("test", recording.test)):
        found = twins(trials) if len(trials) and split not in known else Twins(0, [])
        if found.pairs:
            row, first = found.pairs[0]
            paired = len({row for pair in found.pairs for row in pair})
            name = recording.stimuli.ids[int(trials.stimulus[row])]
            yield (
                f"{split}: {paired} of {found.n} trials share their noise with another trial of their picture (first: "
                f"row {row} with row {first}, picture {name}{_sessions(trials, row, first)}): the same recording in "
                "two versions, such as raw and filtered? They count as more repetitions than there are; keep one"
            )


def _sessions(trials: Trials, row: int, first: int) -> str:
    if trials.session is None:
        return ""
    one, two = trials.session[row], trials.session[first]
    return f", session {one}" if one == two else f", sessions {one} and {two}"


def _shared(trials: Trials) -> np.ndarray:
    """(V,) what trials without time share, which is large where a voxel has a level of its own; (1,) of zero else."""
    if trials.x.ndim == 3:
        return np.zeros(1)
    rows = _spread(len(trials), 4 * _PICTURES)
    shared: np.ndarray = np.median(np.nan_to_num(np.asarray(trials.x[rows], dtype=np.float64)), axis=0)
    release(trials.x)
    return shared


def _views(x: np.ndarray, shared: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Trials x (r, ...) of one picture as (r, P), each of length 1, as versions of one recording may agree.

    As they are and against the mean of all channels; over time also as steps of a moving average, which neither a
    filter of high nor one of low frequencies changes much.
    """
    if x.ndim == 2:
        yield "plain", _unit(x - shared)
        return
    for name, part in (("plain", x), ("referenced", x - x.mean(axis=1, keepdims=True))):
        if name == "referenced" and x.shape[1] < 2:
            continue
        yield name, _unit((part - part.mean(axis=2, keepdims=True)).reshape(len(x), -1))
        if x.shape[2] >= 3 * _SMOOTH:
            sums = np.cumsum(part, axis=2)
            smooth = sums[:, :, _SMOOTH:] - sums[:, :, :-_SMOOTH]
            yield f"{name}, steps", _unit((smooth[:, :, _SMOOTH:] - smooth[:, :, :-_SMOOTH]).reshape(len(x), -1))


def _without_mean(unit: np.ndarray) -> np.ndarray:
    """What is left of trials (r, P) without the mean of their picture, each of length 1: independent noise correlates
    with -1 / (r - 1). Another unit or gain of a trial is gone before, so that it is no noise."""
    return _unit(unit - unit.mean(axis=0))


def _partners(left: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (i, k), k < i, of rows that are one noise; not where much of a picture is, as with one common pattern."""
    alike = left @ left.T > _SAME
    np.fill_diagonal(alike, False)
    few = alike.sum(axis=1) <= max(1, len(left) // 3)
    return [(int(i), int(k)) for i, k in np.argwhere(np.tril(alike)) if few[i] and few[k]]


def _unit(rows: np.ndarray) -> np.ndarray:
    size = np.linalg.norm(rows, axis=1, keepdims=True)
    result: np.ndarray = np.divide(rows, size, out=np.zeros_like(rows), where=size > 0)
    return result


def _spread(n: int, most: int) -> np.ndarray:
    """Up to ``most`` of the places 0 to n - 1, evenly spread."""
    return np.unique(np.linspace(0, max(0, n - 1), min(n, most)).astype(np.int64))
