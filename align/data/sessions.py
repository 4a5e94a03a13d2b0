"""Recording sessions of one person held against each other: their spread and their level.

Splits say nothing of a session in another unit whose trials stand in both; a session does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from align.config import PreprocessConfig
from align.data.measure import some
from align.data.signals import Trials, release

UNLIKE = 5.0  # ratio of two spreads from which sessions are suspected of two units; caps and days make less than 2
_LEAST = 8  # trials of a session that is looked at
_CHANNELS = 2048  # spread over all, that are looked at
_SAMPLES = 8  # of a window, spread over it, that are looked at
_HELD = 1 << 22  # values of a session that are read at once
_SIGMA = 1.4826  # deviations of a normal distribution in a median absolute one
_FAR = 6.0  # deviations at which single values are cut, so that an artefact is no spread
_RAISED = 0.5  # deviations that a mean is away from 0 at least in a session that nobody centred
_STANDARD = 0.1  # by which the deviation of a standardised channel may differ from 1, where trials were left out since
_MOST, _FEW = 0.9, 0.5  # parts of the channels


@dataclass(frozen=True)
class Session:
    """``spread``: deviation over ``trials`` in the unit of the file, median over channels. ``level``: distance of the
    mean from 0 in deviations, median over channels. ``standard``: part of the channels with deviation 1. Channels that
    never change are left out of all."""

    name: str
    trials: int
    spread: float
    level: float
    standard: float

    @property
    def centred(self) -> bool:
        """No farther from 0 than chance has it."""
        return self.level <= 1 / math.sqrt(self.trials)

    @property
    def raised(self) -> bool:
        """Farther from 0 than chance has it, by far."""
        return self.level >= max(_RAISED, 3 / math.sqrt(self.trials))


def measure_sessions(trials: Trials) -> list[Session]:
    """The sessions of a split with `_LEAST` trials or more, in order of appearance; none where none is named."""
    if trials.session is None:
        return []
    _, first = np.unique(trials.session, return_index=True)
    found = []
    for name in (trials.session[i] for i in sorted(first)):
        rows = np.flatnonzero(trials.session == name)
        if len(rows) >= _LEAST:
            found.append(_measured(str(name), trials.x, rows))
    return found


def _measured(name: str, x: np.ndarray, rows: np.ndarray) -> Session:
    count = len(rows)
    every = max(1, math.ceil(count * x[:1].size / _HELD))
    rows = rows[::every] if count // every >= _LEAST else rows[:: max(1, count // _LEAST)]
    channels = _spread_over(x.shape[1], _CHANNELS)
    part = np.asarray(x[rows], dtype=np.float64)[:, channels]
    release(x)
    if x.ndim == 3:
        part = part[:, :, _spread_over(x.shape[2], _SAMPLES)]
    values = part.reshape(len(part), -1)
    middle = np.median(values, axis=0)
    deviation = _SIGMA * np.median(np.abs(values - middle), axis=0)
    ends = np.where(deviation > 0, _FAR * deviation, np.inf)
    values = np.clip(values, middle - ends, middle + ends)
    own = values.std(axis=0)
    values, own = values[:, own > 0], own[own > 0]
    if not own.size:
        return Session(name, len(rows), 0.0, 0.0, 0.0)
    level = np.median(np.abs(values.mean(axis=0)) / own)
    standard = float((np.abs(own - 1) <= _STANDARD).mean())
    return Session(name, len(rows), float(np.median(own)), float(level), standard)


def _spread_over(n: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


def session_remarks(split: str, sessions: Sequence[Session], preprocess: PreprocessConfig) -> Iterator[str]:
    """Sessions of one split of another spread or level than the others."""
    alive = [one for one in sessions if one.spread > 0]
    if len(alive) > 1 and not preprocess.mvnn:  # which whitens session by session
        yield from _spreads(split, alive)
    if len(alive) > 1:
        yield from _levels(split, alive)


def _spreads(split: str, sessions: Sequence[Session]) -> Iterator[str]:
    usual = sessions[0] if len(sessions) == 2 else sorted(sessions, key=lambda one: one.spread)[len(sessions) // 2]
    apart = [one for one in sessions if not 1 / UNLIKE <= one.spread / usual.spread <= UNLIKE]
    if apart:
        listed = some([f"session {one.name} {_times(one.spread / usual.spread)}" for one in apart])
        yield (
            f"{split}: {listed} the spread of session {usual.name} ({apart[0].spread:.3g} and {usual.spread:.3g}, over "
            "trials, median over channels): are all of one unit? Bring that session to the unit of the others"
        )


def _times(factor: float) -> str:
    return f"has {factor:.3g} times" if factor >= 1 else f"has 1/{1 / factor:.3g} of"


def _levels(split: str, sessions: Sequence[Session]) -> Iterator[str]:
    """Some sessions are centred on 0, or of spread 1 in every channel, and others are not."""
    centred, raised = ([one for one in sessions if getattr(one, kind)] for kind in ("centred", "raised"))
    standard = [one for one in sessions if one.standard >= _MOST]
    plain = [one for one in sessions if one.standard <= _FEW]
    if centred and raised:
        how = " and of spread 1" if all(one in standard for one in centred) else ""
        means = f"mean {raised[0].level:.2g} times the spread"
        yield (
            f"{split}: {_named(centred)} centred on 0{how}, {_named(raised)} not ({means}): was one standardised or "
            "demeaned and the other not? Treat all sessions alike"
        )
    elif standard and plain:
        yield (
            f"{split}: {_named(standard)} of spread 1 in every channel, as after z-scoring, {_named(plain)} not "
            f"({plain[0].spread:.3g}): treat all sessions alike"
        )


def _named(sessions: Sequence[Session]) -> str:
    names = some([one.name for one in sessions])
    return f"session {names} is" if len(sessions) == 1 else f"sessions {names} are"
