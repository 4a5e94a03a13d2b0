"""Whitening by the covariance of what a prediction leaves over."""

from __future__ import annotations

import torch


def whitener(residual: torch.Tensor, shrinkage: float) -> torch.Tensor:
    """(V, V): r @ W has unit covariance, if residuals (n, V) had that covariance, shrunken (0 to 1) to its diagonal."""
    x = residual.double()
    covariance = x.T @ x / len(x)
    diagonal = covariance.diagonal()
    floor = 1e-6 * diagonal.max().clamp_min(1e-12)
    shrunk = (1 - shrinkage) * covariance + torch.diag(shrinkage * diagonal + floor)
    return torch.linalg.cholesky(torch.linalg.inv(shrunk)).float()
