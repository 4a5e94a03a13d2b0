"""Channels of a layer in the space of brain units: one weight of each channel for each unit, the same at every place.

After Yang et al. 2024 (arXiv 2406.18344, "AlignedCut"): channels of any layer are brought into one space, that of the
brain, by what predicts responses. There the map is learnt by gradient, with a choice of places; here it is ridge on the
mean over places, so that it has a closed form, and the parts of all places add up to the prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from align.comparison.ridge import SharedRidge
from align.response_models.ridge import SHARES
from align.response_models.scaling import Scaling

_LAYER = "layer"


def _standardised(tokens: np.ndarray, scaling: Scaling) -> np.ndarray:
    """(n, N, D) of raw tokens, float32."""
    flat = tokens.reshape(-1, 1, tokens.shape[2])
    return np.asarray(scaling({_LAYER: flat})[_LAYER], dtype=np.float32).reshape(tokens.shape)


@dataclass(frozen=True)
class ChannelMap:
    """``weight`` (D, U) and ``bias`` (U,); ``scaling``: of every channel over pictures and places."""

    scaling: Scaling
    weight: np.ndarray
    bias: np.ndarray

    def places(self, tokens: np.ndarray) -> np.ndarray:
        """(n, N, U) drive of every unit at every place, of tokens (n, N, D). Their mean over places is the prediction
        without its level."""
        return _standardised(tokens, self.scaling) @ self.weight.astype(np.float32)

    def predict(self, tokens: np.ndarray) -> np.ndarray:
        """(n, U) responses."""
        return np.asarray(self.places(tokens).mean(axis=1, dtype=np.float64) + self.bias)


class ChannelMapper:
    """Fits maps of the same pictures (n, N, D) to any responses. ``root``: of every token value first."""

    def __init__(self, tokens: np.ndarray, root: bool = False) -> None:
        self.scaling = Scaling.of({_LAYER: tokens.reshape(-1, 1, tokens.shape[2])}, root)
        pooled = _standardised(tokens, self.scaling).mean(axis=1, dtype=np.float64)
        length = float(np.sqrt(np.square(pooled - pooled.mean(axis=0)).sum(axis=1).mean()))
        self.scale = max(length, 1e-12)  # penalties are over the mean squared length of a picture's features
        self.ridge = SharedRidge(pooled / self.scale)

    def fit(self, responses: np.ndarray) -> ChannelMap:
        """Of responses (n, U); a penalty for each unit by generalised cross-validation."""
        weight, bias = self.ridge.fit(responses, SHARES).slopes()
        return ChannelMap(self.scaling, weight / self.scale, bias)
