"""Ridge regression from signals to target components: the baseline, in closed form, penalty chosen inside training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

FOLDS = 5  # of the grouped cross-validation that chooses the penalty


@dataclass(frozen=True)
class RidgeFit:
    """``weight`` (E, P) and ``bias`` (E,) of y = x weight^T + bias; ``held_out`` (n, E) = cross-fitted predictions.

    ``scores``: held-out mean reciprocal rank of each penalty tried.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    alpha: float
    held_out: torch.Tensor
    scores: dict[float, float]


class RidgePath:
    """Solutions of min |y - x w - b|^2 + alpha |w|^2 (b is free) for many penalties, from one eigendecomposition."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x_mean, self.y_mean = x.mean(0), y.mean(0)
        self.x, y = x - self.x_mean, y - self.y_mean
        self.dual = len(x) < x.shape[1]
        gram = self.x @ self.x.T if self.dual else self.x.T @ self.x
        values, self.vectors = torch.linalg.eigh(gram)
        self.values = values.clamp_min(0)
        self.rotated = self.vectors.T @ (y if self.dual else self.x.T @ y)
        self.axes = self.x.T @ self.vectors if self.dual else self.vectors

    def solve(self, alpha: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight (E, P) and bias (E,)."""
        weight = (self.axes @ (self.rotated / (self.values + alpha)[:, None])).T
        return weight, self.y_mean - weight @ self.x_mean

    def predict(self, x: torch.Tensor, alphas: list[float]) -> list[torch.Tensor]:
        """Predictions (n, E) of each penalty; cheaper than `solve` for each."""
        coordinates = (x - self.x_mean) @ self.axes
        return [coordinates @ (self.rotated / (self.values + alpha)[:, None]) + self.y_mean for alpha in alphas]


def reciprocal_ranks(estimate: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(n,) 1 / rank of the own target among all targets by cosine; a smooth score of retrieval."""
    similarity = nn.functional.normalize(estimate, dim=1) @ nn.functional.normalize(target, dim=1).T
    return 1 / (similarity >= similarity.diagonal()[:, None]).sum(1).to(similarity)


def fit_ridge(
    x: torch.Tensor, y: torch.Tensor, alphas: list[float], folds: list[tuple[np.ndarray, np.ndarray]]
) -> RidgeFit:
    """Choose the penalty by retrieval within the held-out rows of ``folds``, then fit all rows.

    x: (n, P) standardised signals; y: (n, E) target components; computed in float64, returned as float32. The squared
    error would choose a larger penalty, which ranks worse: it pays for shrinkage, to which a cosine is blind.
    """
    x, y = x.double(), y.double()
    held_out = torch.zeros(len(alphas), *y.shape, dtype=y.dtype, device=y.device)
    ranks = torch.zeros(len(alphas), len(y), dtype=y.dtype, device=y.device)
    for fit_rows, val_rows in folds:
        for i, estimate in enumerate(RidgePath(x[fit_rows], y[fit_rows]).predict(x[val_rows], alphas)):
            held_out[i, val_rows] = estimate
            ranks[i, val_rows] = reciprocal_ranks(estimate, y[val_rows])
    scores = ranks.mean(1).tolist()
    best = max(range(len(alphas)), key=lambda i: scores[i])
    weight, bias = RidgePath(x, y).solve(alphas[best])
    table = dict(zip(alphas, scores, strict=True))
    return RidgeFit(weight.float(), bias.float(), alphas[best], held_out[best].float(), table)
