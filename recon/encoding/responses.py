"""Responses of a subject as units: channels or voxels, or channel by window where signals have time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from align.data.signals import Recording, Trials
from align.errors import UserError
from recon.analysis.windows import Window, sliding_windows
from recon.encoding.ceiling import Ceiling, split_half

if TYPE_CHECKING:
    from align.data.studies.base import Study


@dataclass(frozen=True)
class Layout:
    """U units = channels x windows, windows running fastest. ``windows`` (): responses have no time.

    ``regions``: region to channels, where the study knows some.
    """

    channels: tuple[str, ...]
    windows: tuple[Window, ...]
    regions: dict[str, tuple[int, ...]]

    @property
    def count(self) -> int:
        return len(self.channels) * max(1, len(self.windows))

    def units(self) -> list[dict[str, Any]]:
        """What tells a unit from others, one entry for each: channel, and begin and end of the window in s."""
        if not self.windows:
            return [{"channel": name} for name in self.channels]
        return [{"channel": name, "begin": w.begin, "end": w.end} for name in self.channels for w in self.windows]

    def of_regions(self, values: np.ndarray) -> dict[str, float]:
        """Mean of unit values (U,) over the channels (and windows) of every region."""
        table = values.reshape(len(self.channels), -1)
        return {name: float(table[list(rows)].mean()) for name, rows in self.regions.items() if rows}

    def means(self, x: np.ndarray) -> np.ndarray:
        """(n, U) float64 of trials (n, C, T) or (n, V)."""
        if not self.windows:
            return np.asarray(x, dtype=np.float64).reshape(len(x), -1)
        parts = [np.asarray(x[:, :, w.start : w.stop], dtype=np.float64).mean(axis=2) for w in self.windows]
        return np.stack(parts, axis=2).reshape(len(x), -1)


def layout_of(recording: Recording, study: Study, width: float | None) -> Layout:
    """Windows of ``width`` s, one after the other; None = 0.05. Raises `UserError` where there is no time to cut."""
    timed = recording.train.x.ndim == 3
    if width is not None and not timed:
        raise UserError(f"--width: the signals of {recording.study} subject {recording.subject} have no time axis")
    windows = tuple(sliding_windows(recording, width or 0.05, width or 0.05)) if timed else ()
    count = recording.train.x.shape[1]
    names = recording.ch_names or tuple(str(i) for i in range(count))
    return Layout(tuple(names), windows, _regions(recording, study, names))


def _regions(recording: Recording, study: Study, names: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Regions as channel numbers: those of the recording, else those of the study where all channels are there."""
    if recording.regions:
        return {name: tuple(rows) for name, rows in recording.regions.items()}
    place = {name: i for i, name in enumerate(names)}
    part = study.config.study
    if part.roi or part.channels:
        return {}
    found = {}
    for region, members in study.rois(recording.subject).items():
        rows = [member if isinstance(member, int) else place.get(member, -1) for member in members]
        if all(0 <= row < len(names) for row in rows):
            found[region] = tuple(rows)
    return found


class Means(Protocol):
    """Whatever makes units of trials: a `Layout`, or means of several of its units."""

    def means(self, x: np.ndarray) -> np.ndarray:
        """(n, U) of trials (n, C, T) or (n, V)."""
        ...


def ceiling_of(
    recording: Recording, study: Study, layout: Means, scored: Trials, among: np.ndarray, seed: int
) -> Ceiling | None:
    """From the repetitions of the scored pictures ``among``, or from single trials that the study keeps apart.

    None where nothing was repeated: one repetition gives no ceiling.
    """
    if len(scored) > len(np.unique(scored.stimulus)):
        rows = np.flatnonzero(np.isin(scored.stimulus, among))
        part = scored.take(rows)
        units = Trials(layout.means(part.x), part.stimulus, part.repetition)
        return split_half(units, among, seed, "repetitions of the scored pictures")
    single = study.repetitions(recording.subject)
    if single is None or single.x.shape[1:] != recording.train.x.shape[1:]:
        return None
    units = Trials(layout.means(single.x), single.stimulus, single.repetition)
    return split_half(units, among, seed, "single trials that the study keeps next to its averages")
