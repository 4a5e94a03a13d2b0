"""Where captions are permuted there is nothing to find: p is uniform. Where they are right, it is small."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from benchmarks.v4_words import Material, null_p, permutation_p

PERMUTATIONS, DRAWS = 39, 200
TRAIN, TEST, TEXTS = 40, 30, 12


@pytest.fixture(scope="module")
def material() -> Material:
    """Signals and tokens that are linear in the captions, with noise."""
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(TEXTS, 6)).astype(np.float32)
    index = rng.integers(TEXTS, size=TRAIN + TEST)
    signals, tokens = (
        (texts[index] @ rng.normal(size=(6, width)) + 0.3 * rng.normal(size=(TRAIN + TEST, width))).astype(np.float32)
        for width in (9, 8)
    )
    at = {"pivot": tokens[TRAIN:], "joint": signals[TRAIN:]}
    groups = np.arange(TRAIN)
    return Material(signals[:TRAIN], tokens[:TRAIN], texts[index[:TRAIN]], groups, at, texts, index[TRAIN:])


@pytest.mark.parametrize("alignment", ["pivot", pytest.param("joint", marks=pytest.mark.long)])
def test_p_is_uniform_for_permuted_captions_and_small_for_true_ones(material: Material, alignment: str) -> None:
    values = [null_p(material, alignment, draw, PERMUTATIONS) for draw in range(DRAWS)]
    assert kstest(values, "uniform").pvalue > 0.01
    true = permutation_p(material, alignment, np.random.default_rng(1), PERMUTATIONS)
    assert true == pytest.approx(1 / (PERMUTATIONS + 1))
