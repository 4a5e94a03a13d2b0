"""Fitted coordinates of the two sides: standardised signals, and principal components of standardised tokens."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from align.errors import UserError

_CONSTANT = 1e-6  # a dimension whose standard deviation is below this is constant and is left unscaled
_FLAT = 0.1  # a token dimension is not divided by less than this part of the median deviation: rare events stay small
_LEAST_SPREAD = 0.1  # predictions flatter than this part of the training spread are enlarged no further
_SPANNED = 1e-4  # axes with less than this part of the largest singular value are rounding noise
_EXACT = 4000  # up to this many rows or dimensions the components are exact, above randomised


def standard_deviation(x: torch.Tensor, floor: float = 0.0) -> torch.Tensor:
    """Per dimension over rows, with 1 for dimensions that are constant.

    ``floor``: the least value, as a part of the median over the dimensions that vary.
    """
    spread = x.std(0, correction=0)
    varies = spread > _CONSTANT
    if floor > 0 and varies.any():
        spread = torch.where(varies, spread.clamp_min(floor * spread[varies].median()), spread)
    return torch.where(varies, spread, torch.ones_like(spread))


def principal_axes(x: torch.Tensor, count: int) -> torch.Tensor:
    """The leading ``count`` principal axes (k, P) of centred rows x (n, P), fewer where x spans fewer; orthonormal.

    Exact by the smaller of the two Gram matrices, randomised (fixed seed) where both are large. The sign of an axis
    is such that its largest entry is positive. Raises `UserError` when the rows are all alike.
    """
    n, width = x.shape
    count = min(count, n - 1, width)
    if min(n, width) > _EXACT:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            axes, values = (part.T if part.ndim == 2 else part for part in torch.svd_lowrank(x, count + 16, 4)[:0:-1])
    else:
        gram = (x @ x.T if n < width else x.T @ x).double()
        squares, vectors = torch.linalg.eigh(gram)
        squares, vectors = squares.flip(0)[:count].clamp_min(0), vectors.flip(1)[:, :count].to(x.dtype)
        values = squares.sqrt().to(x.dtype)
        axes = (vectors.T @ x) / values.clamp_min(_CONSTANT)[:, None] if n < width else vectors.T
    if count < 1 or values[0] <= _CONSTANT:
        raise UserError(f"all {n} training rows are alike ({width} values each); check the files")
    axes = axes[:count][values[:count] > _SPANNED * values[0]]
    largest = axes.abs().argmax(1, keepdim=True)
    return axes * axes.gather(1, largest).sign()


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
    def fit(cls, x: torch.Tensor, components: int | None = None, project: bool = False) -> SignalSpace:
        """Statistics of x (n, ...). With ``project``, the axes are the leading ``components`` principal ones.

        With ``components`` None the axes are all that the rows span, and none where that is the whole space. A linear
        first layer learns nothing outside that span, so this changes its coordinates and its cost, not what it can say.
        """
        space = cls(tuple(x.shape[1:]))
        space.mean, space.scale = x.mean(0), standard_deviation(x)
        width = math.prod(x.shape[1:])
        if project and (components is not None or len(x) - 1 < width):
            space.basis = principal_axes(space(x).flatten(1), components or width)
        return space

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (x - self.mean) / self.scale
        return x if self.basis is None else x.flatten(1) @ self.basis.T


class TargetSpace(nn.Module):
    """Tokens (n, N, D) <-> components (n, k): standardised per dimension, then principal axes, one common scale.

    The mean variance of the components is 1 on training pictures. ``gain`` (k,) is the optional whitening for the
    image side. ``deviation`` (N*D,) is that of the standardised training tokens, 1 but for dimensions that hardly vary;
    ``spread`` (N*D,) multiplies decoded tokens so that predictions have the deviation of training.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    basis: torch.Tensor
    unit: torch.Tensor
    gain: torch.Tensor
    deviation: torch.Tensor
    spread: torch.Tensor

    def __init__(self, token_shape: tuple[int, int], components: int) -> None:
        super().__init__()
        self.token_shape = token_shape
        width = math.prod(token_shape)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("basis", torch.zeros(components, width))
        self.register_buffer("unit", torch.ones(()))
        self.register_buffer("gain", torch.ones(components))
        self.register_buffer("deviation", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))

    @property
    def components(self) -> int:
        """k, the number of principal components."""
        return len(self.basis)

    @classmethod
    def fit(cls, tokens: torch.Tensor, components: int, whiten: float = 0.0) -> TargetSpace:
        """Statistics of training pictures' tokens (n, N, D), one row per picture."""
        space = cls((tokens.shape[1], tokens.shape[2]), 0)
        flat = tokens.flatten(1)
        space.mean, space.scale = flat.mean(0), standard_deviation(flat, floor=_FLAT)
        standardised = (flat - space.mean) / space.scale
        space.deviation = standardised.std(0, correction=0)
        space.basis = principal_axes(standardised, components)
        deviation = space.encode(tokens).std(0, correction=0)
        space.unit = deviation.square().mean().sqrt()
        gain = (deviation / space.unit) ** -whiten
        space.gain = gain / (gain * deviation / space.unit).square().mean().sqrt()
        space.spread = torch.ones_like(space.mean)
        return space

    def encode(self, tokens: torch.Tensor) -> torch.Tensor:
        """Components (n, k) of tokens (n, N, D)."""
        return ((tokens.flatten(1) - self.mean) / self.scale) @ self.basis.T / self.unit

    def decode(self, components: torch.Tensor, bounded: bool = False) -> torch.Tensor:
        """Tokens (n, N, D) of components (n, k), with ``spread`` applied.

        ``bounded`` is for predictions: none ends farther from the training mean than training pictures are (root mean
        square, standardised). A trial averaged over more repetitions than the training ones is predicted with more
        confidence, and its tokens would leave the range that a generator knows.
        """
        standardised = self.spread * self._standardised(components)
        if bounded:
            excess = standardised.norm(dim=1, keepdim=True) / self.deviation.norm().clamp_min(_CONSTANT)
            standardised = standardised / excess.clamp_min(1)
        return (self.mean + self.scale * standardised).unflatten(1, self.token_shape)

    def _standardised(self, components: torch.Tensor) -> torch.Tensor:
        return components * self.unit @ self.basis

    def restore_spread(self, held_out: torch.Tensor, strength: float) -> None:
        """Set ``spread`` from cross-fitted predictions (n, k) of training rows.

        ``deviation`` is what a dimension has on training pictures; predictions are flatter. ``strength`` 1 restores
        it fully, 0 not at all.
        """
        flat = self._standardised(held_out).std(0, correction=0) / self.deviation.clamp_min(_CONSTANT)
        self.spread = torch.where(self.deviation > 0, flat.clamp_min(_LEAST_SPREAD) ** -strength, 1.0)


def gather_rows(array: np.ndarray, rows: np.ndarray) -> torch.Tensor:
    """Rows of an array (or memory map) as a float32 tensor of its own.

    The copy is aligned by torch: results of matrix products can depend on alignment, and a resumed run must agree to
    the last bit.
    """
    return torch.tensor(np.asarray(array[rows]), dtype=torch.float32)
