"""Pairs of signals and target components, and batches of them that are read while the last one is computed with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch

from align.rows import Rows
from align.spaces import SignalSpace


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

    ``distinct``: no picture comes twice.
    """

    signals: torch.Tensor
    components: torch.Tensor
    stimulus: torch.Tensor
    distinct: bool = False


@dataclass(frozen=True)
class Pairs:
    """What the loop is given: signals of n rows, maybe still in their files, and the pictures that were seen.

    ``components`` (K, k) of the distinct pictures; ``stimulus`` (n,) = picture of a row. ``distinct``: no picture comes
    twice.
    """

    signals: torch.Tensor | StreamedSignals
    components: torch.Tensor
    stimulus: torch.Tensor
    distinct: bool = False

    def __len__(self) -> int:
        return len(self.signals)

    def only(self, rows: np.ndarray) -> Pairs:
        """The given rows; nothing is read of streamed signals."""
        signals: torch.Tensor | StreamedSignals = (
            replace(self.signals, rows=self.signals.rows.only(rows))
            if isinstance(self.signals, StreamedSignals)
            else self._held(rows)
        )
        return replace(self, signals=signals, stimulus=self.stimulus[self._index(rows)])

    def batch(self, rows: np.ndarray) -> Batch:
        """The given rows, in memory."""
        stimulus = self.stimulus[self._index(rows)]
        return Batch(self._held(rows), self.components[stimulus], stimulus, self.distinct)

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
