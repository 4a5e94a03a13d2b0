"""Features at one scale: standardised by the pictures that are fitted, every space of the same mean length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from align.data.rows import Rows
from align.model.spaces import TargetSpace
from align.response_models.contract import Spaces


@dataclass(frozen=True)
class Scaling:
    """Mean and deviation of every token value, and the root mean squared length of a picture, by space.

    Taken from pictures alone, never from responses. ``root``: the root of every value is taken first, its sign kept
    (`align.model.spaces`).
    """

    spaces: dict[str, TargetSpace]
    lengths: dict[str, float]

    @classmethod
    def of(cls, tokens: Mapping[str, np.ndarray], root: bool = False) -> Scaling:
        """Of the pictures (n, N, D) of every space."""
        spaces = {name: TargetSpace.scaled(Rows.of(part), root, "cpu") for name, part in tokens.items()}
        found = cls(spaces, dict.fromkeys(spaces, 1.0))
        for name, part in found(tokens).items():
            found.lengths[name] = max(float(np.sqrt(np.square(part).sum((1, 2)).mean())), 1e-12)
        return found

    def __call__(self, tokens: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Spaces (m, N, D) float32 of tokens (m, N, D)."""
        done = {}
        for name, space in self.spaces.items():
            x = torch.from_numpy(np.asarray(tokens[name], dtype=np.float32))
            done[name] = (space.standardised(x).unflatten(1, space.token_shape) / self.lengths[name]).numpy()
        return done


def compact(spaces: Spaces) -> dict[str, np.ndarray]:
    """Every space (n, N, D) with more values than pictures as (n, 1, r), r <= n, with the same inner products.

    Ridge, banded ridge and partial least squares depend on features through these alone, so that nothing is lost; all
    pictures that will ever be fitted or predicted have to be among the n. Other spaces stay as they are.
    """
    found = {}
    for name, part in spaces.items():
        flat = part.reshape(len(part), -1)
        if flat.shape[1] <= len(flat):
            found[name] = part
            continue
        values, vectors = np.linalg.eigh((flat @ flat.T).astype(np.float64))
        kept = values > max(values[-1], 0.0) * 1e-7  # products were summed in float32
        found[name] = (vectors[:, kept] * np.sqrt(values[kept]))[:, None].astype(np.float64)
    return found
