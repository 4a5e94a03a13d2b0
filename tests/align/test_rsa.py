"""Dissimilarities, ranks under weights, ceilings and halves against scipy and against loops written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import pdist

from align.comparison.rdm import (
    RankedRdm,
    dissimilarities,
    geotopological,
    mean_of_subjects,
    pairs_of,
    partial_correlation,
)
from align.comparison.rsa import Resamples, between_subjects, halves, noise_ceiling, resampled, restricted, similarities

K = 24


def made(subjects: int = 3, noise: float = 1.0) -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(K, 10))
    return base, [base + noise * rng.normal(size=base.shape) for _ in range(subjects)]


def test_dissimilarities_are_those_of_scipy() -> None:
    x = made()[0]
    np.testing.assert_allclose(dissimilarities(x), pdist(x, "correlation"), atol=1e-12)
    np.testing.assert_allclose(dissimilarities(x, "cosine"), pdist(x, "cosine"), atol=1e-12)
    np.testing.assert_allclose(dissimilarities(x, "euclidean"), pdist(x, "sqeuclidean") / 10, atol=1e-12)
    x[5] = 3.0  # a picture without a pattern is as far from all as from an unrelated one
    row, column = pairs_of(K)
    np.testing.assert_allclose(dissimilarities(x)[(row == 5) | (column == 5)], 1)


def test_similarity_is_spearman_also_with_ties() -> None:
    _, people = made()
    rdms = [np.round(dissimilarities(x), 1) for x in people]
    found = similarities([RankedRdm(rdms[0])], [RankedRdm(rdm) for rdm in rdms[1:]])
    np.testing.assert_allclose(found[0], [stats.spearmanr(rdms[0], rdm).statistic for rdm in rdms[1:]], atol=1e-12)


def test_a_resample_is_spearman_of_the_drawn_pictures_and_people() -> None:
    """With pictures written out as often as they are drawn, pairs of a picture with itself left out."""
    base, people = made()
    model, subjects = dissimilarities(base), [dissimilarities(x) for x in people]
    drawn = Resamples.draw(K, 3, 4, np.random.default_rng(1))
    assert drawn.pictures.sum(1).tolist() == [K] * 4 and drawn.subjects.sum(1).tolist() == [3] * 4
    found = resampled([RankedRdm(model)], [RankedRdm(rdm) for rdm in subjects], drawn)
    square = [np.zeros((K, K)) for _ in range(4)]
    for matrix, rdm in zip(square, [model, *subjects], strict=True):
        matrix[pairs_of(K)] = rdm
        matrix += matrix.T
    for b in range(4):
        pictures = np.repeat(np.arange(K), drawn.pictures[b])
        pairs = [(i, j) for n, i in enumerate(pictures) for j in pictures[n + 1 :] if i != j]
        own, *others = (np.array([matrix[i, j] for i, j in pairs]) for matrix in square)
        r = [stats.spearmanr(own, other).statistic for other in others]
        assert found[b, 0] == pytest.approx(np.average(r, weights=drawn.subjects[b]), abs=1e-12)


def test_the_ceiling_holds_the_model_that_made_the_data() -> None:
    base, people = made(6)
    rdms = np.stack([dissimilarities(x) for x in people])
    lower, upper = noise_ceiling(rdms)
    ranks = stats.rankdata(rdms, axis=1)
    expected = [stats.spearmanr(ranks[i], np.delete(ranks, i, 0).mean(0)).statistic for i in range(6)]
    assert lower == pytest.approx(np.mean(expected), abs=1e-12)
    assert upper == pytest.approx(np.mean([stats.spearmanr(r, ranks.mean(0)).statistic for r in ranks]), abs=1e-12)
    true = np.mean([stats.spearmanr(dissimilarities(base), rdm).statistic for rdm in rdms])
    assert lower is not None and lower < true < upper
    assert noise_ceiling(rdms[:1])[0] is None
    np.testing.assert_allclose(mean_of_subjects(rdms), ranks.mean(0))


def test_the_layer_that_subjects_share_takes_their_similarity_away() -> None:
    base, people = made(4, noise=0.5)
    subjects = [RankedRdm(dissimilarities(x)) for x in people]
    plain = between_subjects(subjects)
    shared = between_subjects(subjects, RankedRdm(dissimilarities(base)))
    other = between_subjects(subjects, RankedRdm(dissimilarities(np.random.default_rng(9).normal(size=(K, 10)))))
    assert plain is not None and shared is not None and other is not None
    assert abs(shared) < 0.25 * plain and other == pytest.approx(plain, abs=0.02)
    pairs = [(a, b) for a in range(4) for b in range(a + 1, 4)]
    ranks = [one.ranks() for one in subjects]
    assert plain == pytest.approx(np.mean([stats.spearmanr(ranks[a], ranks[b]).statistic for a, b in pairs]), abs=1e-12)
    assert between_subjects(subjects[:1]) is None
    a, b, c = (dissimilarities(x) for x in people[:3])
    fit = [np.polyval(np.polyfit(c, y, 1), c) for y in (a, b)]
    assert partial_correlation(a, b, c) == pytest.approx(np.corrcoef(a - fit[0], b - fit[1])[0, 1], abs=1e-10)


def test_halves_share_no_picture_and_keep_their_pairs() -> None:
    x = made()[0]
    even, odd = halves(K)
    assert set(even) | set(odd) == set(range(K)) and not set(even) & set(odd)
    np.testing.assert_allclose(restricted(dissimilarities(x), K, odd), pdist(x[odd], "correlation"), atol=1e-12)


def test_the_geotopological_transform_is_flat_at_both_ends() -> None:
    rdm = dissimilarities(made()[0])
    low, high = np.quantile(rdm, [0.2, 0.7])
    expected = [0.0 if d <= low else 1.0 if d >= high else (d - low) / (high - low) for d in rdm]
    np.testing.assert_allclose(geotopological(rdm, 0.2, 0.7), expected, atol=1e-12)
    for ones, expected in ((0.9, "the ones"), (0.1, "the ones")):  # more ties than either quantile leaves out
        ties = np.repeat([0.0, 1.0], [int(100 * (1 - ones)), int(100 * ones)])
        np.testing.assert_array_equal(geotopological(ties, 0.2, 0.8), ties, expected)
    with pytest.raises(ValueError, match="rise from 0 to 1"):
        geotopological(rdm, 0.7, 0.2)
