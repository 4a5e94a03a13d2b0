"""Named ablations: which part of a recording is looked at, ``study.roi``, ``study.channels`` and ``study.window``.

They are other words for what `align.data.preparing.preprocess` does at the start of its steps, for use on the command
line; where ``preprocess`` already says the same thing, both together are refused. Order: roi, then channels among those
of the roi, then (after ``preprocess.baseline``) the window.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from align.config import Config, PreprocessConfig, StudyConfig
from align.data.signals import Recording, trial_size
from align.data.spans import span
from align.errors import UserError
from align.fields.syntax import parse_window

_WITHOUT = {
    "study.roi": "choose channels by study.channels",
    "encoder.bands": "give sizes (encoder.bands=[30,37]) or encoder.bands=[channel]",
}
_NAMED = 8  # channels or regions that are named on a line of text
Rois = Mapping[str, Sequence[int | str]]  # name to channels or voxels: indices from 0, or channel names


def resolve(
    config: Config, recording: Recording, rois: Callable[[], Rois]
) -> tuple[PreprocessConfig, np.ndarray | None]:
    """The steps with the window in them, and the indices of the channels or voxels to keep (None = all).

    ``recording`` as it is stored, ``rois()`` what its study declares. Raises `UserError` for an unknown roi or channel,
    an expression that fits none, and a window outside the recording.
    """
    study, steps = config.study, config.preprocess
    picks = None
    if study.roi:
        picks = _roi_indices(study.roi, rois(), recording)
    if study.channels:
        names = recording.ch_names
        if not names:
            raise UserError(f"study.channels={study.channels!r} needs channel names, which {_of(recording)} lacks")
        among = np.arange(len(names)) if picks is None else picks
        picks = among[channel_indices(study.channels, [names[i] for i in among], _of(recording))]
    return _with_window(study, steps, recording), picks


def channel_indices(wanted: str, names: Sequence[str], what: str) -> np.ndarray:
    """Indices into ``names``, in rising order, of the channels that ``wanted`` means.

    ``wanted``: names with commas between them (in brackets or not), else a regular expression that is searched for
    anywhere in a name (``^(O|P)``: those that begin with O or P). Raises `UserError` where nothing fits.
    """
    bare = wanted.strip()
    listed = bare.startswith("[") and bare.endswith("]")
    parts = [part.strip().strip("'\"") for part in (bare[1:-1] if listed else bare).split(",")]
    if all(part in names for part in parts):
        twice = next((part for i, part in enumerate(parts) if part in parts[:i]), None)
        if twice is not None:
            raise UserError(f"study.channels={wanted!r} names the channel {twice!r} twice; name it once")
        return np.array([i for i, name in enumerate(names) if name in parts], dtype=np.int64)
    if listed and len(parts) > 1:
        strange = next(part for part in parts if part not in names)
        raise UserError(f"study.channels: {what} has no channel {strange!r}{_near(strange, names)}")
    try:
        pattern = re.compile(bare)
    except re.error as error:
        raise UserError(f"study.channels={wanted!r} is no regular expression ({error})") from error
    found = [i for i, name in enumerate(names) if pattern.search(name)]
    if not found:
        raise UserError(f"study.channels={wanted!r} fits no channel of {what}{_near(parts[0], names)}")
    return np.array(found, dtype=np.int64)


def described(config: Config, shape: Sequence[int]) -> dict[str, Any]:
    """What a report says about it; None = everything. ``shape`` of a trial as used, (C, T) or (V,).

    ``window`` in s, the end not included. Entries hold whether they were given under ``study`` or under ``preprocess``.
    """
    study, steps = config.study, config.preprocess
    window = list(parse_window(study.window)) if study.window else [steps.tmin, steps.tmax]
    return {
        "roi": study.roi or None,
        "channels": study.channels or steps.channels or None,
        "window": None if window == [None, None] else window,
        "n_channels": int(shape[0]),
        "n_times": int(shape[1]) if len(shape) > 1 else None,
    }


def in_words(part: dict[str, Any]) -> str:
    """`described` on one line: the size of a trial, and the regions or channels that were named."""
    size, times = part.get("n_channels"), part.get("n_times")
    if not isinstance(size, int) or isinstance(times, str):
        return "trials of different sizes" if size else "size of trials not stated"
    given = {"regions": part.get("roi"), "channels": part.get("channels")}
    named = [f"{what} {_some(names)}" for what, names in given.items() if names]
    return ", ".join([trial_size([size] if times is None else [size, times]), *named])


def _some(names: Sequence[str] | str) -> str:
    """The first of a list of names."""
    if isinstance(names, str):
        return names
    return ", ".join(map(str, names[:_NAMED])) + (" ..." if len(names) > _NAMED else "")


def with_regions(
    wanted: Sequence[str], stored: Recording, made: Recording, picks: np.ndarray | None, rois: Callable[[], Rois]
) -> Recording:
    """``made``, prepared of ``stored``, with the regions ``wanted`` as indices of its channels or voxels.

    ``picks``: what was read of the stored ones; None = all. Raises `UserError` for an unknown region, and for one of
    which nothing is left.
    """
    if not wanted:
        return made
    kept = np.arange(stored.train.x.shape[1]) if picks is None else picks
    if picks is None and made.ch_names != stored.ch_names:
        kept = np.array([stored.ch_names.index(name) for name in made.ch_names])
    declared, regions = rois(), {}
    for name in wanted:
        inside = np.isin(kept, _roi_indices([name], declared, stored, "encoder.bands"))
        if not inside.any():
            raise UserError(
                f"encoder.bands: nothing of region {name!r} is left in {_of(stored)} (study.roi, study.channels, "
                "preprocess.channels); leave it out"
            )
        regions[name] = tuple(np.flatnonzero(inside).tolist())
    return replace(made, regions=regions)


def _roi_indices(wanted: Sequence[str], rois: Rois, recording: Recording, key: str = "study.roi") -> np.ndarray:
    """Rising indices of all channels or voxels in the regions ``wanted``."""
    what, count = _of(recording), recording.train.x.shape[1]
    if not rois:
        raise UserError(f"{key}={','.join(wanted)}: {what} declares no regions; {_WITHOUT[key]}")
    chosen: set[int] = set()
    for i, name in enumerate(wanted):
        if name in wanted[:i]:
            raise UserError(f"{key}={','.join(wanted)} names the region {name!r} twice; name it once")
        if name not in rois:
            near = difflib.get_close_matches(name, rois, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ";"
            raise UserError(f"{key}: {what} has no region {name!r}{hint} There are: {', '.join(rois)}")
        chosen |= set(members(name, rois[name], recording.ch_names, count))
    if not chosen:
        raise UserError(f"{key}={','.join(wanted)} is empty in {what}; choose another")
    return np.array(sorted(chosen), dtype=np.int64)


def members(roi: str, entries: Sequence[int | str], names: Sequence[str], count: int) -> list[int]:
    """Indices of the channels or voxels of a region, of ``count``; ``names``: of the channels, where they have any.

    Raises `UserError` for an unknown channel, an index below 0 or from ``count`` on, and one that stands twice.
    """
    place = {name: i for i, name in reversed(list(enumerate(names)))}
    found: dict[int, int | str] = {}
    for entry in entries:
        if isinstance(entry, str) and entry not in place:
            raise UserError(f"roi {roi!r} names the channel {entry!r}, which the recording lacks{_near(entry, names)}")
        index = place[entry] if isinstance(entry, str) else entry
        if not 0 <= index < count:
            raise UserError(
                f"roi {roi!r} holds the index {index}, but there are {count} channels or voxels, from 0 to {count - 1}"
            )
        if index in found:
            both = f"{found[index]!r}" if found[index] == entry else f"{found[index]!r} and {entry!r}"
            raise UserError(f"roi {roi!r} names a channel or voxel twice ({both}); name it once")
        found[index] = entry
    return list(found)


def _with_window(study: StudyConfig, steps: PreprocessConfig, recording: Recording) -> PreprocessConfig:
    if not study.window:
        return steps
    start, stop = parse_window(study.window)
    x, rate, first = recording.train.x, recording.sfreq, recording.tmin
    if x.ndim != 3 or rate is None:
        lacks = "signals over time" if x.ndim != 3 else "a sampling rate (info.json: sfreq)"
        raise UserError(f"study.window={study.window} needs {lacks}, which {_of(recording)} lacks")
    end, slack = first + x.shape[2] / rate, 0.5 / rate
    if start < first - slack or stop > end + slack:
        raise UserError(
            f"study.window={study.window} leaves the recording of {_of(recording)}, {span(first, x.shape[2], rate)}; "
            f"the end is not included, so it may be {end:g} at most"
        )
    if round(stop * rate) <= round(start * rate):
        raise UserError(f"study.window={study.window} holds no sample of {_of(recording)} at {rate:g} Hz; widen it")
    return replace(steps, tmin=start, tmax=stop)


def _near(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"{hint} There are: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"


def _of(recording: Recording) -> str:
    return f"{recording.study} subject {recording.subject}"
