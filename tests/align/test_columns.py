"""`align.data.columns`: channels that are another one times a number."""

from __future__ import annotations

import numpy as np
import pytest

from align.data.columns import multiples


@pytest.mark.parametrize("turned", [1, -1])
@pytest.mark.parametrize("size", [(40,), (40, 6)])
def test_every_multiple_is_told_with_its_factor(size: tuple[int, ...], turned: int) -> None:
    x = turned * np.random.default_rng(0).normal(size=(30, *size))
    x[:, 5], x[:, 9], x[:, 20], x[:, 31] = -2 * x[:, 3], 0.5 * x[:, 3], x[:, 7], 1e-6 * x[:, 3]
    x[:, 11] = 4  # of one value: left aside
    found = multiples(x.astype(np.float32))
    assert [(one, first) for one, first, _ in found] == [(5, 3), (9, 3), (20, 7), (31, 3)]
    np.testing.assert_allclose([factor for *_, factor in found], [-2, 0.5, 1, 1e-6], rtol=1e-5)
