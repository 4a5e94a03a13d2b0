"""What can be counted in one subject's recording: values, repetitions, channel names, pictures that stand twice."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from align.data.channel_profile import FAR_CHANNEL
from align.data.columns import multiples, sampled
from align.data.signals import Recording, Stimuli, Trials, mapped_file, pixel_hash, release
from align.data.splits import TWIN_R, scene_groups, scene_twins, thumbnails
from align.data.windows import flat_rows

MOST_COMPARED = 20_000  # pictures of a subject among which look-alikes are searched
_FEW_PICTURES = 1000  # that are decoded for it where nobody asked for a check: a second or two
_PIECE = 1 << 24  # bytes of signals looked at once
_SAMPLED = 256  # trials, spread over all, whose values give the median
_EVEN = 2  # of 255: widest range of a channel of one colour, JPEG moves it by a level or two
FAR_ROW = 1e3  # times the usual size from which a single trial is of another unit; blinks and movements stay below
GAP = 5.0  # times between two groups of trials from which they are of two units: sizes of trials have no gaps
_FEW_VALUES = 8  # of a trial, below which its size says little
_LISTED = 5  # names that are spelled out
# The 10-20 system with its extensions (10-10, 10-5), mastoids and ear lobes.
_SITES = "N|Fp|AFp|AF|AFF|F|FFT|FFC|FT|FC|FTT|FCC|T|C|TTP|CCP|TP|CP|TPP|CPP|P|PPO|PO|POO|O|OI|I"
_TEN_TWENTY = re.compile(rf"(?:{_SITES})(?:z|10|[1-9])h?|[AM][12]", re.IGNORECASE)


def measure_trials(trials: Trials, ch_names: Sequence[str]) -> dict[str, Any]:
    """Counts over one split; the signals are read once, a piece at a time.

    ``median_abs`` (in the unit of the file) is that of `_SAMPLED` trials spread over the split, None without a finite
    value. ``far``: `far_rows`. ``apart``: [name, factor] of channels over time of another size than the median one.
    ``two_sizes``: `two_sizes`; ``flat``: trials of one value throughout, by row.
    ``constant``: channels or voxels with one value throughout, by name where they have one; ``empty``: how many of
    these are 0; ``multiples``: [name, name of an earlier one, factor] of those that are another one times a number.
    """
    x = trials.x
    low, high = np.full(x.shape[1], np.inf), np.full(x.shape[1], -np.inf)
    not_finite, first, flat = 0, None, list[int]()
    step = max(1, _PIECE // max(1, x[:1].nbytes))
    over = tuple(axis for axis in range(x.ndim) if axis != 1)
    for start in range(0, len(x), step):
        piece = np.asarray(x[start : start + step])
        bad = ~np.isfinite(piece)
        if bad.any():
            not_finite += int(bad.sum())
            first = start + int(bad.reshape(len(piece), -1).any(axis=1).argmax()) if first is None else first
        flat += [start + int(i) for i in flat_rows(piece)]
        low = np.minimum(low, np.fmin.reduce(piece, axis=over))
        high = np.maximum(high, np.fmax.reduce(piece, axis=over))
        release(x)
    constant = np.flatnonzero(low == high).tolist()
    names = ch_names if len(ch_names) == x.shape[1] else [str(i) for i in range(x.shape[1])]
    _, counts = np.unique(trials.stimulus, return_counts=True)
    return {
        "trials": len(trials),
        "pictures": len(counts),
        "repetitions": [int(counts.min()), int(counts.max())],
        "sessions": None if trials.session is None else len(np.unique(trials.session)),
        "shape": list(x.shape[1:]),
        "type": str(x.dtype),
        "bytes": int(x.nbytes),
        "mapped": mapped_file(x) is not None,
        "not_finite": not_finite,
        "first_not_finite_row": first,
        "median_abs": _median(x),
        "far": far_rows(x),
        "two_sizes": two_sizes(x),
        "flat": flat,
        "apart": [[names[i], factor] for i, factor in _apart(x)],
        "constant": [names[i] for i in constant],
        "empty": int((low[constant] == 0).sum()),
        "multiples": [[names[i], names[first], factor] for i, first, factor in multiples(x)],
    }


def far_rows(x: np.ndarray, size: float | None = None) -> list[int]:
    """Trials of x (n, ...) of another unit than ``size``, a mean absolute value; left out, it is that of the others.

    Their mean absolute value is above `FAR_ROW` times ``size``, or their largest below its part. Trials without
    signal and values that are not finite are left aside.
    """
    means, tops = _sizes(x)
    usual = (np.sort(means[tops > 0])[int((tops > 0).sum()) // 2] if tops.any() else 0.0) if size is None else size
    far = (means > FAR_ROW * usual) | ((tops > 0) & (tops < usual / FAR_ROW))
    return [int(i) for i in np.flatnonzero(far)] if usual > 0 else []


def two_sizes(x: np.ndarray) -> tuple[int, int, float] | None:
    """(count, first row, factor) of the smaller group where trials of x (n, ...) fall into two groups by their size.

    Between the groups lies a gap of more than `GAP` times, and none is smaller than a twentieth. Trials without signal
    are left aside; ``factor``: how many times as large the group is as the other. None where there are no two groups.
    """
    if not len(x) or x[0].size < _FEW_VALUES:
        return None
    means = _sizes(x)[0]
    rows = np.flatnonzero(means > 0)
    rows = rows[np.argsort(means[rows], kind="stable")]
    least = max(3, math.ceil(len(rows) / 20))
    if len(rows) < 2 * least:
        return None
    gaps = np.diff(np.log(means[rows]))[least - 1 : len(rows) - least]
    if gaps.max() <= math.log(GAP):
        return None
    low, high = np.split(rows, [least + int(gaps.argmax())])
    few, many = (low, high) if len(low) < len(high) else (high, low)
    return len(few), int(few.min()), float(np.median(means[few]) / np.median(means[many]))


def _sizes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and largest absolute value (n,) of every trial; values that are not finite count as 0."""
    means, tops = np.zeros(len(x)), np.zeros(len(x))
    step = max(1, _PIECE // max(1, x[:1].nbytes))
    for start in range(0, len(x), step):
        each = np.abs(np.nan_to_num(x[start : start + step], nan=0.0, posinf=0.0, neginf=0.0)).reshape(-1, x[0].size)
        means[start : start + step] = each.mean(axis=1, dtype=np.float64)
        tops[start : start + step] = each.max(axis=1)
    return means, tops


def _apart(x: np.ndarray) -> list[tuple[int, float]]:
    """Channels of x (n, C, T) more than `FAR_CHANNEL` times as large or small as the median one, and how many times."""
    if x.ndim != 3 or not len(x):
        return []
    sizes = np.median(np.abs(np.nan_to_num(sampled(x), nan=0.0, posinf=0.0, neginf=0.0)), axis=1)
    if np.count_nonzero(sizes) < 3:  # of two nobody knows which is wrong
        return []
    factors = sizes / np.median(sizes[sizes > 0])
    far = (factors > FAR_CHANNEL) | ((factors > 0) & (factors < 1 / FAR_CHANNEL))
    return [(int(i), float(factors[i])) for i in np.flatnonzero(far)]


def _median(x: np.ndarray) -> float | None:
    rows = np.unique(np.linspace(0, len(x) - 1, min(_SAMPLED, len(x))).astype(np.int64))
    values = np.abs(np.concatenate([np.asarray(x[row], dtype=np.float64).reshape(-1) for row in rows]))
    release(x)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else None


def measure_channels(recording: Recording) -> dict[str, Any]:
    """How many channels or voxels there are, how many names, which names stand twice or are no electrode sites."""
    names = recording.ch_names
    return {
        "found": int(recording.train.x.shape[1]),
        "names": len(names),
        "twice": sorted({name for name in names if names.count(name) > 1}),
        "not_10_20": [name for name in names if not _TEN_TWENTY.fullmatch(name)],
    }


class Looks:
    """Pixel hashes and thumbnails of every picture of a study, from one pass over the files."""

    def __init__(self, stimuli: Stimuli) -> None:
        self.stimuli = stimuli
        compared = len(stimuli) <= MOST_COMPARED
        hashes, thumbs, flat = [], [], []
        for i in range(len(stimuli)):
            image = stimuli.load(i)
            hashes.append(pixel_hash(image))
            flat.append(np.ptp(image.reshape(-1, 3), axis=0).max() <= _EVEN)
            if compared:
                thumbs.append(thumbnails([image])[0])
        self.hashes = np.array(hashes)
        self.thumbs = np.array(thumbs) if compared else None
        self.one_colour = np.array(flat, dtype=bool)

    def thumbs_of(self, rows: np.ndarray) -> np.ndarray | None:
        """Thumbnails (n, 768) of some pictures, of few where they are not known yet; None for more."""
        if self.thumbs is not None:
            return self.thumbs[rows]
        few = len(rows) <= min(_FEW_PICTURES, MOST_COMPARED)
        return thumbnails(self.stimuli.load(int(i)) for i in rows) if few else None

    @classmethod
    def known(cls, stimuli: Stimuli) -> Looks:
        """Hashes alone, which are decoded once per study and often kept on disk."""
        looks = object.__new__(cls)
        looks.stimuli, looks.hashes, looks.thumbs = stimuli, np.array(stimuli.hashes), None
        looks.one_colour = np.zeros(len(stimuli), dtype=bool)
        return looks


def measure_pictures(recording: Recording, looks: Looks) -> dict[str, Any]:
    """Pictures with equal pixels across and within splits, look-alikes across (None: too many), shared concepts."""
    stimuli = recording.stimuli
    train, test = np.unique(recording.train.stimulus), np.unique(recording.test.stimulus)
    equal = test[np.isin(looks.hashes[test], looks.hashes[train])]
    thumbs, alike = looks.thumbs_of(np.concatenate([train, test])), None
    if thumbs is not None:
        near = scene_twins(thumbs[: len(train)], thumbs[len(train) :], [], [])
        alike = [stimuli.ids[i] for i in train[near & ~np.isin(looks.hashes[train], looks.hashes[test])]]
    own = looks.thumbs_of(test) if thumbs is None else thumbs[len(train) :]
    concepts = [{stimuli.concepts[i] for i in part} - {""} for part in (train, test)]
    return {
        "equal_in_both": [stimuli.ids[i] for i in equal],
        "alike_in_both": alike,
        "alike_in_test": None if own is None else _look_alikes(own, looks.hashes[test], [stimuli.ids[i] for i in test]),
        "equal_in_training": len(train) - len(np.unique(looks.hashes[train])),
        "equal_in_test": len(test) - len(np.unique(looks.hashes[test])),
        "twice_in_test": _twice(looks.hashes[test], [stimuli.ids[i] for i in test]),
        "one_colour": [stimuli.ids[i] for i in np.union1d(train, test) if looks.one_colour[i]],
        "concepts": [len(part) for part in concepts],
        "concepts_in_both": sorted(concepts[0] & concepts[1]),
    }


def _twice(hashes: np.ndarray, ids: Sequence[str]) -> list[list[str]]:
    """Pairs [id, earlier id] of pictures with equal pixels."""
    first: dict[str, str] = {}
    pairs = [[name, first.setdefault(str(digest), name)] for digest, name in zip(hashes, ids, strict=True)]
    return [pair for pair in pairs if pair[0] != pair[1]]


def _look_alikes(thumbs: np.ndarray, hashes: np.ndarray, ids: Sequence[str]) -> list[list[str]]:
    """Pairs [id, earlier id] of pictures that show one scene with other pixels."""
    groups = scene_groups(thumbs, [str(i) for i in range(len(ids))])
    _, first = np.unique(groups, return_index=True)
    pairs = [(i, int(first[group])) for i, group in enumerate(groups) if first[group] != i]
    return [[ids[i], ids[k]] for i, k in pairs if hashes[i] != hashes[k]]


def some(names: Sequence[str]) -> str:
    """ "a, b and 3 more"."""
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest


ALIKE = f"thumbnail r > {TWIN_R}"
