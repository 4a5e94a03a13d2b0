"""Similarities by window against scipy and against loops written out: values, resamples, shuffled pictures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import pdist, squareform

from align.comparison.rdm import RankedRdm
from align.comparison.rsa import Resamples, resampled
from align.comparison.rsa_windows import resampled_windows, shuffled_windows, window_similarities

K, LAYERS, PEOPLE, WINDOWS = 14, 2, 3, 4


def made() -> tuple[np.ndarray, np.ndarray]:
    """Dissimilarities of layers (L, pairs) and of people in windows (S, W, pairs): of the first layer, ever more."""
    rng = np.random.default_rng(0)
    layers = rng.normal(size=(LAYERS, K, 6))
    own = rng.normal(size=(PEOPLE, WINDOWS, K, 6)) + 0.6 * np.arange(WINDOWS)[:, None, None] * layers[0]
    models = np.stack([pdist(layer, "correlation") for layer in layers])
    return models, np.array([[pdist(x, "correlation") for x in windows] for windows in own])


def ranked(models: np.ndarray, people: np.ndarray) -> tuple[list[RankedRdm], list[list[RankedRdm]]]:
    return [RankedRdm(rdm) for rdm in models], [[RankedRdm(rdm) for rdm in windows] for windows in people]


def test_similarity_of_a_window_is_spearman() -> None:
    models, people = made()
    found = window_similarities(*ranked(models, people))
    expected = [[[stats.spearmanr(m, w).statistic for w in windows] for windows in people] for m in models]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert found[0, :, -1].min() > 0.5 > np.abs(found[1]).max()


def test_resamples_of_a_window_are_those_of_that_window_alone() -> None:
    models, people = made()
    layers, brains = ranked(models, people)
    drawn = Resamples.draw(K, PEOPLE, 5, np.random.default_rng(1))
    found = resampled_windows(layers, brains, drawn)
    assert found.shape == (5, LAYERS, WINDOWS)
    for w in range(WINDOWS):
        alone = resampled(layers, [windows[w] for windows in brains], drawn)
        np.testing.assert_allclose(found[:, :, w], alone, rtol=0, atol=1e-12)


def test_shuffled_pictures_change_places_in_rows_and_columns_together() -> None:
    models, people = made()
    layers, brains = ranked(models, people)
    found = shuffled_windows(layers, brains, K, 3, np.random.default_rng(2))
    orders = np.random.default_rng(2)
    for b in range(3):
        order = orders.permutation(K)
        turned = [squareform(squareform(m)[np.ix_(order, order)], checks=False) for m in models]
        expected = [
            [np.mean([stats.spearmanr(m, windows[w]).statistic for windows in people]) for w in range(WINDOWS)]
            for m in turned
        ]
        np.testing.assert_allclose(found[b], expected, rtol=0, atol=1e-12)
    null = shuffled_windows(layers, brains, K, 2000, np.random.default_rng(3))
    assert null.mean() == pytest.approx(0, abs=0.01) and null.std() > 0.05
