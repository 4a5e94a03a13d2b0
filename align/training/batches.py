"""Pairs of signals and target components, and batches of them that are read while the last one is computed with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from align.data.rows import Rows
from align.model.spaces import SignalSpace
from align.training.augment import repetitions
from align.training.schedule import batch_rows


@dataclass(frozen=True)
class StreamedSignals:
    """Signals that are too many to be held: read from their files and standardised a batch at a time."""

    rows: Rows
    space: SignalSpace

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: np.ndarray) -> torch.Tensor:
        """The rows of the given numbers as the encoder reads them, (B, ...)."""
        with torch.no_grad():
            return self.space(self.rows.take(index).to(self.space.mean.device))


@dataclass(frozen=True)
class Batch:
    """Signals (B, ...) as the encoder reads them, components (B, k), stimulus (B,), all on one device.

    ``distinct``: no picture comes twice. ``subject`` (B,): whose signals; None = all of one subject. ``rows`` (B,): the
    numbers of the pairs; ``levels`` as in `Pairs`.
    """

    signals: torch.Tensor
    components: torch.Tensor
    stimulus: torch.Tensor
    distinct: bool = False
    subject: torch.Tensor | None = None
    rows: torch.Tensor | None = None
    levels: torch.Tensor | None = None


@dataclass(frozen=True)
class Pairs:
    """What the loop is given: signals of n rows, maybe still in their files, and the pictures that were seen.

    ``components`` (K, k) of the distinct pictures; ``stimulus`` (n,) = picture of a row. ``distinct``: no picture comes
    twice. ``subject`` (n,) = subject of a row, None = one subject. ``levels`` (3, K, k): components of the weak, medium
    and strong view of every picture, None without ``target.uncertain_views``.
    """

    signals: torch.Tensor | StreamedSignals
    components: torch.Tensor
    stimulus: torch.Tensor
    distinct: bool = False
    subject: torch.Tensor | None = None
    levels: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.signals)

    def draw(self, batch_size: int, seed: int, step: int) -> np.ndarray:
        """The rows of the batch at ``step``, see `batch_rows`."""
        return batch_rows(len(self), batch_size, seed, step)

    def subset(self, rows: np.ndarray) -> Pairs:
        """The given rows; nothing is read of streamed signals."""
        signals: torch.Tensor | StreamedSignals = (
            replace(self.signals, rows=self.signals.rows.subset(rows))
            if isinstance(self.signals, StreamedSignals)
            else self._held(rows)
        )
        return replace(self, signals=signals, stimulus=self.stimulus[self._index(rows)], subject=self._whose(rows))

    def batch(self, rows: np.ndarray, average_up_to: int = 1, seed: int = 0) -> Batch:
        """The given rows, in memory; above 1, each averaged with up to ``average_up_to`` - 1 of its repetitions."""
        index = self._index(rows)
        stimulus = self.stimulus[index]
        signals = self._held(rows) if average_up_to == 1 else self._averaged(rows, average_up_to, seed)
        pictures = self.components[stimulus]
        return Batch(signals, pictures, stimulus, self.distinct, self._whose(rows), index, self.levels)

    def _averaged(self, rows: np.ndarray, average_up_to: int, seed: int) -> torch.Tensor:
        drawn = repetitions(self._units, rows, average_up_to, seed)
        needed = self._held(np.concatenate(drawn))
        return torch.stack([part.mean(0) for part in needed.split([len(part) for part in drawn])])

    @cached_property
    def _units(self) -> np.ndarray:
        """(n,): equal for trials of one picture and one subject."""
        subject = torch.zeros_like(self.stimulus) if self.subject is None else self.subject
        units: np.ndarray = (subject * len(self.components) + self.stimulus).cpu().numpy()
        return units

    def _whose(self, rows: np.ndarray) -> torch.Tensor | None:
        return None if self.subject is None else self.subject[self._index(rows)]

    def _held(self, rows: np.ndarray) -> torch.Tensor:
        return self.signals[self._index(rows)] if isinstance(self.signals, torch.Tensor) else self.signals.take(rows)

    def _index(self, rows: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(rows, device=self.components.device)


class Ahead:
    """Iterates over ``make(step)`` for the given steps; with ``ahead``, a thread makes the next one meanwhile.

    ``waited``: seconds that the caller had to wait for items, so far.
    """

    def __init__(self, make: Callable[[int], Batch], steps: range, ahead: bool) -> None:
        self.make, self.steps, self.ahead = make, steps, ahead
        self.waited = 0.0

    def __iter__(self) -> Iterator[Batch]:
        if not self.ahead:
            yield from map(self.make, self.steps)
            return
        with ThreadPoolExecutor(1, "reader") as reader:
            coming = [reader.submit(self.make, step) for step in self.steps[:1]]
            for step in self.steps:
                started = time.monotonic()
                item = coming.pop().result()
                self.waited += time.monotonic() - started
                if step + 1 < self.steps.stop:
                    coming.append(reader.submit(self.make, step + 1))
                yield item
