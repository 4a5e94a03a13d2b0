"""The encoding model as a decoder: the seen picture is the one whose predicted response fits the recorded one best.

Pictures predict responses (`align.receptive`), which are then whitened by the covariance of what the prediction leaves
over, so that the cosine of whitened responses and whitened predictions discounts noise that channels share. Both sides
stay linear: the brain side is a matrix, the image side a projection of the tokens.
"""

from __future__ import annotations

import numpy as np
import torch

from align.config import Config
from align.errors import UserError
from align.model import Aligner
from align.receptive import fit_fields
from align.rows import Rows
from align.spaces import SignalSpace, TargetSpace

SHRINKAGE = 0.5  # of the residual covariance towards its diagonal


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
    whiten = _whitener(responses - fields.held_out)
    targets.basis = whiten.T @ fields.weight
    targets.gain = torch.ones(len(targets.basis), device=targets.basis.device)
    aligner = Aligner(config, signals, targets).to(device)
    linear = aligner.network.encoder[1]  # type: ignore[index]
    with torch.no_grad():
        linear.weight.copy_(whiten.T)
        linear.bias.copy_(-fields.bias @ whiten)
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


def _whitener(residual: torch.Tensor) -> torch.Tensor:
    """(V, V): r @ W has unit covariance, were the covariance of residuals (K, V) the shrunken one."""
    x = residual.double()
    covariance = x.T @ x / len(x)
    diagonal = covariance.diagonal()
    floor = 1e-6 * diagonal.max().clamp_min(1e-12)
    shrunk = (1 - SHRINKAGE) * covariance + torch.diag(SHRINKAGE * diagonal + floor)
    return torch.linalg.cholesky(torch.linalg.inv(shrunk)).float()
