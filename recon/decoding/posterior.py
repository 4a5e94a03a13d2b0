"""Tokens that a response leads one to expect, over all pictures of a library: ``--tokens posterior``.

Two estimates of the posterior mean are joined. The linear one (`LinearEstimate`) would be exact if tokens and predicted
responses were jointly Gaussian. What the likeliest library pictures have beyond it is added: it says where natural
pictures are not Gaussian. In other words, the tokens of the likeliest pictures are averaged, each corrected for what of
the response it does not explain. Both estimates read library pictures and the response alone.

An expected value varies less than what is expected. Its deviation is computed, not observed: for responses that library
pictures should cause, with the noise that an encoding model assumes (unit covariance). With `match` ``spread`` every
token dimension is enlarged to the deviation of library pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from align.errors import UserError
from align.seeding import derive
from recon.decoding.conditions import LibraryTokens
from recon.decoding.library import LinearEstimate, cosines

if TYPE_CHECKING:
    from align.checkpoint import Run
    from recon.decoding.library import Library

NEIGHBOURS = 20  # likeliest pictures that are looked at; this and the next: held-out training rows of V4
TEMPERATURE = 0.06  # of their weights, in units of the cosine of responses
MATCHES = ("spread", "none")
_FITTED = 6000  # pictures at most for the linear estimate: 4 bytes for each of their token values, three times
_SIMULATED = 400  # responses with noise, for the deviation of the estimate
_LARGEST_GAIN = 10.0  # as in recon.decoding.bridges.matching


@dataclass(frozen=True)
class TokenPosterior:
    """``linear``: of flat tokens (P,). ``gain`` (P,): enlarges deviations from its mean. Tokens are ``layer``'s."""

    library: Library
    linear: LinearEstimate
    gain: np.ndarray
    layer: str
    pooling: str

    @classmethod
    def fit(cls, library: Library, layer: str, pooling: str, match: str = "spread") -> TokenPosterior:
        """To pictures of the study; those of ``--library`` enter as neighbours alone, so that few need their tokens.

        Raises `UserError` for a ``match`` that is not in `MATCHES`.
        """
        if match not in MATCHES:
            raise UserError(f"tokens posterior are matched by {' or '.join(MATCHES)}, not {match!r}")
        own = len(library) if library.added is None else len(library) - library.added.added
        rows = np.unique(np.linspace(0, own - 1, min(own, _FITTED)).astype(np.int64))
        values, responses = library.tokens(rows, layer, pooling).reshape(len(rows), -1), library.responses[rows]
        linear = LinearEstimate.fit(responses, values)
        gain = _gain(linear, responses, values) if match == "spread" else np.ones(values.shape[1], np.float32)
        return cls(library, linear, gain, layer, pooling)

    def __call__(self, responses: np.ndarray) -> np.ndarray:
        """Tokens (n, N, D) float32 for responses (n, E)."""
        rows, weights = neighbours(cosines(responses, self.library.responses))
        used, place = np.unique(rows, return_inverse=True)
        tokens = self.library.tokens(used, self.layer, self.pooling)
        beyond = tokens.reshape(len(used), -1) - self.linear(self.library.responses[used])
        told = _joined(self.linear(responses), beyond, place.reshape(rows.shape), weights)
        mean = self.linear.mean
        found: np.ndarray = (mean + self.gain * (told - mean)).astype(np.float32)
        return found.reshape(len(found), *tokens.shape[1:])


class PosteriorTokens(LibraryTokens):
    """Tokens that each response leads one to expect; every seed has the same. `rows` are those of the library."""

    name = "posterior"
    varies = False

    def __init__(self, run: Run, posterior: TokenPosterior, embeds: np.ndarray, silent: np.ndarray) -> None:
        super().__init__(run, posterior.library, embeds, silent, (posterior.layer, posterior.pooling))
        self._tokens = posterior(np.concatenate([embeds, silent[None]]))

    def tokens(self, seed: int) -> np.ndarray:
        return self._tokens[:-1]

    def silent(self, seed: int) -> np.ndarray:
        silent: np.ndarray = self._tokens[-1]
        return silent


def neighbours(agreement: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns (n, k) of highest ``agreement`` (n, L) and their weights (n, k), which sum to 1."""
    k = min(NEIGHBOURS, agreement.shape[1])
    rows = np.argpartition(-agreement, k - 1, axis=1)[:, :k]
    score = np.take_along_axis(agreement, rows, 1) / TEMPERATURE
    weights = np.exp(score - score.max(1, keepdims=True))
    return rows, (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _joined(linear: np.ndarray, beyond: np.ndarray, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Linear estimates (n, P) and what the rows (n, k) of ``beyond`` (L, P) have more, by their weights."""
    return np.stack([one + share @ beyond[own] for one, own, share in zip(linear, rows, weights, strict=True)])


def _gain(linear: LinearEstimate, responses: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(P,), 1 or more: deviation of pictures (L, P) beside that of their estimates from noisy responses (L, E).

    No picture is its own neighbour.
    """
    rng = np.random.default_rng(derive(0, "posterior"))
    shown = rng.permutation(len(responses))[:_SIMULATED]
    noisy = responses[shown] + rng.normal(size=(len(shown), responses.shape[1]))
    agreement = cosines(noisy, responses)
    agreement[np.arange(len(shown)), shown] = -np.inf
    rows, weights = neighbours(agreement)
    told = _joined(linear(noisy), values - linear(responses), rows, weights)
    flat, true = told.std(0), values.std(0)
    gain: np.ndarray = np.clip(true / np.maximum(flat, 1e-12), 1.0, _LARGEST_GAIN).astype(np.float32)
    return gain
