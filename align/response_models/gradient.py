"""Response models that are trained step by step: stopped by pictures left out, averaged over several such splits."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from align.data.splits import grouped_folds
from align.response_models.contract import Fitted, Spaces

AXES = 128  # principal axes of a token that are kept at most


@dataclass(frozen=True)
class Training:
    """AdamW with a learning rate that falls as a cosine; ``splits`` models, each stopped by another part of the rows.

    Values were set on training pictures of two V4 sessions.
    """

    epochs: int = 60
    batch: int = 32
    rate: float = 3e-3
    decay: float = 1e-2
    splits: int = 3
    seed: int = 0


@dataclass(frozen=True)
class Tokens:
    """All spaces side by side per place, on their leading principal axes: (n, N, r) of mean square 1.

    ``names``: of the spaces, which have the same N. ``mean`` (D,), ``axes`` (D, r).
    """

    names: tuple[str, ...]
    mean: np.ndarray
    axes: np.ndarray

    @classmethod
    def of(cls, spaces: Spaces, most: int = AXES) -> Tokens:
        """Of the fitted pictures. Raises `ValueError` where the spaces have different numbers of places."""
        places = {name: part.shape[1] for name, part in spaces.items()}
        if len(set(places.values())) > 1:
            raise ValueError(f"spaces with different numbers of places: {places}")
        rows = np.concatenate(list(spaces.values()), axis=2).reshape(-1, sum(p.shape[2] for p in spaces.values()))
        mean = rows.mean(axis=0)
        values, vectors = np.linalg.eigh(np.asarray((rows - mean).T @ (rows - mean), dtype=np.float64) / len(rows))
        kept = min(most, len(values))
        scale = np.sqrt(max(values[-kept:].mean(), 1e-12))
        return cls(tuple(spaces), mean, (vectors[:, -kept:] / scale).astype(np.float32))

    def __call__(self, spaces: Spaces) -> torch.Tensor:
        rows = np.concatenate([spaces[name] for name in self.names], axis=2)
        return torch.from_numpy(np.asarray((rows - self.mean) @ self.axes, dtype=np.float32))


@dataclass(frozen=True)
class NetworkFit(Fitted):
    """The mean of several networks (n, N, r) to (n, U); responses are ``level`` + ``scale`` times it.

    ``maps`` (U, N): how much every place counts for a unit, mean over networks and fitted pictures.
    """

    tokens: Tokens
    networks: Sequence[nn.Module]
    level: np.ndarray
    scale: np.ndarray
    maps: np.ndarray

    def predict(self, spaces: Spaces) -> np.ndarray:
        x = self.tokens(spaces)
        with torch.no_grad():
            mean = torch.stack([network(x) for network in self.networks]).mean(0)
        return mean.numpy() * self.scale + self.level

    def per_unit(self) -> dict[str, np.ndarray]:
        return {"place": self.maps}


def standardised(responses: np.ndarray) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Responses (n, U) at mean 0 and deviation 1, the mean and the deviation (1 where a unit never varies)."""
    level, scale = responses.mean(axis=0), responses.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    return torch.from_numpy(np.asarray((responses - level) / scale, dtype=np.float32)), level, scale


def splits_of(groups: np.ndarray, training: Training) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs (trained rows, rows that stop the training), whole groups."""
    count = max(2, min(5, len(np.unique(groups))))
    return grouped_folds(groups, count, training.seed)[: training.splits]


def train(
    make: Callable[[], nn.Module],
    x: torch.Tensor,
    y: torch.Tensor,
    splits: Sequence[tuple[np.ndarray, np.ndarray]],
    training: Training,
) -> list[nn.Module]:
    """One network for each split, in evaluation mode, with the weights of the epoch that its left-out rows like best.

    ``make`` draws a new network from torch's generator, which is seeded here and put back.
    """
    found = []
    with torch.random.fork_rng(devices=[]):
        for number, (rows, left_out) in enumerate(splits):
            torch.manual_seed(training.seed * 1000 + number)
            network = make()
            found.append(_one(network, x, y, torch.from_numpy(rows), torch.from_numpy(left_out), training))
    return found


def _one(
    network: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    rows: torch.Tensor,
    left_out: torch.Tensor,
    training: Training,
) -> nn.Module:
    wanted = [value for value in network.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(wanted, training.rate, weight_decay=training.decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.epochs)
    best, kept = torch.inf, copy.deepcopy(network.state_dict())
    for _ in range(training.epochs):
        network.train()
        for part in rows[torch.randperm(len(rows))].split(training.batch):
            loss = nn.functional.mse_loss(network(x[part]), y[part])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(wanted, 1.0)
            optimizer.step()
        schedule.step()
        network.eval()
        with torch.no_grad():
            error = float(nn.functional.mse_loss(network(x[left_out]), y[left_out]))
        if error < best:
            best, kept = error, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)
    return network.eval()
