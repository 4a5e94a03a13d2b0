"""Whether what was drawn is nearer to its target than to everything the decoder was trained on."""

from __future__ import annotations

import numpy as np
from scipy.stats import pearsonr

from recon.metrics.identification import nearest_is_target


def test_a_decoder_that_hands_out_training_pictures_never_passes() -> None:
    rng = np.random.default_rng(0)
    target, known = rng.normal(size=(20, 30)), rng.normal(size=(50, 30))
    np.testing.assert_array_equal(nearest_is_target(known[:20], target, known), np.zeros(20))
    np.testing.assert_array_equal(nearest_is_target(target, target, known), np.ones(20))


def test_every_row_is_what_a_loop_over_pearson_says() -> None:
    rng = np.random.default_rng(1)
    target, known = rng.normal(size=(40, 12)), rng.normal(size=(6, 12))
    drawn = 0.7 * target + rng.normal(size=target.shape)
    expected = [
        float(pearsonr(own, seen)[0] > max(pearsonr(own, other)[0] for other in known))
        for own, seen in zip(drawn, target, strict=True)
    ]
    assert 0 < sum(expected) < len(expected)
    np.testing.assert_array_equal(nearest_is_target(drawn, target, known), expected)


def test_the_target_among_the_known_is_a_tie_and_ties_fail() -> None:
    rng = np.random.default_rng(2)
    target = rng.normal(size=(3, 9))
    np.testing.assert_array_equal(nearest_is_target(target, target, target), np.zeros(3))


def test_noise_is_nearest_to_its_target_as_often_as_chance() -> None:
    rng = np.random.default_rng(3)
    draws = [rng.normal(size=(3, 20, 8)) for _ in range(300)]
    hits = np.concatenate([nearest_is_target(drawn, target, known[:3]) for drawn, target, known in draws])
    assert abs(hits.mean() - 1 / 4) < 0.025  # targets are of one distribution with the three known
