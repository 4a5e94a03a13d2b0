"""What a recording was taken for, in words: rate, window, axes, unit; remarks on what is implausible; what to do next.

Nothing here decides anything: units are guessed from the size of the values, axes from how smooth they are.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import numpy as np

from align.config import Config, flatten, to_dict
from align.data.signals import Recording, Trials, release
from align.data.spans import ends, span

SCALED = "preprocess.scale=zscore"
_RATES = 10.0, 50_000.0  # Hz: EEG and MEG have 100 to 5000, arrays of electrodes 30,000
_WINDOWS = 0.05, 30.0  # s: the first answer of the cortex takes about 50 ms
# s: recordings around a picture begin a second or two before it, or before a response that lasts some seconds; times
# that were meant in ms are 1000 times as large, and even the shortest usual baselines (50 ms) are then far beyond
_AWAY = 10.0
_UNITS = ((1e-16, 1e-10, "tesla"), (1e-8, 1e-3, "volts"))  # median absolute values, from, to below
_KEPT = ("study.", "subjects", "preprocess.", "simulated.")  # of a configuration, what the check was about
_TRIALS = 64  # whose smoothness is looked at


def understood(recording: Recording, median: float | None) -> dict[str, Any]:
    """Of a recording as stored: ``axes``, ``sfreq`` in Hz, ``window`` in s, ``unit`` (a guess from the median size).

    ``window``: times of the first and of the last sample.
    """
    shape = recording.train.x.shape[1:]
    timed = len(shape) == 2
    axes = f"{shape[0]} channels x {shape[1]} samples" if timed else f"{shape[0]} voxels or units, no time"
    window = None
    if timed and recording.sfreq:
        window = list(ends(recording.tmin, shape[1], recording.sfreq))
    return {"axes": axes, "sfreq": recording.sfreq, "window": window, "unit": _unit(median, recording.train, timed)}


def understood_line(entry: dict[str, Any]) -> str:
    """`understood` in one line."""
    rate = "sampling rate not given" if entry["sfreq"] is None else f"{entry['sfreq']:g} Hz"
    timed = [rate] if "samples" in entry["axes"] else []
    if entry["window"] is not None:
        timed.append("{:g} to {:g} s after the picture (first and last sample)".format(*entry["window"]))
    return ", ".join([entry["axes"], *timed, f"values {entry['unit']}"])


def no_rate(recording: Recording) -> Iterator[str]:
    """A remark on signals over time whose rate is not told."""
    if recording.train.x.ndim == 3 and recording.sfreq is None:
        yield "no sampling rate (info.json: sfreq), so no step and no window in seconds can be had"


def implausible(recording: Recording) -> Iterator[str]:
    """Remarks on what is more likely a slip than a recording."""
    x = recording.train.x
    pictures = len(np.unique(recording.test.stimulus))
    if pictures == 1:
        yield "one test picture: it is always found among itself; mark more pictures as test"
    yield from implausible_times(recording)
    if x.ndim == 3 and not recording.ch_names and _swapped(x):
        yield (
            f"trials are {x.shape[1]} x {x.shape[2]}, and the first axis runs as smoothly as time: are channels and "
            "samples swapped? signals are (trials, channels, samples)"
        )


def implausible_times(recording: Recording) -> Iterator[str]:
    """Remarks on a rate, a length and a first sample that are more likely of another unit."""
    x, rate, first = recording.train.x, recording.sfreq, recording.tmin
    if x.ndim != 3:
        return
    if rate is not None and not _RATES[0] <= rate <= _RATES[1]:
        yield f"sampling rate {rate:g} Hz is implausible (info.json: sfreq is in Hz, not kHz or ms)"
    elif rate is not None and not _WINDOWS[0] <= x.shape[2] / rate <= _WINDOWS[1]:
        yield f"a trial of {x.shape[2]} samples lasts {x.shape[2] / rate:g} s at {rate:g} Hz: is the rate right?"
    if abs(first) > _AWAY:
        yield (
            f"trials begin {abs(first):g} s {'before' if first < 0 else 'after'} the picture, more than {_AWAY:g} s "
            "away: is tmin in ms? (info.json: tmin is in s, such as -0.2)"
        )
    elif rate is not None and ends(first, x.shape[2], rate)[1] < 0:
        yield (
            f"every sample lies before the picture, {span(first, x.shape[2], rate)}: is sfreq ({rate:g} Hz) right, and "
            "is tmin in s?"
        )


def next_command(config: Config, scaled: bool) -> str:
    """The command to go on with; ``scaled``: with the step that was recommended."""
    usual = dict(flatten(to_dict(Config())))
    kept = [
        (key, value)
        for key, value in flatten(to_dict(config))
        if value != usual[key] and key.startswith(_KEPT) and key != "study.name"
    ]
    pairs = [f"{key}={'[' + ','.join(map(str, v)) + ']' if isinstance(v, list) else v}" for key, v in kept]
    words = ["recon", "sweep", "--config", f"configs/align/{config.study.name}.yaml", *pairs]
    return shlex.join([*words, *([SCALED] if scaled else [])])


def _unit(median: float | None, trials: Trials, timed: bool) -> str:
    if median is None:
        return "not finite"
    for low, high, name in _UNITS:
        if timed and low <= median < high:
            return f"like {name}"
    some = np.asarray(trials.x[:: max(1, len(trials.x) // _TRIALS)], dtype=np.float64)
    release(trials.x)
    if abs(float(some.mean())) < 0.3 and 0.7 < float(some.std()) < 1.4:
        return "like standardised ones"
    return "like microvolts" if timed and 0.5 <= median < 500 else f"of median size {median:.3g}, unit not guessed"


def _swapped(x: np.ndarray) -> bool:
    """Neighbours along the first axis are more alike than along the second, which is shorter."""
    some = np.asarray(x[:: max(1, len(x) // _TRIALS)], dtype=np.float64)
    release(x)
    if min(some.shape[1:]) < 3 or some.shape[1] <= some.shape[2]:
        return False
    some = some - some.mean(axis=0)  # what all trials share says nothing
    first, second = (_alike(some, axis) for axis in (1, 2))
    return first > 0.5 and first > second + 0.2


def _alike(x: np.ndarray, axis: int) -> float:
    """Correlation of neighbours along an axis."""
    moved = np.moveaxis(x, axis, -1)
    a, b = moved[..., :-1].ravel(), moved[..., 1:].ravel()
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / size) if size > 0 else 0.0
