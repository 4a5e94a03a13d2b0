"""Which dimensions of a network others have too, and which of them a brain carries (Chen & Bonner 2025).

Universality of a dimension: predictability from all layers of another network (mean over folds), median over the other
networks. Brain similarity: predictability from a subject's responses (direction: brain to dimension), mean over
subjects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from align.comparison.null import shuffled
from align.comparison.predictability import Folds, Regression, column_correlation, predictability

LEAST_SHARED = 10  # pictures that two subjects saw both, for a reliability


@dataclass(frozen=True)
class Universality:
    """Of one network: ``by_predictor`` (B, T) for the networks ``predictors``; ``median`` (T,); ``null`` (N,)."""

    predictors: tuple[str, ...]
    by_predictor: np.ndarray
    median: np.ndarray
    null: np.ndarray


def universality(
    dimensions: Mapping[str, np.ndarray],
    features: Mapping[str, np.ndarray],
    folds: Folds,
    regression: Regression,
    n_null: int,
    rng: np.random.Generator,
) -> dict[str, Universality]:
    """Universality of every dimension of every network.

    Parameters
    ----------
    dimensions
        Network to (n, T): scores of its dimensions on n pictures, the same for all networks.
    features
        Network to (n, P): the channels of all its layers. Each network here predicts all others of ``dimensions``.
    folds
        Pairs (fitted rows, scored rows).
    n_null
        Shuffled dimensions per network; each goes the same way, through all predictors and the median.
    """
    targets = {}
    for name, scores in dimensions.items():
        extra = shuffled(scores, n_null, rng) if n_null and scores.shape[1] else np.zeros((len(scores), 0))
        targets[name] = np.concatenate([scores, extra], axis=1)
    found: dict[str, dict[str, np.ndarray]] = {name: {} for name in dimensions}
    for predictor, x in features.items():
        others = [name for name in dimensions if name != predictor]
        if not others:
            continue
        r = predictability(x, np.concatenate([targets[name] for name in others], axis=1), folds, regression)
        ends = np.cumsum([targets[name].shape[1] for name in others])[:-1]
        for name, part in zip(others, np.split(r, ends), strict=True):
            found[name][predictor] = part
    result = {}
    for name, parts in found.items():
        count = dimensions[name].shape[1]
        table = np.stack(list(parts.values())) if parts else np.zeros((0, targets[name].shape[1]))
        middle = np.median(table, axis=0) if parts else np.zeros(targets[name].shape[1])
        result[name] = Universality(tuple(parts), table[:, :count], middle[:count], middle[count:])
    return result


@dataclass(frozen=True)
class BrainSimilarity:
    """Of one subject: ``r`` (T,), predictions ``estimates`` (n, T) of left-out pictures, and ``null`` (N,)."""

    r: np.ndarray
    estimates: np.ndarray
    null: np.ndarray


def brain_similarity(
    signals: np.ndarray,
    dimensions: np.ndarray,
    folds: Folds,
    regression: Regression,
    n_null: int,
    rng: np.random.Generator,
) -> BrainSimilarity:
    """How well responses (n, V) predict dimensions (n, T); ``n_null`` of them are also predicted in shuffled order."""
    count = dimensions.shape[1]
    extra = shuffled(dimensions, n_null, rng) if n_null and count else np.zeros((len(dimensions), 0))
    targets = np.concatenate([dimensions, extra], axis=1)
    estimates = np.zeros_like(targets)
    r = predictability(signals, targets, folds, regression, estimates)
    return BrainSimilarity(r[:count], estimates[:, :count], r[count:])


def reliability(estimates: Mapping[str, np.ndarray], pictures: Mapping[str, tuple[str, ...]]) -> np.ndarray | None:
    """(T,) correlation of the predictions of every dimension from two subjects' responses, mean over pairs of subjects.

    ``estimates``: subject to (n, T); ``pictures``: subject to the n pictures of its rows. Pairs with fewer than
    `LEAST_SHARED` common pictures are left out; None where all are.
    """
    found = []
    for a, b in combinations(estimates, 2):
        rows = {picture: row for row, picture in enumerate(pictures[a])}
        both = [(rows[picture], row) for row, picture in enumerate(pictures[b]) if picture in rows]
        if len(both) >= LEAST_SHARED:
            first, second = (np.array(side) for side in zip(*both, strict=True))
            found.append(column_correlation(estimates[a][first], estimates[b][second]))
    return np.mean(found, axis=0) if found else None


def corrected(similarity: np.ndarray, reliable: np.ndarray) -> np.ndarray:
    """(T,) similarity over the square root of reliability; 0 where either is not above 0 (Chen & Bonner 2025)."""
    known = (reliable > 0) & (similarity > 0)
    return np.where(known, similarity / np.sqrt(np.where(known, reliable, 1.0)), 0.0)
