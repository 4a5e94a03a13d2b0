"""Ridge regression beside scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import linear_model
from sklearn.preprocessing import StandardScaler

from recon.decoding.ridge import Ridge


@pytest.mark.parametrize("unit", [1.0, 1e-13])  # 1e-13: magnetic fields in tesla
@pytest.mark.parametrize("voxels", [12, 90])
def test_it_is_that_of_scikit_learn(voxels: int, unit: float) -> None:
    rng = np.random.default_rng(0)
    train_x, test_x = 5 + 3 * rng.normal(size=(40, voxels // 3, 3)), rng.normal(size=(7, voxels // 3, 3))
    train_x[:, 0, 0] = 2.0  # a dead channel
    values = rng.random((40, 768))
    scaler = StandardScaler().fit(train_x.reshape(40, -1))
    model = linear_model.Ridge(alpha=100).fit(scaler.transform(train_x.reshape(40, -1)), values)
    expected = model.predict(scaler.transform(test_x.reshape(7, -1)))
    assert np.allclose(Ridge.fit(unit * train_x, values)(unit * test_x), expected, atol=1e-8)


def test_signals_that_never_vary_tell_the_mean() -> None:
    values = np.random.default_rng(1).random((5, 4))
    told = Ridge.fit(np.ones((5, 3)), values)(np.array([[7.0, 8.0, 9.0]]))
    np.testing.assert_allclose(told, values.mean(0, keepdims=True))
