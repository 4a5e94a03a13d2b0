"""What a response says about pictures, against written-out probability theory."""

from __future__ import annotations

import numpy as np
import pytest

from recon.decoding.library import LinearEstimate, cosines


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_the_most_likely_picture_is_the_one_shown(rng: np.random.Generator) -> None:
    predicted = rng.normal(size=(50, 20))
    responses = predicted[:5] + 0.1 * rng.normal(size=(5, 20))
    assert (cosines(responses, predicted).argmax(1) == np.arange(5)).all()


def test_silence_agrees_with_nothing(rng: np.random.Generator) -> None:
    assert (cosines(np.zeros((1, 3)), rng.normal(size=(8, 3))) == 0).all()


def test_cosine_of_the_opposite_is_minus_one() -> None:
    np.testing.assert_allclose(
        cosines(np.array([[1.0, 2.0]]), np.array([[-2.0, -4.0], [2.0, -1.0]])), [[-1, 0]], atol=1e-12
    )


def test_the_linear_estimate_is_the_posterior_mean_of_a_gaussian(rng: np.random.Generator) -> None:
    """Pictures x ~ N(m, S), responses r = A x + e, e ~ N(0, 1): E[x | r] in closed form."""
    size, units = 4, 3
    a, m = rng.normal(size=(units, size)), rng.normal(size=size)
    root = rng.normal(size=(size, size))
    pictures = m + rng.normal(size=(200_000, size)) @ root.T
    shown = m + rng.normal(size=(5, size)) @ root.T
    responses = shown @ a.T + rng.normal(size=(5, units))
    covariance = root @ root.T
    gain = covariance @ a.T @ np.linalg.inv(a @ covariance @ a.T + np.eye(units))
    expected = m + (responses - m @ a.T) @ gain.T
    estimate = LinearEstimate.fit(pictures @ a.T, pictures)(responses)
    np.testing.assert_allclose(estimate, expected, atol=0.05)


def test_the_linear_estimate_is_the_mean_without_information(rng: np.random.Generator) -> None:
    values = rng.random((30, 12))
    estimate = LinearEstimate.fit(np.ones((30, 5)), values)(rng.normal(size=(4, 5)))
    np.testing.assert_allclose(estimate, np.broadcast_to(values.mean(0), (4, 12)), atol=1e-6)
