"""The encoding model as a decoder: the seen picture is the one whose predicted response fits the recorded one best.

Pictures predict responses (`fit_fields`), which are then whitened by the covariance of what the prediction leaves
over, so that the cosine of whitened responses and whitened predictions discounts noise that channels share. Both
sides stay linear: the brain side is a matrix, the image side a projection of the tokens.

With ``encoder.constant`` both get one more value, the same for all, so that the order of cosines comes near that of
likelihoods.

The prediction is kernel ridge regression from a picture's token grid, each channel with its own receptive field:
the forward direction of Naselaris et al. 2011 (NeuroImage 56, "Encoding and decoding in fMRI") and of
receptive-field estimation in V4 (Klindt et al. 2017, arXiv 1711.02653, "where" apart from "what"), in closed form.
For every of a few Gaussian fields over the grid, a kernel weighs the positions by the field; a channel then mixes
the fields by how well each predicts pictures left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from align.config import Config
from align.data.rows import Rows
from align.errors import UserError
from align.model.aligner import Aligner
from align.model.spaces import SignalSpace, TargetSpace
from align.training.whitening import whitener

SHRINKAGE = 0.5  # of the residual covariance towards its diagonal
PENALTIES = tuple(10.0 ** (k / 4) for k in range(-8, 5))  # of a kernel whose mean diagonal is 1
MOST_PICTURES = 6000  # the kernels are square in their number
_CENTRES = (0.25, 0.5, 0.75)  # of the fields, in parts of the picture, in both directions
_WIDTH = 0.2  # standard deviation of a field, likewise
_EVIDENCE = 0.3  # power of the likelihood of left-out responses with which fields are mixed


def fit_encoding(
    config: Config,
    rows: Rows,
    pictures: Rows,
    inverse: np.ndarray,
    groups: np.ndarray,
    widths: tuple[int, ...],
    device: torch.device | str,
) -> Aligner:
    """Fit to signals ``rows`` (n, ...) of pictures with tokens (K, N, D); row i is of picture ``inverse[i]``.

    ``groups`` (n,): rows that are left out together when fields and penalties are chosen. ``widths``: the parts of D
    that belong to one layer each; every layer is given the same weight. Deterministic: no seed enters.
    """
    signals = SignalSpace.fit(rows, config.encoder.components, project=True, device=device)
    if len(signals.out_shape) > 1:
        raise UserError(
            f"encoder 'encoding' predicts every value of a trial, here {signals.out_shape}; set encoder.components=100"
        )
    targets = TargetSpace.scaled(pictures, config.target.root, device)
    tokens = torch.cat([targets.standardised(piece.to(device)) for piece in pictures.pieces()])
    _balance(targets, tokens, widths)
    responses = _mean_responses(signals, rows, inverse, len(pictures))
    group_of = np.zeros(len(pictures), dtype=np.int64)
    group_of[inverse] = np.unique(groups, return_inverse=True)[1]
    fields = fit_fields(tokens.unflatten(1, targets.token_shape), responses, group_of)
    whiten = whitener(responses - fields.held_out, SHRINKAGE)
    if config.encoder.constant:
        length = ((fields.held_out - fields.bias) @ whiten).square().sum(1).mean().sqrt()
        targets.constant = config.encoder.constant * length
    return as_aligner(config, signals, targets, whiten.T @ fields.weight, whiten.T, -fields.bias @ whiten)


def as_aligner(
    config: Config,
    signals: SignalSpace,
    targets: TargetSpace,
    axes: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
) -> Aligner:
    """The decoder that compares ``weight`` (d, V) @ signals + ``bias`` (d,) with ``axes`` (d, N*D) @ tokens.

    Signals are those of ``signals``, tokens are standardised by ``targets``, which gets the axes.
    """
    targets.basis = axes
    targets.gain = torch.ones(len(axes), device=axes.device)
    aligner = Aligner(config, signals, targets).to(axes.device)
    linear = aligner.network.encoder[1]  # type: ignore[index]
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)
    return aligner.eval()


def _balance(targets: TargetSpace, tokens: torch.Tensor, widths: tuple[int, ...]) -> None:
    """Divide the tokens (K, N*D) of every layer, in place, by the length they have on average."""
    start, view, scale = 0, tokens.unflatten(1, targets.token_shape), targets.scale.unflatten(0, targets.token_shape)
    for width in widths:
        layer = slice(start, start + width)
        length = view[:, :, layer].square().sum((1, 2)).mean().sqrt().clamp_min(1e-12)
        view[:, :, layer] /= length
        scale[:, layer] *= length
        start += width


def _mean_responses(signals: SignalSpace, rows: Rows, inverse: np.ndarray, n_pictures: int) -> torch.Tensor:
    """(K, V): standardised signals, averaged over the rows of every picture."""
    total = torch.zeros(n_pictures, *signals.out_shape, device=signals.mean.device)
    picture, start = torch.as_tensor(inverse, device=total.device), 0
    for piece in rows.pieces():
        total.index_add_(0, picture[start : start + len(piece)], signals(piece.to(total.device)))
        start += len(piece)
    return total / picture.bincount(minlength=n_pictures)[:, None]


@dataclass(frozen=True)
class Fields:
    """y = x weight^T + bias for standardised tokens x (n, N*D); ``held_out`` (n, V): left-out predictions."""

    weight: torch.Tensor
    bias: torch.Tensor
    held_out: torch.Tensor


def positions(n: int) -> torch.Tensor:
    """Fields (m, N) over N tokens, mean 1 each: nine Gaussians and a flat one over a square grid, else the flat one."""
    side = math.isqrt(n)
    flat = torch.ones(1, n, dtype=torch.float64)
    if side * side != n or side < 2:
        return flat
    at = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    lines = torch.stack([torch.exp(-0.5 * ((at - centre) / _WIDTH) ** 2) for centre in _CENTRES])
    fields = torch.einsum("ai,bj->abij", lines, lines).reshape(len(_CENTRES) ** 2, n)
    return torch.cat([fields / fields.mean(1, keepdim=True), flat])


def fit_fields(x: torch.Tensor, y: torch.Tensor, groups: np.ndarray) -> Fields:
    """Fit responses y (n, V), of mean 0, on tokens x (n, N, D), of mean 0 and at one scale.

    Penalty and mixture of the fields are chosen per channel by leaving out one group of pictures (n,) at a time, in
    closed form. Computed in float64, returned as float32. Raises `UserError` above `MOST_PICTURES`.
    """
    n = len(x)
    if n > MOST_PICTURES:
        raise UserError(f"encoder 'encoding' takes at most {MOST_PICTURES} pictures, got {n}; take encoder.name=mlp")
    grams = torch.stack([(x[:, p] @ x[:, p].T).double() for p in range(x.shape[1])])
    y = y.double()
    masks = positions(x.shape[1]).to(x.device)
    found = [_one_field(torch.tensordot(mask, grams, 1), y, groups) for mask in masks]
    error = torch.stack([(y - held_out).square().mean(0) for held_out, _ in found])
    share = torch.softmax(-_EVIDENCE * n / 2 * error.clamp_min(1e-12).log(), dim=0)  # (m, V)
    held_out = sum(part[:, None].T * one[0] for part, one in zip(share, found, strict=True))
    weight = torch.zeros(y.shape[1], *x.shape[1:], dtype=x.dtype, device=x.device)
    for mask, part, (_, dual) in zip(masks, share, found, strict=True):
        weight += torch.tensordot((part * dual).T.to(x.dtype), mask.to(x.dtype)[:, None] * x, 1)
    return Fields(weight.flatten(1).float(), y.mean(0).float(), held_out.float())


def _one_field(kernel: torch.Tensor, y: torch.Tensor, groups: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Left-out predictions (n, V) and dual weights (n, V) of one kernel (n, n), each channel with its best penalty."""
    unit = kernel.diagonal().mean().clamp_min(1e-12)
    values, vectors = torch.linalg.eigh(kernel / unit)
    values = values.clamp_min(0)
    mean = y.mean(0)
    rotated = vectors.T @ (y - mean)
    best = torch.full((y.shape[1],), torch.inf, dtype=y.dtype, device=y.device)
    held_out, chosen = torch.zeros_like(y), torch.zeros_like(best)
    for penalty in PENALTIES:
        estimate = _left_out(vectors, values / (values + penalty), rotated, y, groups)
        error = (y - estimate).square().mean(0)
        better = error < best
        best = torch.where(better, error, best)
        chosen = torch.where(better, penalty, chosen)
        held_out = torch.where(better, estimate, held_out)
    dual = vectors @ (rotated / (values[:, None] + chosen)) / unit
    return held_out, dual


def _left_out(
    vectors: torch.Tensor, shrink: torch.Tensor, rotated: torch.Tensor, y: torch.Tensor, groups: np.ndarray
) -> torch.Tensor:
    """Predictions (n, V) of every group of rows by a fit without it: residual = (1 - H)^-1 (y - fit) of its block."""
    n = len(y)
    residual = y - y.mean(0) - vectors @ (shrink[:, None] * rotated)
    leverage = vectors.square() @ shrink + 1 / n
    out = residual / (1 - leverage)[:, None]
    for members in _blocks(groups):
        rows = vectors[members]
        hat = (rows * shrink) @ rows.T + 1 / n
        out[members] = torch.linalg.solve(torch.eye(len(members), dtype=hat.dtype) - hat, residual[members])
    return y - out


def _blocks(groups: np.ndarray) -> list[torch.Tensor]:
    """Rows of every group that has more than one."""
    order = np.argsort(groups, kind="stable")
    ends = np.flatnonzero(np.diff(groups[order])) + 1
    return [torch.from_numpy(part) for part in np.split(order, ends) if len(part) > 1]
