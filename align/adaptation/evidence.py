"""Gaussian processes that share their prior over many outputs: weights and mixtures of kernels by marginal likelihood.

Few pictures decide nothing about one unit alone. So what is chosen (which known people a new one is like, how strong
noise is, where the receptive fields lie) is chosen with the likelihood of all units together. Marginal likelihood and
leave-one-out predictions in closed form: Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning",
equations 5.8 and 5.12. The scale of every output is taken at its best value (profiled).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

STEPS, RATE = 60, 0.3  # of the search for kernel weights
MOST_ROWS = 400  # that the search looks at
PENALTIES = tuple(10.0 ** (k / 4) for k in range(-8, 7))  # noise over signal variance
_TEMPER, _TOGETHER = 0.1, 3.0  # power of one output's likelihood, and of the mean over outputs, in a mixture
_LEAST = 1e-3  # a kernel with less than this share of every output is left out


def centred(kernel: torch.Tensor) -> tuple[torch.Tensor, float]:
    """A kernel (n, n) about the mean of its rows, with mean diagonal 1; and the number it was divided by."""
    kernel = kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()
    unit = float(kernel.diagonal().mean().clamp_min(1e-12))
    return kernel / unit, unit


def kernel_weights(kernels: Sequence[torch.Tensor], y: torch.Tensor) -> torch.Tensor:
    """Weights (J,) >= 0, sum 1, of `centred` kernels (n, n) likeliest for all outputs y (n, V).

    y has mean 0. Noise is found along with the weights. Above `MOST_ROWS` rows, that many spread over all are used.
    """
    rows = torch.linspace(0, len(y) - 1, min(len(y), MOST_ROWS)).round().long()
    stack, y = torch.stack([kernel[rows][:, rows] for kernel in kernels]), y[rows]
    n, identity = len(y), torch.eye(len(y), dtype=y.dtype, device=y.device)
    found = torch.zeros(len(stack) + 1, dtype=y.dtype, device=y.device, requires_grad=True)
    optimizer = torch.optim.Adam([found], lr=RATE)
    for _ in range(STEPS):
        shares = torch.softmax(found[:-1], 0)
        factor = torch.linalg.cholesky(torch.tensordot(shares, stack, 1) + found[-1].exp() * identity)
        quadratic = (y * torch.cholesky_solve(y, factor)).sum(0)
        loss = (n / 2 * (quadratic / n).clamp_min(1e-12).log() + factor.diagonal().log().sum()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.softmax(found[:-1], 0).detach()


@dataclass(frozen=True)
class Mixture:
    """``duals`` (J, n, V): prediction = sum of k_j(new, rows) @ duals[j]; ``held_out`` (n, V): left out."""

    duals: torch.Tensor
    held_out: torch.Tensor


def mix(kernels: Sequence[torch.Tensor], y: torch.Tensor) -> Mixture:
    """Fit outputs y (n, V) of mean 0 by every `centred` kernel and penalty, mixed by their likelihood.

    A share belongs to one output, but follows mostly the likelihood of all outputs together.
    """
    n, shape = len(y), (len(kernels), len(PENALTIES), y.shape[1])
    likelihood = torch.empty(shape, dtype=y.dtype, device=y.device)
    spectra = [_spectrum(kernel) for kernel in kernels]  # as large as the kernels, and most of the time is spent here
    for j, (values, vectors) in enumerate(spectra):
        power = (vectors.T @ y).square()
        for i, penalty in enumerate(PENALTIES):
            quadratic = (power / (values + penalty)[:, None]).sum(0)
            likelihood[j, i] = -n / 2 * (quadratic / n).clamp_min(1e-12).log() - (values + penalty).log().sum() / 2
    likelihood = _TEMPER * (likelihood + _TOGETHER * likelihood.mean(2, keepdim=True))
    shares = torch.softmax(likelihood.flatten(0, 1), 0).view(shape)
    duals, held_out = torch.zeros(len(kernels), *y.shape, dtype=y.dtype, device=y.device), torch.zeros_like(y)
    for j, (values, vectors) in enumerate(spectra):
        if shares[j].max() < _LEAST:
            continue
        rotated, squares = vectors.T @ y, vectors.square()
        for penalty, share in zip(PENALTIES, shares[j], strict=True):
            inverse = 1 / (values + penalty)
            dual = vectors @ (rotated * inverse[:, None])
            duals[j] += share * dual
            held_out += share * (y - dual / (squares @ inverse)[:, None])
    kept = shares.flatten(1).amax(1) >= _LEAST
    total = shares[kept].sum((0, 1))
    return Mixture(duals / total, held_out / total)


def _spectrum(kernel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values, vectors = torch.linalg.eigh(kernel)
    return values.clamp_min(0), vectors
