"""Fitted coordinates of the two sides: standardised signals, and principal components of standardised tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from align.data.rows import Rows
from align.data.signals import fits
from align.model.principal import moments, principal_axes, scale_of, streamed_axes

_CONSTANT = 1e-6  # a standardised dimension that deviates less is constant
_FLAT = 0.1  # a token dimension is not divided by less than this part of the median deviation: rare events stay small
_STEEP = 0.1  # part of the root mean square of roots below which a root is as steep as there
_LEAST_SPREAD = 0.1  # predictions flatter than this part of the training spread are enlarged no further


class SignalSpace(nn.Module):
    """Standardises every entry of a trial; with ``basis`` (m, P) also projects the flattened trial onto m axes."""

    mean: torch.Tensor
    scale: torch.Tensor
    basis: torch.Tensor | None

    def __init__(self, in_shape: tuple[int, ...], components: int | None = None) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(in_shape))
        self.register_buffer("scale", torch.ones(in_shape))
        self.register_buffer("basis", None if components is None else torch.zeros(components, math.prod(in_shape)))

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of what the encoder reads."""
        return tuple(self.mean.shape) if self.basis is None else (len(self.basis),)

    @classmethod
    def fit(
        cls,
        x: np.ndarray | Rows,
        components: int | None = None,
        project: bool = False,
        device: torch.device | str = "cpu",
    ) -> SignalSpace:
        """Statistics of x (n, ...). With ``project``, the axes are the leading ``components`` principal ones.

        With ``components`` None the axes are all that the rows span, and none where that is the whole space, or where
        the rows are too many to be held. A linear first layer learns nothing outside that span, so this changes its
        coordinates and its cost, not what it can say. Raises `UserError` when a value is not finite.
        """
        rows = Rows.of(x)
        space = cls(rows.shape)
        mean, spread = moments(rows, "signals", device)
        space.mean, space.scale = mean, scale_of(mean, spread)
        width = math.prod(rows.shape)
        if project and (components is not None or (rows.in_memory and len(rows) - 1 < width)):
            space.basis = _axes(space, rows, components or width)
        return space

    def encode_all(self, rows: Rows) -> torch.Tensor | None:
        """All rows as the encoder reads them, (n, *out_shape); None where that is too much to be held."""
        if not fits(4 * len(rows) * math.prod(self.out_shape)):
            return None
        return torch.cat([self(piece.to(self.mean.device)) for piece in rows.pieces()])

    def standardised(self, x: torch.Tensor) -> torch.Tensor:
        """x (n, ...) as (n, P), every entry with mean 0 and deviation 1."""
        return ((x - self.mean) / self.scale).flatten(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x - self.mean) / self.scale
        return x if self.basis is None else x.flatten(1) @ self.basis.T


