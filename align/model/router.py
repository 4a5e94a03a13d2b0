"""A learned weight for each of several joined layers on the image side, and components that keep the layers apart."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from align.config import Config
from align.data.rows import Rows
from align.errors import UserError
from align.model.spaces import TargetSpace

SUBJECT_DROPOUT = 0.3  # published


class Router(nn.Module):
    """Components (B, k) of L layers, k / L each in layer order -> embeds (B, E).

    The layers' own linear maps are summed with softmax weights, equal at the start. After SAMGA (arXiv 2604.17782),
    whose router gained 2.2 points over equal weights of five layers on THINGS-EEG2; its logits start peaked at a middle
    layer, and its layers share one projection. With several training subjects each has a term of its own beside the
    shared logits; terms are counted from their mean, so the shared weights are those of the mean subject. In training a
    row's term is left out with probability `SUBJECT_DROPOUT`. ``weights`` are what was learned, the shared ones.
    """

    def __init__(self, layers: int, components: int, width: int, dropout: float, subjects: int = 1) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(layers))
        if subjects > 1:
            self.terms = nn.Parameter(torch.zeros(subjects, layers))
        self.dropout = nn.Dropout(dropout)
        self.maps = nn.ModuleList(nn.Linear(components // layers, width) for _ in range(layers))

    @property
    def weights(self) -> torch.Tensor:
        """(L,), they sum to 1."""
        return self.logits.softmax(0)

    def weights_of(self, subject: torch.Tensor) -> torch.Tensor:
        """(B, L), rows sum to 1: the weights for rows of the training subjects ``subject`` (B,)."""
        terms = (self.terms - self.terms.mean(0))[subject]
        if self.training:
            terms = terms * (torch.rand(len(terms), 1, device=terms.device) >= SUBJECT_DROPOUT)
        return (self.logits + terms).softmax(1)

    def forward(self, components: torch.Tensor, subject: torch.Tensor | None = None) -> torch.Tensor:
        """``subject`` (B,): numbers of training subjects; None = the shared weights, as for a subject never seen."""
        parts = self.dropout(components).chunk(len(self.maps), dim=1)
        images = [layer(part) for layer, part in zip(self.maps, parts, strict=True)]
        if subject is None or not hasattr(self, "terms"):
            return torch.einsum("l,lbe->be", self.weights, torch.stack(images))
        return torch.einsum("bl,lbe->be", self.weights_of(subject), torch.stack(images))


def check_router(config: Config) -> None:
    """Raise `UserError` where ``target.router`` has nothing to weigh."""
    if not config.target.router:
        return
    count = n_layers(config)
    if count < 2:
        raise UserError(
            f"target.router weighs joined layers, and target.layer={config.target.layer!r} is one; join two"
        )
    if config.target.components < count:
        raise UserError(f"target.components={config.target.components} is less than one for each of {count} layers")


def n_layers(config: Config) -> int:
    """How many layers ``target.layer`` joins."""
    return config.target.layer.count("+") + 1


def fit_targets(
    config: Config, tokens: Rows, widths: Sequence[int] | None = None, device: torch.device | str = "cpu"
) -> TargetSpace:
    """`TargetSpace.fit`; with ``target.router``, equally many components of each layer, one layer after the other.

    tokens: (K, N, D) of training pictures; ``widths``: the parts of D that come from one layer each. What is
    predicted keeps the layers' proportions; ``gain`` brings every layer to the same size on the image side. A layer
    that spans fewer components than its share limits all.
    """
    target = config.target
    if not target.router:
        return TargetSpace.fit(tokens, target.components, target.whiten, device, target.root)
    check_router(config)
    if widths is None or len(widths) != n_layers(config) or sum(widths) != tokens.shape[1]:
        raise UserError(
            f"target.router needs the widths of {n_layers(config)} layers in {tokens.shape[1]}, got {widths}"
        )
    bounds = [sum(widths[:i]) for i in range(len(widths) + 1)]
    share = target.components // len(widths)
    spaces = [
        TargetSpace.fit(_columns(tokens, start, stop), share, target.whiten, device, target.root)
        for start, stop in pairwise(bounds)
    ]
    return _joined(spaces, (tokens.shape[0], tokens.shape[1]), target.root)


def _joined(spaces: Sequence[TargetSpace], token_shape: tuple[int, int], root: bool) -> TargetSpace:
    """One space whose components are those of ``spaces``, one after the other."""
    share = min(space.components for space in spaces)
    joined = TargetSpace(token_shape, share * len(spaces), root).to(spaces[0].mean.device)
    layer = torch.cat([torch.full((space.token_shape[1],), i) for i, space in enumerate(spaces)])
    layer = layer.repeat(token_shape[0])  # of every flattened dimension
    joined.unit = torch.stack([space.unit for space in spaces]).square().mean().sqrt()
    for i, space in enumerate(spaces):
        own, rows = (layer == i).to(space.mean.device), slice(i * share, (i + 1) * share)
        joined.mean[own], joined.scale[own] = space.mean, space.scale
        joined.deviation[own], joined.spread[own] = space.deviation, space.spread
        joined.gain[rows] = space.gain[:share] * joined.unit / space.unit
        joined.basis[rows, own.nonzero()[:, 0]] = space.basis[:share]
    return joined


def _columns(rows: Rows, start: int, stop: int) -> Rows:
    """The same rows with the part ``start``..``stop`` of the last axis; nothing is read."""
    part = copy.copy(rows)
    part.arrays = [array[..., start:stop] for array in rows.arrays]
    part.shape = (*rows.shape[:-1], stop - start)
    return part
