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
_ONE = 0.9999  # correlation of two whole trials, which no two repetitions reach
_SAME = 0.8  # correlation from which noise is one; filters and references leave .9 or more in one of the views
_SHARE = 0.1  # of trials, and `_PAIRED` of them: fewer partners may be an accident
_PAIRED = 6
_CHANCE = 10  # times as many partners within pictures as between them
_SMOOTH = 5  # samples of the moving average, whose steps are free of what filters take away
_ORDERLY = 0.9  # of pictures, whose pairs lie as files of one order behind each other leave them
_ENTRIES = 16  # of a trial: noise of fewer is alike by accident

_Pair = tuple[int, int]  # a trial and the earlier one with its noise


@dataclass(frozen=True)
class Twins:
    """Pairs (row, earlier row) among ``n`` trials that were looked at, whose noise is the same."""

    n: int
    pairs: list[_Pair]


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
    level, spread, session = levels(trials)
    before: dict[str, np.ndarray] = {}
    found: dict[str, list[list[_Pair]]] = {}
    rows_of: dict[str, list[_Pair]] = {}
    strangers: dict[str, int] = {}
    for rows in pictures:
        x = np.nan_to_num(np.asarray(trials.x[rows], dtype=np.float64), posinf=0.0, neginf=0.0)
        release(trials.x)
        for name, view in views(x, level[session[rows]], spread[session[rows]]):
            left = without_mean(view)
            pairs = _partners(left)
            if pairs:
                found.setdefault(name, []).append(pairs)
                rows_of.setdefault(name, []).extend((int(rows[i]), int(rows[k])) for i, k in pairs)
            if name in before:
                alike = agreement(left, before[name]) > _SAME
                strangers[name] = strangers.get(name, 0) + int(alike.any(axis=1).sum())
            before[name] = left
    n, best = sum(map(len, pictures)), list[_Pair]()
    for name, own in rows_of.items():
        least = max(_PAIRED, _SHARE * n, _CHANCE * strangers.get(name, 0))
        if _paired(own) >= least and len(own) > len(best) and _in_order(found[name]):
            best = own
    return Twins(n, sorted(best))


def doubles(trials: Trials) -> Twins:
    """Pictures with two trials that are one recording in two versions: equal in one of the views, the noise included.

    None where trials of different pictures are as alike.
    """
    pictures = [rows for rows in pictures_with(trials, 2) if len(rows) == 2]
    if trials.x[:1].size < _ENTRIES or len(pictures) < _PAIRED:
        return Twins(0, [])
    level, spread, session = levels(trials)
    rows = np.concatenate(pictures)
    x = np.nan_to_num(np.asarray(trials.x[rows], dtype=np.float64), posinf=0.0, neginf=0.0)
    release(trials.x)
    best: list[_Pair] = []
    for _, view in views(x, level[session[rows]], spread[session[rows]]):
        first, second = view[::2], view[1::2]
        alike = np.diag(agreement(first, second)) > _ONE
        strangers = np.diag(agreement(first, np.roll(second, 1, axis=0))) > _ONE
        pairs = [(int(max(two)), int(min(two))) for two, same in zip(pictures, alike, strict=True) if same]
        if 2 * len(pairs) > len(pictures) and len(pairs) > max(len(best), _CHANCE * int(strangers.sum())):
            best = pairs
    return Twins(len(rows), sorted(best))


def _paired(pairs: list[_Pair]) -> int:
    """How many trials have a partner."""
    return len({row for pair in pairs for row in pair})


def twin_remarks(recording: Recording, known: Collection[str] = ()) -> Iterator[str]:
    """A remark on splits where trials come in two versions; ``known``: splits of which worse is told already."""
    for split, trials in (("training", recording.train), ("test", recording.test)):
        looked = (look(trials) for look in (twins, doubles) if len(trials) and split not in known)
        found = next((one for one in looked if one.pairs), Twins(0, []))
        if found.pairs:
            row, first = found.pairs[0]
            name = recording.stimuli.ids[int(trials.stimulus[row])]
            where = f"row {row} with row {first}, picture {name}{_sessions(trials, row, first)}"
            yield (
                f"{split}: {_paired(found.pairs)} of {found.n} trials share their noise with another trial of their "
                f"picture (first: {where}): the same recording in two versions, such as raw and filtered? They count "
                "as more repetitions than there are; keep one"
            )


def _sessions(trials: Trials, row: int, first: int) -> str:
    if trials.session is None:
        return ""
    one, two = trials.session[row], trials.session[first]
    return f", session {one}" if one == two else f", sessions {one} and {two}"


