"""Channels or voxels of trials: those that are another one times a number."""

from __future__ import annotations

import numpy as np

from align.data.signals import release

_TRIALS = 256  # trials, spread over all, that are looked at
_HELD = 1 << 22  # values of all of them that are held at once
_VALUES = 2048  # of a channel that are compared
_FEW = 16  # entries other than 0 from which two equal columns of whole numbers are no accident
_ROUNDED = 1e-6  # of the size of a column: what a factor and single precision change


def multiples(x: np.ndarray) -> list[tuple[int, int, float]]:
    """Triples (channel, earlier channel, factor): channels of x (n, C, T) or (n, V) that are another one times a
    number, below 0 where the sign is turned, 1 for a copy. Channels of one value are left aside."""
    columns = sampled(x)
    size = np.linalg.norm(columns, axis=1)
    told = np.isfinite(size) & (np.count_nonzero(columns, axis=1) >= _FEW) & (np.ptp(columns, axis=1) > 0)
    kept = np.flatnonzero(told)
    if len(kept) < 2:
        return []
    unit = columns[kept] / size[kept, None]
    mark = unit @ np.random.default_rng(0).normal(size=unit.shape[1])
    unit, sign = unit * np.sign(mark)[:, None], np.sign(mark)
    order = np.argsort(np.abs(mark), kind="stable")
    # equal columns have equal marks, so they are neighbours here
    other = np.abs(unit[order[1:]] - unit[order[:-1]]).max(axis=1) >= _ROUNDED
    found = []
    for members in np.split(order, np.flatnonzero(other) + 1):
        least = members.min()
        factors = sign[members] * sign[least] * size[kept[members]] / size[kept[least]]
        pairs = zip(members, factors, strict=True)
        found += [(int(kept[i]), int(kept[least]), float(factor)) for i, factor in pairs if i != least]
    return sorted(found)


def sampled_trials(x: np.ndarray) -> np.ndarray:
    """Some trials (at most 256, of large ones at least 16), spread over x (n, ...), as float64."""
    count = min(len(x), _TRIALS, max(_FEW, _HELD // max(1, x[:1].size)))
    rows = np.unique(np.linspace(0, len(x) - 1, count).astype(np.int64))
    part: np.ndarray = np.asarray(x[rows], dtype=np.float64)
    release(x)
    return part


def sampled(x: np.ndarray) -> np.ndarray:
    """(C, values) or (V, values), float64: some samples of some trials (n, C, T) or (n, V)."""
    part = sampled_trials(x)
    every = 1 if x.ndim == 2 else max(1, len(part) * x.shape[2] // _VALUES)
    part = part if x.ndim == 2 else part[:, :, ::every]
    flat: np.ndarray = np.moveaxis(part, 1, 0).reshape(x.shape[1], -1)
    return flat
