"""Plain decoders from signals: ridge regression to values of pictures, and the nearest training picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PENALTY = 100.0  # on the sum of squares, signals z-scored
_CONSTANT = 1e-9  # of the largest deviation: channels that vary less say nothing


@dataclass(frozen=True)
class Ridge:
    """Signals are z-scored and values centred with training statistics."""

    mean: np.ndarray
    std: np.ndarray
    weights: np.ndarray
    centre: np.ndarray

    @classmethod
    def fit(cls, x: np.ndarray, values: np.ndarray, penalty: float = PENALTY) -> Ridge:
        """To signals ``x`` (K, ...), of any unit, and ``values`` (K, P)."""
        x = x.reshape(len(x), -1).astype(np.float64)
        mean, std = x.mean(axis=0), x.std(axis=0)
        std[std <= _CONSTANT * std.max(initial=0.0)] = np.inf
        x = (x - mean) / std
        centre = values.mean(axis=0)
        y = values.astype(np.float64) - centre
        if x.shape[1] <= x.shape[0]:
            weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)
        else:
            weights = x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), y)
        return cls(mean, std, weights, centre)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Values (n, P) float64 told from signals ``x`` (n, ...)."""
        told: np.ndarray = ((x.reshape(len(x), -1) - self.mean) / self.std) @ self.weights + self.centre
        return told


def nearest(embeds: np.ndarray, train_embeds: np.ndarray) -> np.ndarray:
    """Per predicted embedding (n, E), the row of the training embeddings (K, E) of highest cosine: (n,)."""
    unit = train_embeds / np.maximum(np.linalg.norm(train_embeds, axis=1, keepdims=True), 1e-12)
    row: np.ndarray = (embeds @ unit.T).argmax(axis=1)
    return row
