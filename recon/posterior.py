"""What a response says about pictures: which of a library it fits, and the linear estimate of any of their values.

The encoding model scores pictures against a response (Naselaris et al. 2009). Over all pictures that are linear in the
responses that score is a Gaussian, whose mean is the estimate of lowest squared error. Both read training pictures and
the response alone.
"""

from __future__ import annotations

import numpy as np


def cosines(responses: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(n, L): agreement of responses (n, E) with what pictures (L, E) should cause, -1 to 1; 0 for silence."""
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (responses, predicted))
    return a @ b.T


def linear_estimate(responses: np.ndarray, predicted: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Linear minimum mean square error estimate (n, ...) of ``values`` (L, ...) whose responses are ``predicted``.

    responses (n, E) and predicted (L, E) are whitened: what a response has beyond the prediction has unit covariance.
    """
    flat = values.reshape(len(values), -1)
    mean, centre = flat.mean(0), predicted.mean(0)
    x = (predicted - centre).astype(np.float64)
    gram = x.T @ x / len(x) + np.eye(x.shape[1])
    weight = np.linalg.solve(gram, x.T @ (flat - mean) / len(x))
    return (mean + (responses - centre) @ weight).reshape(len(responses), *values.shape[1:]).astype(np.float32)
