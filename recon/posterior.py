"""What a response says about pictures: which of a library it fits, and the linear estimate of any of their values.

The encoding model scores pictures against a response (Naselaris et al. 2009). Over all pictures that are linear in the
responses that score is a Gaussian, whose mean is the estimate of lowest squared error. Both read training pictures and
the response alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def cosines(responses: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(n, L): agreement of responses (n, E) with what pictures (L, E) should cause, -1 to 1; 0 for silence."""
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (responses, predicted))
    return a @ b.T


@dataclass(frozen=True)
class LinearEstimate:
    """Linear minimum mean square error estimate of values of pictures whose responses are known.

    Responses are whitened: what one has beyond its prediction has unit covariance.
    """

    mean: np.ndarray
    centre: np.ndarray
    weights: np.ndarray

    @classmethod
    def fit(cls, predicted: np.ndarray, values: np.ndarray) -> LinearEstimate:
        """From pictures that should cause ``predicted`` (L, E) and have ``values`` (L, P)."""
        mean, centre = values.mean(0), predicted.mean(0)
        x = (predicted - centre).astype(np.float64)
        gram = x.T @ x / len(x) + np.eye(x.shape[1])
        return cls(mean, centre, np.linalg.solve(gram, x.T @ (values - mean) / len(x)))

    def __call__(self, responses: np.ndarray) -> np.ndarray:
        """Values (n, P) float32 for ``responses`` (n, E)."""
        told: np.ndarray = (self.mean + (responses - self.centre) @ self.weights).astype(np.float32)
        return told
