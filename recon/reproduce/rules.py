"""Which layer and which epoch count: by the paper's rule, by validation, or (marked) by the test rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from recon.reproduce.curves import Curve

Cell = tuple[str, str, int]  # layer, subject, seed


@dataclass(frozen=True)
class Choice:
    """One layer for all, and for every (subject, seed) the number of epochs, from 1. ``on_test``: test rows chose."""

    layer: str
    epochs: dict[tuple[str, int], int]
    on_test: bool

    def as_json(self) -> dict[str, Any]:
        """Plain containers, epochs by ``sub-01_seed-0``."""
        epochs = {f"sub-{subject}_seed-{seed}": epoch for (subject, seed), epoch in self.epochs.items()}
        return {**asdict(self), "epochs": epochs}


def _best(values: np.ndarray) -> int:
    """The epoch with the highest value, the earliest of equal ones."""
    return int(np.argmax(values)) + 1


EPOCH_OF: dict[str, Callable[[Curve], int]] = {
    "last": lambda curve: len(curve.loss),
    "test_top1": lambda curve: _best(curve.mean),
    "test_loss": lambda curve: _best(-curve.loss),
}


def clean(validation: Mapping[Cell, np.ndarray], layers: Sequence[str]) -> Choice:
    """Layer and epochs with the highest validation top-1; ``validation``: (E,) of every cell. Sees no test row."""
    epochs = {cell: _best(values) for cell, values in validation.items()}
    return _choose({cell: values[epochs[cell] - 1] for cell, values in validation.items()}, epochs, layers, False)


def own(test: Mapping[Cell, Curve], layers: Sequence[str], epoch_rule: str) -> Choice:
    """Epochs by a rule of `EPOCH_OF`, then of ``layers`` (one, where it is fixed) the best on the test rows."""
    epochs = {cell: EPOCH_OF[epoch_rule](curve) for cell, curve in test.items()}
    values = {cell: curve.mean[epochs[cell] - 1] for cell, curve in test.items()}
    return _choose(values, epochs, layers, epoch_rule != "last" or len(layers) > 1)


def oracle(test: Mapping[Cell, Curve], layers: Sequence[str]) -> Choice:
    """Layer and epochs with the highest test top-1: what may be printed in a marked column only."""
    return own(test, layers, "test_top1")


def _choose(
    values: Mapping[Cell, np.floating], epochs: Mapping[Cell, int], layers: Sequence[str], on_test: bool
) -> Choice:
    """The layer with the highest mean over subjects and seeds, the first of equal ones."""
    means = {layer: np.mean([value for cell, value in values.items() if cell[0] == layer]) for layer in layers}
    layer = max(layers, key=lambda name: float(means[name]))
    return Choice(layer, {cell[1:]: epoch for cell, epoch in epochs.items() if cell[0] == layer}, on_test)
