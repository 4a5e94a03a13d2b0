"""Linear maps to text space: one matrix without bias, between centred values, in closed form or by InfoNCE.

Both sides are centred with training means, because all texts of a tower share a large common part that a cosine would
otherwise be made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize

from align.data.splits import grouped_folds
from align.encoders.ridge import FOLDS, fit_ridge, reciprocal_ranks
from align.errors import UserError

FITS = ("ridge", "infonce")
ALPHAS = tuple(10.0**k for k in range(-1, 7))
TEMPERATURE = 0.006  # MindTuner's, as a public re-implementation has it
STEPS = (0, 20, 50, 100, 200)  # of InfoNCE; how many is chosen on held-out training pictures
_LEARNING_RATE = 1e-3
_BATCH = 512
_CONSTANT = 1e-6


@dataclass(frozen=True)
class LinearMap:
    """``weight`` (E, P) from standardised inputs to centred texts. ``penalty``: of the closed form; ``steps``: of
    InfoNCE from there on, None without."""

    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    penalty: float
    steps: int | None = None

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(n, E) float32 of inputs (n, P)."""
        mapped: np.ndarray = (self.standardised(x) @ self.weight.T).astype(np.float32)
        return mapped

    def standardised(self, x: np.ndarray) -> np.ndarray:
        """(n, P) float64 with the statistics of training."""
        found: np.ndarray = (np.asarray(x, dtype=np.float64) - self.mean) / self.scale
        return found

    def closed_form(self, x: np.ndarray, at: np.ndarray) -> np.ndarray:
        """(m, n): times any values (n, E) of the training inputs ``x`` (n, P), what the closed form with this penalty
        gives at the inputs ``at`` (m, P). So a fit to other values costs one product."""
        z, there = self.standardised(x), self.standardised(at)
        if z.shape[1] <= len(z):
            return there @ np.linalg.solve(z.T @ z + self.penalty * np.eye(z.shape[1]), z.T)
        kernel = z @ z.T + self.penalty * np.eye(len(z))
        found: np.ndarray = np.linalg.solve(kernel, z @ there.T).T
        return found


@dataclass(frozen=True)
class Target:
    """What inputs are mapped to: centred values (n, E) of length 1, with their share of the loss."""

    values: np.ndarray
    share: float = 1.0


def fit_map(
    x: np.ndarray, targets: Sequence[Target], groups: np.ndarray, fit: str = "ridge", seed: int = 0
) -> LinearMap:
    """Fit inputs ``x`` (n, P) to one or several targets; ``groups`` (n,) never stand on both sides of a fold.

    The squared errors of several targets, weighted by their shares, have the minimum of the one error to their weighted
    mean; InfoNCE adds up their losses. Raises `UserError` for an unknown fit, and fewer than two groups.
    """
    if fit not in FITS:
        raise UserError(f"fit {fit!r} is not known; use {', '.join(FITS)}")
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        raise UserError(f"a map to texts needs captions of pictures of 2 scenes or more, not of {n_groups}")
    folds = grouped_folds(groups, min(FOLDS, n_groups), seed)
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > _CONSTANT * scale.max(initial=0.0), scale, np.inf)  # what hardly varies says nothing
    inputs = torch.from_numpy((np.asarray(x, dtype=np.float64) - mean) / scale)
    values = [torch.from_numpy(target.values.astype(np.float64)) for target in targets]
    shares = [target.share for target in targets]
    together = torch.stack([share * value for share, value in zip(shares, values, strict=True)]).sum(0) / sum(shares)
    ridge = fit_ridge(inputs, together, list(ALPHAS), folds)
    weight, steps = ridge.weight.double(), None
    if fit == "infonce":
        weight, steps = _infonce(inputs, values, shares, ridge.alpha, folds[0], weight, seed)
    return LinearMap(mean, scale, weight.float().numpy(), ridge.alpha, steps)


def centred(values: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """``values`` (n, E) without ``mean`` (E,), each row of length 1 (a row of zeros stays)."""
    moved = values - mean
    return moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)


def _infonce(
    x: torch.Tensor,
    values: list[torch.Tensor],
    shares: list[float],
    alpha: float,
    fold: tuple[np.ndarray, np.ndarray],
    weight: torch.Tensor,
    seed: int,
) -> tuple[torch.Tensor, int]:
    """Weights after so many steps as rank held-out rows best, from the ridge solution on; fitted to all rows."""
    from align.encoders.ridge import RidgePath

    fit_rows, held_out = fold
    together = torch.stack([share * value for share, value in zip(shares, values, strict=True)]).sum(0) / sum(shares)
    start = RidgePath(x[fit_rows], together[fit_rows]).solve(alpha)[0]
    path = _descend(x[fit_rows], [value[fit_rows] for value in values], shares, start, seed)
    scores = {n: float(reciprocal_ranks(x[held_out] @ w.T, together[held_out]).mean()) for n, w in path.items()}
    best = max(scores, key=lambda n: scores[n])
    return _descend(x, values, shares, weight, seed, best)[best], best


def _descend(
    x: torch.Tensor,
    values: list[torch.Tensor],
    shares: list[float],
    start: torch.Tensor,
    seed: int,
    most: int = STEPS[-1],
) -> dict[int, torch.Tensor]:
    """Weights after each number of `STEPS` up to ``most``."""
    x, values = x.float(), [value.float() for value in values]
    weight = start.float().clone().requires_grad_(True)
    optimiser = torch.optim.AdamW([weight], lr=_LEARNING_RATE)
    generator = torch.Generator().manual_seed(seed)
    same = [torch.unique(value, dim=0, return_inverse=True)[1] for value in values]
    found = {0: start}
    for step in range(1, most + 1):
        rows = torch.randperm(len(x), generator=generator)[:_BATCH]
        estimate = normalize(x[rows] @ weight.T, dim=1)
        losses = [_one_direction(estimate, value[rows], own[rows]) for value, own in zip(values, same, strict=True)]
        loss = torch.stack([share * part for share, part in zip(shares, losses, strict=True)]).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step in STEPS:
            found[step] = weight.detach().double().clone()
    return found


def _one_direction(estimate: torch.Tensor, value: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """InfoNCE from inputs to texts; a text with the same number in ``own`` is equal and no negative."""
    equal = (own[:, None] == own[None]) & ~torch.eye(len(own), dtype=torch.bool)
    logits = (estimate @ value.T / TEMPERATURE).masked_fill(equal, -torch.inf)
    return cross_entropy(logits, torch.arange(len(own)))
