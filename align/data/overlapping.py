"""Averages among repetitions: the mean of a picture's trials as one more trial, or averages that overlap.

Both make pictures look more reliable than they are. A trial that is a combination of others is found exactly. Averages
that overlap (first and second, second and third), or repetitions close together in time, are found by their noise:
neighbours share some, others do not. What is left of each trial without the mean of its picture is compared by the
order of repetitions. Trials of other pictures at the same places tell what whole sessions share.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from align.data.signals import Recording, Trials, release
from align.data.twins import levels, pictures_with, twins, unit, without_mean

_SMALL = 1e-3  # smallest singular value next to the largest, where a trial is a combination of the others
_ONE_WAY = 0.99  # cosine of the combinations of two pictures: trials of few dimensions are combinations, each its own
_FEWEST = 6  # pictures with such a trial; fewer may be slips of a table
_LEAST = 3  # repetitions; what is left of two is always one but for the sign
_PICTURES = 12  # with as many repetitions, at least
_APART = 0.3  # of the mean correlations by order; averages of two that overlap in one give .48 and more
_SURE = 6  # standard errors of the difference


def overlapping_remarks(recording: Recording) -> Iterator[str]:
    """A remark on splits where some repetitions share noise by their order."""
    for split, trials in (("training", recording.train), ("test", recording.test)):
        if not len(trials):
            continue
        count, n = with_combination(trials)
        if count >= _FEWEST:
            yield (
                f"{split}: {count} of {n} pictures have a trial that is a combination of their other trials, such as "
                "their mean: it counts as one more repetition than there is; leave it out"
            )
            continue
        found = noise_by_order(trials)
        if found is not None and not twins(trials).pairs:  # whole trials that stand there twice are told by themselves
            low, high = found
            yield (
                f"{split}: repetitions of a picture do not have noise of their own: without the picture's mean, "
                f"{high[0] + 1} and {high[1] + 1} correlate more than {low[0] + 1} and {low[1] + 1}, as averages that "
                "share trials do; reliability and scores by number of repetitions come out too high"
            )


def with_combination(trials: Trials) -> tuple[int, int]:
    """How many pictures have a trial that is a combination of their others, and how many were looked at.

    Pictures with copies of a trial are left aside, which are told by themselves.
    """
    pictures = [rows for rows in pictures_with(trials, _LEAST) if 4 * len(rows) <= trials.x[0].size]
    ways = []
    for rows in pictures:
        x = np.nan_to_num(np.asarray(trials.x[rows], dtype=np.float64), posinf=0.0, neginf=0.0).reshape(len(rows), -1)
        release(trials.x)
        x = x - x.mean(axis=1, keepdims=True)
        directions = unit(x)
        if not directions.any(axis=1).all() or (np.abs(directions @ directions.T) > 1 - _SMALL**2).sum() > len(rows):
            continue
        left, sizes, _ = np.linalg.svd(x, full_matrices=False)
        if sizes[-1] < _SMALL * sizes[0] <= sizes[-2]:
            ways.append(left[:, -1])
    alike = [max(_same_way(one, other) for other in ways if other is not one) for one in ways] if len(ways) > 1 else []
    return sum(one > _ONE_WAY for one in alike), len(pictures)


def _same_way(one: np.ndarray, other: np.ndarray) -> float:
    """How alike two combinations are, whatever their sign."""
    return float(abs(one @ other)) if len(one) == len(other) else 0.0


def noise_by_order(trials: Trials) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """The two repetitions (from 0, in the order of rows) that are least alike, and the two most; None where all are."""
    every = pictures_with(trials, _LEAST)
    counts = np.bincount([len(rows) for rows in every]) if every else np.zeros(1, int)
    pictures = [rows for rows in every if len(rows) == int(counts.argmax())]
    if len(pictures) < _PICTURES:
        return None
    level, spread, session = levels(trials)
    left = []
    for rows in pictures:
        x = np.nan_to_num(np.asarray(trials.x[rows], dtype=np.float64), posinf=0.0, neginf=0.0)
        release(trials.x)
        x = x - x.mean(axis=2, keepdims=True) if x.ndim == 3 else (x - level[session[rows]]) / spread[session[rows]]
        left.append(unit(without_mean(unit(x.reshape(len(rows), -1)))))
    shared = np.array([one @ one.T - one @ other.T for one, other in zip(left, [*left[1:], left[0]], strict=True)])
    pairs = np.argwhere(np.triu(np.ones(shared.shape[1:], bool), 1))
    values = (shared + shared.transpose(0, 2, 1))[:, *pairs.T] / 2
    low, high = int(values.mean(axis=0).argmin()), int(values.mean(axis=0).argmax())
    difference = values[:, high] - values[:, low]
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    if difference.mean() < max(_APART, _SURE * error):
        return None
    first, second = (tuple(int(i) for i in pairs[k]) for k in (low, high))
    return (first[0], first[1]), (second[0], second[1])
