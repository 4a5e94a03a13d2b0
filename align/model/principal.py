"""Mean, standard deviation and principal axes of rows, in memory where they fit, else in passes over pieces."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch

from align.data.rows import Rows
from align.errors import UserError

_CONSTANT = 1e-6  # what varies by less than this part is constant
_SPANNED = 1e-4  # axes with less than this part of the largest singular value are rounding noise
_EXACT = 4000  # up to this many rows or dimensions the components are exact, above randomised
_SPARE = 16  # axes more than wanted that the randomised search carries along
_PASSES = 5  # of the randomised search over all rows

Pieces = Callable[[], Iterator[torch.Tensor]]
Change = Callable[[torch.Tensor], torch.Tensor]


def moments(
    rows: Rows, what: str, device: torch.device | str = "cpu", change: Change | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of every entry of a row, each of the shape of a row, float32.

    ``change``: what is done to the values first.

    Raises `UserError` when a value of ``what`` is not finite.
    """
    if rows.in_memory:
        x = rows.all().to(device)
        _require_finite(x, what)
        x = x if change is None else change(x)
        return x.mean(0), x.std(0, correction=0)
    count, mean, squares = 0, torch.zeros((), device=device), torch.zeros((), device=device)
    for piece in rows.pieces():
        x = piece.to(device).double()
        _require_finite(x, what)
        x = x if change is None else change(x)
        n, middle = len(x), x.mean(0)
        squares = squares + x.sub_(middle).square_().sum(0) + (middle - mean) ** 2 * (count * n / (count + n))
        mean = mean + (middle - mean) * (n / (count + n))  # two groups joined: Chan et al. 1979
        count += n
    return mean.float(), (squares / count).sqrt().float()


def _require_finite(x: torch.Tensor, what: str) -> None:
    if not x.isfinite().all():
        raise UserError(f"the {what} hold values that are not finite; clean them before training")


def scale_of(mean: torch.Tensor, spread: torch.Tensor, floor: float = 0.0) -> torch.Tensor:
    """Standard deviations to divide by: 1 for dimensions that are constant.

    Constant: varies by less than 1e-6 of its own mean or of the largest deviation, whatever the unit (volt, tesla).
    ``floor``: the least value, as a part of the median over the dimensions that vary.
    """
    varies = spread > _CONSTANT * torch.maximum(mean.abs(), spread.max())
    if floor > 0 and varies.any():
        spread = torch.where(varies, spread.clamp_min(floor * spread[varies].median()), spread)
    return torch.where(varies, spread, torch.ones_like(spread))


def principal_axes(x: torch.Tensor, count: int) -> torch.Tensor:
    """The leading ``count`` principal axes (k, P) of centred rows x (n, P), fewer where x spans fewer; orthonormal.

    Exact by the smaller of the two Gram matrices, randomised (fixed seed) where both are large. The sign of an axis
    is such that its largest entry is positive. Raises `UserError` when the rows are all alike.
    """
    n, width = x.shape
    if min(n, width) > _EXACT:
        return streamed_axes(lambda: iter([x]), n, width, count)
    gram = (x @ x.T if n < width else x.T @ x).double()
    squares, vectors = torch.linalg.eigh(gram)
    count = min(count, n - 1, width)
    values = squares.flip(0)[:count].clamp_min(0).sqrt().to(x.dtype)
    vectors = vectors.flip(1)[:, :count].to(x.dtype)
    axes = (vectors.T @ x) / values.clamp_min(_CONSTANT)[:, None] if n < width else vectors.T
    return _leading(axes, values, n)


def streamed_axes(pieces: Pieces, n: int, width: int, count: int) -> torch.Tensor:
    """`principal_axes` of n centred rows that come in pieces (B, P), without holding them.

    Exact (one pass) up to `_EXACT` dimensions; above by subspace iteration with a fixed seed, `_PASSES` + 1 passes.
    """
    count = min(count, n - 1, width)
    if width <= _EXACT:
        gram = sum((x.T @ x).double() for x in pieces())
        squares, vectors = torch.linalg.eigh(gram)
    else:
        basis = _subspace(pieces, width, count + _SPARE)
        inside = sum(((x @ basis).T @ (x @ basis)).double() for x in pieces())
        squares, turned = torch.linalg.eigh(inside)
        vectors = basis @ turned.to(basis.dtype)
    values = squares.flip(0)[:count].clamp_min(0).sqrt().float()
    return _leading(vectors.flip(1)[:, :count].float().T, values, n)


def _subspace(pieces: Pieces, width: int, size: int) -> torch.Tensor:
    """Orthonormal (P, size): what `_PASSES` multiplications by x^T x make of a random start."""
    device = next(pieces()).device
    start = torch.randn(width, min(size, width), generator=torch.Generator().manual_seed(0))
    basis = torch.linalg.qr(start.to(device)).Q
    for _ in range(_PASSES):
        basis = torch.linalg.qr(sum(x.T @ (x @ basis) for x in pieces())).Q
    return basis


def _leading(axes: torch.Tensor, values: torch.Tensor, n: int) -> torch.Tensor:
    """The axes (k, P) that are no rounding noise, with their signs fixed; ``values``: singular values (k,)."""
    if not len(values) or values[0] <= _CONSTANT:
        raise UserError(f"all {n} training rows are alike ({math.prod(axes.shape[1:])} values each); check the files")
    axes = axes[values > _SPANNED * values[0]]
    largest = axes.abs().argmax(1, keepdim=True)
    return axes * axes.gather(1, largest).sign()
