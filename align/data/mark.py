"""A short mark of the signals of a recording, by which a run knows its own again, from whatever path it is read.

It is of the values, not of the file. Rounding in the last digits, as between two machines, leaves it as it is (but for
one case in a thousand or less); another person, another order of channels or a few other trials change it.
"""

from __future__ import annotations

import hashlib

import numpy as np

from align.data.signals import Trials, release

_PICTURES = 64  # of which trials are read, spread over all
_SUMS = 16  # each of about four bits
_STEP = 0.1  # of a sum, in its own spread
_SHIFT = 0.00731  # keeps sums that are zero away from the edge of a step
_GOLDEN = 0.6180339887498949


def signals_mark(trials: Trials) -> str:
    """16 hexadecimal digits that stand for ``trials``; "" where there is none.

    Of weighted sums over the mean trial of each of `_PICTURES` pictures: trials may come in any order.
    """
    if not len(trials):
        return ""
    pictures = np.unique(trials.stimulus)
    chosen = pictures[np.unique(np.linspace(0, len(pictures) - 1, _PICTURES).astype(np.int64))]
    of_values = _weights(trials.x[0].size)
    of_pictures = _weights(len(chosen) * _SUMS).reshape(len(chosen), _SUMS)
    sums, squares = np.zeros(_SUMS), 0.0
    for weights, picture in zip(of_pictures, chosen, strict=True):
        rows = np.flatnonzero(trials.stimulus == picture)
        mean = trials.x[rows].mean(axis=0, dtype=np.float64).ravel()
        release(trials.x)
        sums += weights * float(mean @ of_values)
        squares += float(mean @ mean)
    spread = np.sqrt(squares) or 1.0
    steps = np.floor(sums / spread / _STEP + _SHIFT).astype(np.int64)
    size = np.floor(np.log2(spread) * 2 + _SHIFT)  # another unit is another recording
    facts = f"{trials.x.shape[1:]} {len(pictures)} {size:.0f} {steps.tolist()}"
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def _weights(count: int) -> np.ndarray:
    """(count,) waves of rising speed, mean square 1: hardly alike to anything that is recorded, the same everywhere."""
    at = np.arange(count, dtype=np.float64)
    waves: np.ndarray = np.sqrt(2) * np.cos(2 * np.pi * (_GOLDEN * at * at % 1))
    return waves
