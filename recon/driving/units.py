"""Which units are looked at: channels, voxels or windows by name, and means of regions, all in one scale."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from align.errors import UserError
from recon.encoding.responses import Layout

ALL = "all"
AT = "@"  # between a name and a moment in s, where responses have time


@dataclass(frozen=True)
class Driven:
    """K units or means of regions of a layout.

    ``columns``: of each, the numbers of its units. ``level``, ``spread`` (U,): of the training responses; a region is
    the mean of its units in these deviations, so that no loud channel speaks for it.
    """

    layout: Layout
    names: tuple[str, ...]
    columns: tuple[np.ndarray, ...]
    level: np.ndarray
    spread: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def of(self, responses: np.ndarray) -> np.ndarray:
        """(n, K) in deviations of the training responses, of responses (n, U)."""
        scaled = (responses - self.level) / self.spread
        return np.stack([scaled[:, columns].mean(axis=1) for columns in self.columns], axis=1)

    def means(self, x: np.ndarray) -> np.ndarray:
        """(n, K) of trials (n, C, T) or (n, V), as `Layout.means`."""
        return self.of(self.layout.means(x))


def driven(layout: Layout, units: Sequence[str], regions: Sequence[str], training: np.ndarray) -> Driven:
    """The units and regions of these names, in this order. ``training``: responses (n, U) that give the scale.

    Where responses have time a name ends in a moment: ``Oz@0.12`` is channel Oz in the window that holds 0.12 s.
    The unit ``all`` (``all@0.12``) means all channels or voxels, unless one of them is called so.
    Raises `UserError` for a name that is not known, and for a moment that is missing, out of place or outside.
    """
    names: list[str] = []
    columns: list[np.ndarray] = []
    known = {name: np.array([i]) for i, name in enumerate(layout.channels)}
    wanted = [name for word in units for name in _written_out(layout, word)]
    for option, asked, places in (("--units", wanted, known), ("--roi", list(regions), _regions(layout))):
        for word in dict.fromkeys(asked):
            name, _, moment = word.rpartition(AT) if layout.windows else (word, "", "")
            if layout.windows and not name:
                raise UserError(f"{option} {word!r}: these responses have time; write a moment in s, as {word}{AT}0.12")
            if name not in places:
                raise UserError(f"{option} {name!r} is not known{_near(name, list(places), option)}")
            names.append(word)
            columns.append(_at(layout, places[name], f"{option} {word!r}", moment))
    spread = training.std(axis=0)
    return Driven(layout, tuple(names), tuple(columns), training.mean(axis=0), np.where(spread > 0, spread, 1.0))


def _written_out(layout: Layout, word: str) -> list[str]:
    """The word, or a name for every channel."""
    name, at, moment = word.rpartition(AT) if layout.windows else (word, "", "")
    if name != ALL or ALL in layout.channels:
        return [word]
    return [f"{channel}{at}{moment}" for channel in layout.channels]


def _regions(layout: Layout) -> dict[str, np.ndarray]:
    return {name: np.array(rows, dtype=np.int64) for name, rows in layout.regions.items() if rows}


def _at(layout: Layout, channels: np.ndarray, what: str, moment: str) -> np.ndarray:
    """Unit numbers of the channels, in the window of the moment where there are windows."""
    if not layout.windows:
        return channels
    try:
        time = float(moment)
    except ValueError:
        raise UserError(f"{what}: {moment!r} is no moment in s") from None
    found = [i for i, window in enumerate(layout.windows) if window.begin <= time < window.end]
    if not found:
        ends = f"{layout.windows[0].begin:g} to {layout.windows[-1].end:g} s"
        raise UserError(f"{what}: no window holds {moment} s; they go from {ends}")
    return channels * len(layout.windows) + found[0]


def _near(name: str, known: Sequence[str], option: str) -> str:
    if not known:
        return f"; the study names none, leave {option} out"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    some = ", ".join(known[:12])
    return f"{hint} Known: {some}{' and more' if len(known) > 12 else ''}"
