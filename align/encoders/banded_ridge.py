"""Ridge regression with a penalty of its own for every band of the signals (channels, regions), through himalaya."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from align.encoders.libraries import himalaya
from align.encoders.ridge import RidgeFit, fit_ridge, reciprocal_ranks

_LEAST = 1e-6  # share of the total weight that a band keeps: himalaya divides by it
_MOST_KERNEL_VALUES = 2**28  # 2 GiB


@dataclass(frozen=True)
class BandedRidgeFit(RidgeFit):
    """A `RidgeFit` at the best weights of the bands: band k has the penalty ``alpha / weights[k]``; their mean is 1."""

    band_weights: tuple[float, ...]


def fit_banded_ridge(
    x: torch.Tensor,
    y: torch.Tensor,
    bands: list[int],
    alphas: list[float],
    folds: list[tuple[np.ndarray, np.ndarray]],
    draws: int = 20,
    seed: int = 0,
    order: np.ndarray | None = None,
) -> BandedRidgeFit:
    """Choose the bands' weights by random search, then the penalty and the fit as `fit_ridge` does.

    x: (n, P) standardised signals, ``bands`` adding up to P; y: (n, E) target components. ``draws`` weightings are
    drawn from a simplex (Dirichlet, concentrations 0.1 and 1 in turn) and tried beside the equal one, each with all
    penalties, by himalaya's cross-validation on ``folds``; the score is the mean reciprocal rank that `fit_ridge`
    uses too. With one band the result is that of `fit_ridge`. ``order`` (P,): columns of x in the order of the bands;
    None = as they stand.
    """
    if order is not None:
        back = torch.as_tensor(np.argsort(order), device=x.device)
        found = fit_banded_ridge(x[:, torch.as_tensor(order, device=x.device)], y, bands, alphas, folds, draws, seed)
        return replace(found, weight=found.weight[:, back])
    if len(bands) == 1:
        return BandedRidgeFit(**vars(fit_ridge(x, y, alphas, folds)), band_weights=(1.0,))
    weights = torch.as_tensor(_search(x, y, bands, alphas, folds, draws, seed), dtype=torch.float64, device=x.device)
    factors = weights.sqrt().repeat_interleave(torch.tensor(bands, device=x.device))
    result = fit_ridge(x.double() * factors, y, alphas, folds)
    weight = (result.weight.double() * factors).float()
    parts = {**vars(result), "weight": weight}
    return BandedRidgeFit(**parts, band_weights=tuple(weights.tolist()))


def _search(
    x: torch.Tensor,
    y: torch.Tensor,
    bands: list[int],
    alphas: list[float],
    folds: list[tuple[np.ndarray, np.ndarray]],
    draws: int,
    seed: int,
) -> np.ndarray:
    """The best weights of the bands (K,), of mean 1."""
    library = himalaya()
    edges = np.cumsum([0, *bands])
    signals, targets = x.double().cpu().numpy(), y.double().cpu().numpy()
    parts = [signals[:, start:stop] for start, stop in itertools.pairwise(edges)]
    shares = candidate_shares(len(bands), draws, seed)
    how = {
        "n_iter": shares,
        "alphas": np.asarray(alphas) / len(bands),
        "fit_intercept": True,
        "score_func": _retrieval,
        "cv": folds,
        "local_alpha": False,
        "n_alphas_batch": 1,
        "progress_bar": False,
    }
    rows = len(signals)
    if rows < signals.shape[1] and len(parts) * rows**2 <= _MOST_KERNEL_VALUES:  # the same problem, cheaper as kernels
        kernels = np.stack([part @ part.T for part in parts])
        search = library.kernel_ridge.solve_multiple_kernel_ridge_random_search
        scores = search(kernels, targets, return_weights="dual", **how)[2]
    else:
        scores = library.ridge.solve_group_ridge_random_search(parts, targets, warn=False, **how)[2]
    return shares[int(scores.mean(1).argmax())] * len(bands)


def candidate_shares(count: int, draws: int, seed: int) -> np.ndarray:
    """(1 + draws, K) shares of the total weight: the equal ones, then random ones; rows add up to 1."""
    rng = np.random.default_rng(seed)
    drawn = [rng.dirichlet([(0.1, 1.0)[i % 2]] * count) for i in range(draws)]
    shares = np.array([np.full(count, 1 / count), *drawn]) + _LEAST
    return shares / shares.sum(1, keepdims=True)


def _retrieval(target: Any, estimates: Any) -> np.ndarray:
    """himalaya's score function: (A, n, E) predictions of A penalties -> (A, E), the same for every column."""
    ranks = [reciprocal_ranks(torch.as_tensor(part), torch.as_tensor(target)).mean().item() for part in estimates]
    return np.repeat(np.array(ranks)[:, None], target.shape[1], axis=1)
