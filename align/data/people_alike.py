"""One recording that stands for two people: a copy, another version (another reference, filtered), or a group mean.

Two people who see the same picture never give the same signals. Trials of the same pictures are compared in the views
in which versions of one recording agree, see `align.data.twins`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from zlib import crc32

import numpy as np

from align.data.importing.people import few
from align.data.signals import Recording, release
from align.data.twins import agreement, levels, views

_PICTURES = 24  # that are looked at, the same ones of all people who saw them
_TRIALS = 4  # of each
_LEAST = 8  # pictures that two people share; fewer say nothing
_LEFT = 0.01  # of a trial, in lengths, that a combination of other trials leaves where it is no accident
_ONE = 0.99  # correlation of two whole trials, which no two people reach


@dataclass(frozen=True)
class Sample:
    """Some training trials of one person: pictures (n,) by id, the shape of a trial, (n, P) as stored and by view."""

    ids: np.ndarray
    shape: tuple[int, ...]
    stored: np.ndarray
    views: dict[str, np.ndarray]

    @classmethod
    def of(cls, recording: Recording) -> Sample:
        """The first trials of the pictures whose ids come first in an order that all people share."""
        trials = recording.train
        ids = np.array([recording.stimuli.ids[int(i)] for i in trials.stimulus], dtype=object)
        chosen = sorted(set(ids), key=lambda name: (crc32(name.encode()), name))[:_PICTURES]
        rows = np.concatenate([np.flatnonzero(ids == name)[:_TRIALS] for name in chosen]) if chosen else np.arange(0)
        level, spread, session = levels(trials)
        x = np.nan_to_num(np.asarray(trials.x[np.sort(rows)], dtype=np.float64), posinf=0.0, neginf=0.0)
        release(trials.x)
        place = session[np.sort(rows)]
        seen = {name: view.astype(np.float32) for name, view in views(x, level[place], spread[place])}
        stored = x.reshape(len(x), -1).astype(np.float32)
        return cls(ids[np.sort(rows)], tuple(trials.x.shape[1:]), stored, seen)


def one_recording(people: Mapping[str, Sample]) -> Iterator[str]:
    """A sentence for each two people whose trials of the same pictures are one recording."""
    for (name, one), (other, two) in combinations(people.items(), 2):
        shared = sorted(set(one.ids) & set(two.ids))
        if one.shape != two.shape or len(shared) < _LEAST:
            continue
        most = max(_alike(one, two, shared, view) for view in one.views)
        if 2 * most > len(shared):
            yield (
                f"subjects {name} and {other}: the same recording, in {most} of {len(shared)} pictures that were "
                "compared (as it is, or in another version, such as another reference); keep one of the two"
            )


def group_means(people: Mapping[str, Sample]) -> Iterator[str]:
    """A sentence for each person whose trials are combinations of other people's trials of the same pictures."""
    for name, one in people.items():
        others = {other: two for other, two in people.items() if other != name and two.shape == one.shape}
        shared = sorted(set(one.ids).intersection(*(set(two.ids) for two in others.values())))
        if len(others) < 2 or len(shared) < _LEAST:
            continue
        count = sum(_combined(one, list(others.values()), picture) for picture in shared)
        if 2 * count > len(shared):
            told = few([who for who in people if who == name or who in others])
            yield (
                f"subjects {told}: trials of one are combinations of the others' trials, as of a group "
                f"mean, in {count} of {len(shared)} pictures that were compared; leave the mean out"
            )
            return  # the mean of two makes each of them a combination, too


def _combined(one: Sample, others: list[Sample], picture: str) -> bool:
    """Whether a trial of the picture is a combination of the others' trials of it, and of no one's alone."""
    known = np.concatenate([two.stored[two.ids == picture] for two in others]).astype(np.float64)
    own = one.stored[one.ids == picture].astype(np.float64)
    if known.shape[1] < 4 * len(known):
        return False
    known, own = (part - part.mean(axis=1, keepdims=True) for part in (known, own))
    left = own - (np.linalg.lstsq(known.T, own.T, rcond=None)[0].T @ known)
    sizes = np.linalg.norm(own, axis=1)
    return bool((np.linalg.norm(left, axis=1) <= _LEFT * sizes)[sizes > 0].any())


def _alike(one: Sample, two: Sample, shared: list[str], view: str) -> int:
    """Pictures of which a trial of one person is one of the other."""
    near = agreement(one.views[view], two.views[view]) > _ONE
    return sum(bool(near[np.ix_(one.ids == name, two.ids == name)].any()) for name in shared)
