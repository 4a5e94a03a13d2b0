"""Layers compared with brains window by window: similarities, resamples, and chance by shuffled pictures.

``models`` are L layers, ``subjects`` S brains with W windows each, all `RankedRdm` of the same K pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from align.comparison.rdm import RankedRdm, pairs_of
from align.comparison.rsa import Resamples, similarities, unit_ranks

Brains = Sequence[Sequence[RankedRdm]]


def window_similarities(models: Sequence[RankedRdm], subjects: Brains, weights: np.ndarray | None = None) -> np.ndarray:
    """(L, S, W) Spearman correlations, where pair i of pictures stands ``weights[i]`` times."""
    flat = [rdm for windows in subjects for rdm in windows]
    return similarities(models, flat, weights).reshape(len(models), len(subjects), -1)


def resampled_windows(models: Sequence[RankedRdm], subjects: Brains, drawn: Resamples) -> np.ndarray:
    """(B, L, W) similarity, mean over the drawn subjects, of every resample: one draw for all layers and windows."""
    found = np.empty((len(drawn.pictures), len(models), len(subjects[0])))
    for number, people in enumerate(drawn.subjects):
        found[number] = np.tensordot(
            window_similarities(models, subjects, drawn.pair_weights(number)), people / people.sum(), axes=(1, 0)
        )
    return found


def shuffled_windows(
    models: Sequence[RankedRdm], subjects: Brains, n_pictures: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    """(count, L, W) similarity, mean over subjects, where the layers meet the brains with pictures in random orders.

    One order serves all layers, subjects and windows: rows and columns of the layers' matrices change places together.
    """
    layers = unit_ranks(models)
    brain = np.mean([unit_ranks(windows) for windows in subjects], axis=0)  # (W, pairs): the mean of correlations
    rows, columns = pairs_of(n_pictures)
    number = np.zeros((n_pictures, n_pictures), dtype=np.int64)
    number[rows, columns] = number[columns, rows] = np.arange(len(rows))
    found = np.empty((count, len(models), len(brain)))
    for b in range(count):
        order = rng.permutation(n_pictures)
        found[b] = layers[:, number[order[rows], order[columns]]] @ brain.T
    return found
