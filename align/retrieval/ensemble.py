"""Several decoders as one: their similarities on one scale, averaged, then scored like those of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from align.errors import UserError
from align.retrieval.measures import per_stimulus, retrieve
from align.retrieval.transductive import csls


def averaged(similarities: Sequence[np.ndarray]) -> np.ndarray:
    """The mean (n, K) of several decoders' similarities, each row with zero mean and unit spread over its candidates.

    A row is a query. No row is judged by another one, and the order of candidates within a row of a single decoder
    stays: equal decoders together rank as each does alone. A row that says the same to everything counts as zeros.
    Raises `UserError` for matrices of different shapes, or none.
    """
    if not similarities or any(one.shape != similarities[0].shape for one in similarities):
        raise UserError(f"an ensemble needs matrices of one shape, got {[one.shape for one in similarities]}")
    mean: np.ndarray = np.mean([_standardised(one) for one in similarities], axis=0)
    return mean


def ensemble_report(similarities: Sequence[np.ndarray], **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """`align.retrieval.measures.report` and `align.retrieval.measures.per_stimulus` of several decoders, right answers
    on the diagonals.

    similarities: (n, n) each, rows the signals and columns the pictures in one order. Each direction standardises its
    own queries: rows for brain_to_image, columns for image_to_brain. ``options`` as in
    `align.retrieval.measures.retrieve`.
    """
    both = _directions(similarities)
    index = np.arange(len(both["brain_to_image"]))
    part: dict[str, Any] = {name: retrieve(matrix, index, **options) for name, matrix in both.items()}
    corrected = {
        name: retrieve(matrix, index, **options) for name, matrix in _directions([*map(csls, similarities)]).items()
    }
    together = {**corrected["brain_to_image"], "image_to_brain": corrected["image_to_brain"]}
    each = {name: per_stimulus(matrix)["brain_to_image"] for name, matrix in both.items()}
    return {**part, "transductive": {"csls": together}}, each


def _directions(similarities: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Averages whose rows are the queries of each direction."""
    return {"brain_to_image": averaged(similarities), "image_to_brain": averaged([one.T for one in similarities])}


def _standardised(similarity: np.ndarray) -> np.ndarray:
    values = np.asarray(similarity, dtype=np.float64)
    centred = values - values.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1, keepdims=True)
    flat = spread <= 1e-12 * np.abs(values).max(axis=1, keepdims=True)  # rounding errors of the mean
    scaled: np.ndarray = np.where(flat, 0.0, centred / np.where(flat, 1.0, spread))
    return scaled
