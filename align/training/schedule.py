"""Learning rate and batches as pure functions of the step, so that neither needs stored state."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from align.seeding import derive

_WARM_UP, _START, _END = (
    0.3,
    25.0,
    1e4,
)  # of torch.optim.lr_scheduler.OneCycleLR: pct_start, div_factor, final_div_factor


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


def _one_cycle(step: int, total: int) -> float:
    peak = max(_WARM_UP * total - 1, 1e-9)
    if step <= peak:
        return _cosine(1 / _START, 1, step / peak)
    return _cosine(1, 1 / _START / _END, (step - peak) / (total - 1 - peak))


SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "onecycle": _one_cycle,
    "cosine": lambda step, total: _cosine(1, 0, step / total),
    "constant": lambda step, total: 1.0,
}


def learning_rate(name: str, step: int, total: int) -> float:
    """The part of the highest learning rate used at ``step`` of ``total`` under the schedule ``name``."""
    return SCHEDULES[name](step, total)


def steps_per_epoch(n_rows: int, batch_size: int) -> int:
    """Batches in one pass: as many as come nearest to ``batch_size`` rows, all of nearly equal size."""
    return max(1, round(n_rows / batch_size))


def batch_rows(n_rows: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Row indices of the batch at ``step``; every row comes once in each epoch, in an order set by (seed, epoch)."""
    per_epoch = steps_per_epoch(n_rows, batch_size)
    epoch, k = divmod(step, per_epoch)
    return np.array_split(_order(n_rows, derive(seed, "epoch", epoch)), per_epoch)[k]


@lru_cache(maxsize=2)  # the reading thread may be one epoch ahead
def _order(n_rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(n_rows)