class TargetSpace(nn.Module):
    """Tokens (n, N, D) <-> components (n, k): standardised per dimension, then principal axes, one common scale.

    The mean variance of the components is 1 on training pictures. ``gain`` (k,) is the optional whitening for the
    image side. ``deviation`` (N*D,) is that of the standardised training tokens, 1 but for dimensions that hardly vary;
    ``spread`` (N*D,) multiplies decoded tokens so that predictions have the deviation of training. ``root``: of every
    token value its root with the sign kept is taken first, which tames the long tail of activations. ``constant`` (),
    where there is one: a further value of everything that is compared (`compared`).
    """

    mean: torch.Tensor
    scale: torch.Tensor
    basis: torch.Tensor
    unit: torch.Tensor
    gain: torch.Tensor
    deviation: torch.Tensor
    spread: torch.Tensor
    constant: torch.Tensor | None

    def __init__(self, token_shape: tuple[int, int], components: int, root: bool = False) -> None:
        super().__init__()
        self.token_shape, self.root = token_shape, root
        width = math.prod(token_shape)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("basis", torch.zeros(components, width))
        self.register_buffer("unit", torch.ones(()))
        self.register_buffer("gain", torch.ones(components))
        self.register_buffer("deviation", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.register_buffer("constant", None)

    @property
    def components(self) -> int:
        """k, the number of principal components."""
        return len(self.basis)

    @classmethod
    def fit(
        cls,
        tokens: np.ndarray | Rows,
        components: int,
        whiten: float = 0.0,
        device: torch.device | str = "cpu",
        root: bool = False,
    ) -> TargetSpace:
        """Statistics of training pictures' tokens (n, N, D), one row per picture.

        Raises `UserError` when a value is not finite, or when all pictures have the same tokens.
        """
        rows = Rows.of(tokens)
        space = cls.scaled(rows, root, device)
        space.basis = _axes(space, rows, components)
        deviation = space.encode_all(rows).std(0, correction=0)
        space.unit = deviation.square().mean().sqrt()
        gain = (deviation / space.unit) ** -whiten
        space.gain = gain / (gain * deviation / space.unit).square().mean().sqrt()
        return space

    @classmethod
    def scaled(cls, rows: Rows, root: bool, device: torch.device | str) -> TargetSpace:
        """Mean and scale alone, without components."""
        space = cls((rows.shape[0], rows.shape[1]), 0, root)
        mean, spread = (value.flatten() for value in moments(rows, "tokens", device, _signed_root if root else None))
        space.mean, space.scale = mean, scale_of(mean, spread, floor=_FLAT)
        space.unit, space.spread = torch.ones((), device=mean.device), torch.ones_like(mean)
        space.deviation = spread / space.scale
        return space

    def standardised(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (n, N, D) as (n, N*D), every dimension with mean 0 and deviation 1."""
        flat = tokens.flatten(1)
        return ((_signed_root(flat) if self.root else flat) - self.mean) / self.scale

    def encode_all(self, rows: Rows) -> torch.Tensor:
        """`encode` of all rows, read in pieces."""
        return torch.cat([self.encode(piece.to(self.mean.device)) for piece in rows.pieces()])

    def encode(self, tokens: torch.Tensor) -> torch.Tensor:
        """Components (n, k) of tokens (n, N, D)."""
        return self.standardised(tokens) @ self.basis.T / self.unit

    def compared(self, components: torch.Tensor) -> torch.Tensor:
        """Components (n, k) as they are compared by cosine: (n, k), or (n, k + 1) with the constant.

        With a long constant the order of cosines is that of squared distances, and so of likelihoods of responses with
        unit noise; short vectors, whose direction is mostly noise, then no longer count as much as long ones.
        """
        if self.constant is None:
            return components
        return torch.cat([components, self.constant.expand(len(components), 1)], dim=1)

    def decode(self, components: torch.Tensor, bounded: bool = False) -> torch.Tensor:
        """Tokens (n, N, D) of components (n, k), with ``spread`` applied.

        ``bounded`` is for predictions: none ends farther from the training mean than training pictures are (root mean
        square, standardised). A trial averaged over more repetitions than the training ones is predicted with more
        confidence, and its tokens would leave the range that a generator knows.
        """
        standardised = self.spread * self._restored(components)
        if bounded:
            excess = standardised.norm(dim=1, keepdim=True) / self.deviation.norm().clamp_min(_CONSTANT)
            standardised = standardised / excess.clamp_min(1)
        flat = self.mean + self.scale * standardised
        return (flat * flat.abs() if self.root else flat).unflatten(1, self.token_shape)

    def _restored(self, components: torch.Tensor) -> torch.Tensor:
        return components * self.unit @ self.basis

    def restore_spread(self, held_out: torch.Tensor, strength: float) -> None:
        """Set ``spread`` from cross-fitted predictions (n, k) of training rows.

        ``deviation`` is what a dimension has on training pictures; predictions are flatter. ``strength`` 1 restores
        it fully, 0 not at all.
        """
        flat = self._restored(held_out).std(0, correction=0) / self.deviation.clamp_min(_CONSTANT)
        self.spread = torch.where(self.deviation > 0, flat.clamp_min(_LEAST_SPREAD) ** -strength, 1.0)


def _signed_root(x: torch.Tensor) -> torch.Tensor:
    """Root of x (n, P) with its sign; where a gradient is wanted, that of a root near 0 is bounded."""
    root = x.sign() * x.abs().sqrt()
    if not root.requires_grad:
        return root
    root = root.detach()
    usual = root.square().mean(1, keepdim=True).sqrt()
    slope = 0.5 / root.abs().clamp_min(_STEEP * usual).clamp_min(_CONSTANT)
    return root + slope * (x - x.detach())


def _axes(space: SignalSpace | TargetSpace, rows: Rows, count: int) -> torch.Tensor:
    """Principal axes of the standardised rows, flattened."""

    def pieces() -> Iterator[torch.Tensor]:
        for piece in rows.pieces():
            yield space.standardised(piece.to(space.mean.device))

    if rows.in_memory:
        return principal_axes(next(pieces()), count)
    return streamed_axes(pieces, len(rows), math.prod(rows.shape), count)
