"""What a response says about pictures, against written-out probability theory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from align.errors import UserError
from recon.decoding import posterior
from recon.decoding.library import LinearEstimate, cosines
from recon.decoding.posterior import TokenPosterior, neighbours

L, E, TOKENS = 300, 6, (4, 5)


@dataclass
class Shelf:
    """A library of given responses and tokens, of which the last ``added`` came from a folder."""

    responses: np.ndarray
    values: np.ndarray
    added: object = None

    def __len__(self) -> int:
        return len(self.responses)

    def tokens(self, rows: np.ndarray, layer: str, pooling: str) -> np.ndarray:
        return self.values[rows]


def shelf(rng: np.random.Generator) -> Shelf:
    """Tokens are a curved function of three numbers, predicted responses a linear one."""
    x = rng.normal(size=(L, 3))
    curved = np.concatenate([x, x**2, np.sin(3 * x)], axis=1)
    tokens = 2 + curved @ rng.normal(size=(9, 20))
    return Shelf((2 * x @ rng.normal(size=(3, E))).astype(np.float32), tokens.astype(np.float32).reshape(L, *TOKENS))


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


def test_tokens_are_the_linear_estimate_and_what_neighbours_have_beyond_it(rng: np.random.Generator) -> None:
    books = shelf(rng)
    responses = (books.responses[:7] + rng.normal(size=(7, E))).astype(np.float32)
    told = TokenPosterior.fit(books, "l", "p", "none")(responses)
    flat = books.values.reshape(L, -1)
    linear = LinearEstimate.fit(books.responses, flat)
    agreement = cosines(responses, books.responses)
    for i in range(7):
        own = np.argsort(-agreement[i])[: posterior.NEIGHBOURS]
        weights = np.exp(agreement[i][own] / posterior.TEMPERATURE)
        beyond = flat[own] - linear(books.responses[own])
        expected = linear(responses[i : i + 1])[0] + (weights / weights.sum()) @ beyond
        np.testing.assert_allclose(told[i].reshape(-1), expected, atol=1e-4)


def test_neighbours_help_where_tokens_are_no_linear_function_of_responses(rng: np.random.Generator) -> None:
    books = shelf(rng)
    shown = np.arange(100)
    kept = Shelf(books.responses[100:], books.values[100:])
    responses = books.responses[shown] + rng.normal(size=(100, E))
    told = TokenPosterior.fit(kept, "l", "p", "none")(responses)
    linear = LinearEstimate.fit(kept.responses, kept.values.reshape(len(kept), -1))(responses)
    true = books.values[shown].reshape(100, -1)
    assert np.square(told.reshape(100, -1) - true).mean() < 0.97 * np.square(linear - true).mean()


def test_spread_restores_the_deviation_of_library_pictures(rng: np.random.Generator) -> None:
    books = shelf(rng)
    responses = books.responses + rng.normal(size=books.responses.shape)
    flat, spread = (TokenPosterior.fit(books, "l", "p", match)(responses).std(0) for match in ("none", "spread"))
    true = books.values.std(0)
    assert (flat / true).mean() < 0.93
    np.testing.assert_allclose(spread / true, 1, atol=0.2)
    with pytest.raises(UserError, match="matched by spread or none, not 'moments'"):
        TokenPosterior.fit(books, "l", "p", "moments")


def test_no_picture_is_its_own_neighbour_where_the_deviation_is_computed(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    books, asked = shelf(rng), list[np.ndarray]()
    monkeypatch.setattr(posterior, "neighbours", lambda agreement: asked.append(agreement) or neighbours(agreement))
    TokenPosterior.fit(books, "l", "p")
    left_out = np.isneginf(asked[0])
    assert (left_out.sum(1) == 1).all() and (left_out.sum(0) == 1).all()


def test_pictures_of_a_folder_are_neighbours_but_not_fitted(rng: np.random.Generator) -> None:
    books = shelf(rng)
    more = Shelf(
        np.concatenate([books.responses, books.responses[:1] * 3]),
        np.concatenate([books.values, books.values[:1] + 50]),
        type("Added", (), {"added": 1}),
    )
    plain, other = (TokenPosterior.fit(some, "l", "p", "none") for some in (books, more))
    np.testing.assert_array_equal(plain.linear.weights, other.linear.weights)
    response = books.responses[:1]
    assert (other(response) - plain(response)).min() > 50 / posterior.NEIGHBOURS / 2


def test_weights_sum_to_one_and_follow_agreement() -> None:
    rows, weights = neighbours(np.array([[0.1, 0.5, 0.3]]))
    assert set(rows[0]) == {0, 1, 2} and weights.sum() == pytest.approx(1)
    ratio = weights[0][list(rows[0]).index(1)] / weights[0][list(rows[0]).index(2)]
    assert ratio == pytest.approx(np.exp(0.2 / posterior.TEMPERATURE), rel=1e-4)