def levels(trials: Trials) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(sessions, V) level and spread of each voxel, (n,) session of each trial; signals over time are left as they are.

    Voxels have levels of their own, by session, next to which trials are all alike.
    """
    place = np.zeros(len(trials), dtype=np.int64)
    if trials.x.ndim == 3:
        return np.zeros((1, 1)), np.ones((1, 1)), place
    if trials.session is not None:
        place = np.unique(trials.session, return_inverse=True)[1]
    level, spread = [], []
    for s in range(int(place.max()) + 1):
        rows = np.flatnonzero(place == s)
        x = np.nan_to_num(np.asarray(trials.x[rows[_spread(len(rows), 4 * _PICTURES)]], dtype=np.float64))
        level.append(np.median(x, axis=0))
        spread.append(np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0))
        release(trials.x)
    return np.array(level), np.array(spread), place


def views(x: np.ndarray, level: np.ndarray, spread: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Trials x (r, ...) of one picture as (r, P), each of length 1, as versions of one recording may agree.

    As they are and against the mean of all channels; over time also as steps of a moving average, which neither a
    filter of high nor one of low frequencies changes much.
    """
    if x.ndim == 2:
        yield "plain", unit((x - level) / spread)
        return
    for name, part in (("plain", x), ("referenced", x - x.mean(axis=1, keepdims=True))):
        if name == "referenced" and x.shape[1] < 2:
            continue
        yield name, unit((part - part.mean(axis=2, keepdims=True)).reshape(len(x), -1))
        if x.shape[2] >= 3 * _SMOOTH:
            sums = np.cumsum(part, axis=2)
            smooth = sums[:, :, _SMOOTH:] - sums[:, :, :-_SMOOTH]
            yield f"{name}, steps", unit((smooth[:, :, _SMOOTH:] - smooth[:, :, :-_SMOOTH]).reshape(len(x), -1))


def without_mean(rows: np.ndarray) -> np.ndarray:
    """What is left of trials (r, P) without the mean of their picture: independent noise correlates with -1 / (r - 1).

    Trials are of length 1, so that another unit or gain of one of them is no noise.
    """
    left: np.ndarray = rows - rows.mean(axis=0)
    return left


def agreement(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """(n, m) correlation of rows, less where one is larger than the other: a response that comes earlier or later
    differs along one direction, by more or less, where two versions differ by the same."""
    sizes = (one * one).sum(axis=1)[:, None] + (two * two).sum(axis=1)
    result: np.ndarray = np.divide(2 * one @ two.T, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    return result


def _partners(left: np.ndarray) -> list[_Pair]:
    """Pairs of rows (i, earliest k) that are one noise; not those that much of the picture shares."""
    alike = agreement(left, left) > _SAME
    np.fill_diagonal(alike, False)
    few = alike.sum(axis=1) <= max(1, len(left) // 3)
    first: dict[int, int] = {}
    for i, k in np.argwhere(np.tril(alike)):
        if few[i] and few[k]:
            first.setdefault(int(i), int(k))
    return list(first.items())


def _in_order(pictures: list[list[_Pair]]) -> bool:
    """Whether versions follow each other, as files of one order do: by picture, and where most have one pair, by all.

    Trials whose noise has one direction alone (a latency, say) are alike by chance, and in any order.
    """
    several = [_one_order(pairs) for pairs in pictures if len(pairs) > 1]
    if 2 * len(several) >= len(pictures):
        return sum(several) >= _ORDERLY * len(several)
    apart = np.bincount([i - k for pairs in pictures for i, k in pairs])
    return bool(apart.max() >= _ORDERLY * apart.sum())


def _one_order(pairs: list[_Pair]) -> bool:
    rows, firsts = zip(*pairs, strict=True)
    if len({i - k for i, k in pairs}) == 1:
        return True
    once = len(set(firsts)) == len(firsts)  # else there are three versions or more
    return max(firsts) < min(rows) and (list(firsts) == sorted(firsts) or not once)


def unit(rows: np.ndarray) -> np.ndarray:
    size = np.linalg.norm(rows, axis=1, keepdims=True)
    result: np.ndarray = np.divide(rows, size, out=np.zeros_like(rows), where=size > 0)
    return result


def _spread(n: int, most: int) -> np.ndarray:
    """Up to ``most`` of the places 0 to n - 1, evenly spread."""
    return np.unique(np.linspace(0, max(0, n - 1), min(n, most)).astype(np.int64))
