"""Agreement of two pictures, the threshold that null brains set, and the grey of a map, against sums made here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from recon.drawing.agreement import LEVEL, agreement, checked, grey, safe_threshold, shares


def test_agreement_is_the_product_of_two_departures_where_there_are_two() -> None:
    rng = np.random.default_rng(0)
    base = tuple(torch.from_numpy(rng.random((5, 3, 64, 64)).astype(np.float32)) for _ in range(2))
    a, b = base[0].clone(), base[1].clone()
    patch = (slice(None), slice(16, 32), slice(20, 40))
    for k, (first, second) in enumerate([(0.6, 0.6), (0.6, -0.4), (-0.6, -0.5), (0.6, 0.0)]):
        a[(k, *patch)] += first
        b[(k, *patch)] += second
    a[4, 0, 16:32, 20:40] += 0.6  # one channel of three in each, not the same
    b[4, 1, 16:32, 20:40] += 0.6
    found = agreement(a, b, base)
    assert found.shape == (5, 64, 64)
    for k, expected in enumerate((0.36, -0.24, 0.3, 0.0, 0.0)):
        assert found[k, 20:28, 24:36] == pytest.approx(expected, abs=1e-5)
        assert np.abs(found[k, :12]).max() < 1e-6 and np.abs(found[k, :, 45:]).max() < 1e-6
        assert found[k].sum() == pytest.approx(16 * 20 * expected, rel=1e-4, abs=1e-3)
    assert 0 < found[0, 15, 30] < 0.3  # smoothed over 4 px
    large = [torch.full((1, 3, 512, 512), value) for value in (0.0, 1.0)]
    assert agreement(large[1], large[1], (large[0], large[0])).shape == (1, 256, 256)


def test_null_brains_agree_on_nothing_and_a_brain_on_what_it_saw() -> None:
    rng = np.random.default_rng(1)

    def drawn(n: int) -> torch.Tensor:
        """Pictures of noise, far from flat: as large departures as those of a brain."""
        return torch.from_numpy(rng.normal(0.5, 0.2, (n, 3, 16, 16)).astype(np.float32))

    n = 400
    base = drawn(2 * n).unflatten(0, (2, n)).mean(0), drawn(2 * n).unflatten(0, (2, n)).mean(0)
    null = agreement(drawn(n), drawn(n), base)
    assert abs(null.mean()) < 4 * null.std() / np.sqrt(null.size) and null.std() > 0.02
    seen = torch.zeros(3, 16, 16)
    seen[:, 4:8, 4:8] = 0.3
    own = agreement(drawn(n) + seen, drawn(n) + seen, base).mean(0)
    assert own[4:8, 4:8] == pytest.approx(0.09, abs=0.015) and abs(own[10:].mean()) < 0.003


def test_the_map_is_lighter_than_middle_grey_where_it_is_lit() -> None:
    values = np.linspace(-0.1, 0.3, 997).reshape(1, 1, 997)
    pixels = np.round(255 * grey(values, 0.1234))
    assert (np.diff(pixels[0, 0]) >= 0).all() and (pixels[values < 0] == 0).all()
    assert (pixels[0, 0, 0], pixels[0, 0, -1]) == (0, 255)
    np.testing.assert_array_equal(pixels > 127, values > 0.1234)
    assert shares(values, 0.1234)[0] == pytest.approx((pixels > 127).mean())
    assert grey(np.array([-0.1, 0.0, 0.1]), 0.0).tolist() == [0.0, 0.0, 1.0]


def test_the_threshold_is_the_lowest_that_keeps_null_brains_dark_for_sure() -> None:
    rng = np.random.default_rng(2)
    alike = np.tile(rng.random(1000), (6, 1)).reshape(6, 10, 100)
    assert safe_threshold(alike) == (np.quantile(alike, LEVEL), LEVEL)

    def null(n: int) -> np.ndarray:
        return rng.lognormal(0, 0.4, (n, 1, 1)) * np.abs(rng.normal(size=(n, 16, 16)))

    def limit(maps: np.ndarray, threshold: float) -> float:
        lit = (maps > threshold).reshape(len(maps), -1).mean(1)
        return lit.mean() + student.ppf(0.95, len(lit) - 1) * lit.std(ddof=1) / np.sqrt(len(lit))

    dark = plain = 0
    for _ in range(100):
        maps, further = null(16), null(16)
        threshold, quantile = safe_threshold(maps)
        assert quantile > LEVEL and limit(maps, threshold) <= 0.05
        assert limit(maps, float(np.quantile(maps, quantile - 0.0005))) > 0.05
        dark += shares(further, threshold).mean() <= 0.05
        plain += shares(further, float(np.quantile(maps, LEVEL))).mean() <= 0.05
    assert dark >= 70 and plain < 60


def test_less_than_nothing_is_never_lit() -> None:
    assert safe_threshold(np.full((4, 8, 8), -0.1) - np.random.default_rng(0).random((4, 8, 8)))[0] == 0


def test_every_other_null_brain_checks_the_threshold_of_the_rest() -> None:
    maps = np.random.default_rng(3).normal(size=(9, 40, 40))
    maps[1::2] += 0.5
    told = checked(maps)
    threshold, quantile = safe_threshold(maps[::2])
    lit = (maps[1::2] > threshold).mean((1, 2))
    assert (told.threshold, told.quantile, told.n_threshold, told.n) == (threshold, quantile, 5, 4)
    assert told.lit == pytest.approx(lit.mean()) and told.lit > 0.08
    half = student.ppf(0.975, 3) * lit.std(ddof=1) / 2
    assert told.interval == pytest.approx([lit.mean() - half, lit.mean() + half])
