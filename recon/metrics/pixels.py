"""PixCorr and SSIM, float32 (B, C, S, S) in [0, 1], one value per pair; the size at which pictures are compared.

Both are written for speed on one core: a blur is eleven shifted additions, which a convolution of one channel is
not near; a correlation of bilinearly enlarged pictures needs no enlarged pictures.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

_GRAY = (0.2125, 0.7154, 0.0721)  # skimage.color.rgb2gray
_RADIUS, _SIGMA = 5, 1.5  # a Gaussian truncated at 3.5 sigma: 11 x 11 px
_FLAT = 1e-6
ENTRY_SIZE = 256  # px, of every picture before every metric
ANTIALIAS = False


def gray(images: torch.Tensor) -> torch.Tensor:
    """Luminance of RGB (B, 3, S, S) as scikit-image weighs it: (B, 1, S, S)."""
    r, g, b = (images[:, i : i + 1] * weight for i, weight in enumerate(_GRAY))
    return r.add_(g).add_(b)


def correlation(a: torch.Tensor, b: torch.Tensor) -> np.ndarray:
    """Pearson r over all values of each pair, float64 (B,); 0 where one of the pictures is flat."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return _ratio((a * b).sum(1), (a * a).sum(1), (b * b).sum(1), (a, b))


def enlarged_correlation(a: torch.Tensor, b: torch.Tensor, size: int) -> np.ndarray:
    """`correlation` of a and b (B, C, S, S) after a bilinear resize to ``size`` >= S, without making the resize.

    The resize is U x Uᵀ with at most two neighbouring entries in each row of U, so inner products at the larger size
    are those of x with M y M, where M = Uᵀ U has three diagonals. Sums are taken in double precision.
    """
    main, beside, weight = _diagonals(a.shape[-1], size)
    count = a.shape[1] * size * size
    a, b = (
        x - ((x * weight).sum(-1) @ weight).sum(1, dtype=x.dtype)[:, None, None, None] / count
        for x in (a.float(), b.float())
    )
    weighted_a, weighted_b = (_three_diagonals(x, main, beside) for x in (a, b))
    ab, aa, bb = (
        (x * y).flatten(2).sum(-1).double().sum(1) for x, y in ((a, weighted_b), (a, weighted_a), (b, weighted_b))
    )
    return _ratio(ab, aa, bb, (a.flatten(1), b.flatten(1)))


def _ratio(
    ab: torch.Tensor, aa: torch.Tensor, bb: torch.Tensor, centred: tuple[torch.Tensor, torch.Tensor]
) -> np.ndarray:
    import torch

    flat = (centred[0].abs().amax(1) < _FLAT) | (centred[1].abs().amax(1) < _FLAT)
    value: np.ndarray = torch.where(flat, 0.0, ab / (aa * bb).clamp_min(1e-60).sqrt()).numpy()
    return value


@lru_cache(maxsize=8)
def _diagonals(size: int, larger: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Main and side diagonal of Uᵀ U, and the column sums of U: (S,), (S - 1,), (S,)."""
    import torch
    from torch.nn.functional import interpolate

    if larger < size:
        raise ValueError(f"{larger} is smaller than {size}: U would have more than two neighbours in a row")
    rows = torch.eye(size, dtype=torch.float64)[:, None]
    u = interpolate(rows, size=larger, mode="linear", align_corners=False)[:, 0].T  # (larger, size)
    m = u.T @ u
    return m.diagonal().float(), m.diagonal(1).float(), u.sum(0).float()


def _three_diagonals(x: torch.Tensor, main: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
    """M x M for pictures (B, C, S, S) and the symmetric M with these diagonals."""
    y = x * main
    y[..., :-1].addcmul_(x[..., 1:], beside)
    y[..., 1:].addcmul_(x[..., :-1], beside)
    z = y * main[:, None]
    z[..., :-1, :].addcmul_(y[..., 1:, :], beside[:, None])
    z[..., 1:, :].addcmul_(y[..., :-1, :], beside[:, None])
    return z


def structural_similarity(a: torch.Tensor, b: torch.Tensor, *, columnwise: bool = False) -> np.ndarray:
    """SSIM of gray pictures (B, 1, S, S), float64 (B,).

    Gaussian weights of sigma 1.5 over 11 x 11 px, population covariance, data range 1, mean over whole windows: what
    scikit-image >= 0.20 computes for 2-D pictures. ``columnwise`` gives the mean of 1-D SSIMs of the image columns,
    which scikit-image <= 0.19 made of ``multichannel=True`` (Brain-Diffuser's numbers; .08 to .11 higher).
    """
    values = np.empty(len(a))
    for i in range(len(a)):  # one picture at a time stays in the processor's cache
        values[i] = _one_similarity(a[i, 0].float(), b[i, 0].float(), columnwise)
    return values


def _one_similarity(a: torch.Tensor, b: torch.Tensor, columnwise: bool) -> float:
    mean_a, mean_b = _blur(a, columnwise), _blur(b, columnwise)
    squares = _blur((a * a).addcmul_(b, b), columnwise)  # only the sum of both variances is needed
    both = _blur(a * b, columnwise)
    c1, c2 = 0.01**2, 0.03**2
    mean_ab = mean_a * mean_b
    mean_squares = mean_a.mul_(mean_a).addcmul_(mean_b, mean_b)
    top = both.sub_(mean_ab).mul_(2).add_(c2).mul_(mean_ab.mul_(2).add_(c1))
    bottom = squares.sub_(mean_squares).add_(c2).mul_(mean_squares.add_(c1))
    return float(top.div_(bottom).double().mean())


@lru_cache(maxsize=1)
def _weights() -> tuple[float, ...]:
    offsets = np.arange(-_RADIUS, _RADIUS + 1)
    kernel = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    return tuple(float(weight) for weight in kernel / kernel.sum())


def _blur(x: torch.Tensor, columns_only: bool) -> torch.Tensor:
    """Gaussian means of the whole windows of (S, S): (S - 10, S - 10), or (S - 10, S) along columns only."""
    inside = x.shape[0] - 2 * _RADIUS
    weights = _weights()
    y = x[:inside] * weights[0]
    for i in range(1, len(weights)):
        y.add_(x[i : i + inside], alpha=weights[i])
    if columns_only:
        return y
    inside = x.shape[1] - 2 * _RADIUS
    z = y[:, :inside] * weights[0]
    for i in range(1, len(weights)):
        z.add_(y[:, i : i + inside], alpha=weights[i])
    return z


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """Bilinear resize of (n, 3, H, W) to (n, 3, size, size), no antialiasing."""
    from torch.nn.functional import interpolate

    if images.shape[-2:] == (size, size):
        return images.float()
    return interpolate(images.float(), size=(size, size), mode="bilinear", align_corners=False, antialias=ANTIALIAS)


def enter(images: torch.Tensor) -> torch.Tensor:
    """The 256 x 256 bottleneck through which every picture enters every metric."""
    return resize(images, ENTRY_SIZE)
