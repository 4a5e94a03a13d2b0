"""How likely an encoding model makes a recorded response, given a picture; differentiable in the picture.

Responses are whitened: what one has beyond its prediction is taken as Gaussian with unit covariance
(`align.training.encoding`). So the log-likelihood is minus half the squared distance of response and prediction. For a
picture that predicts the response's own amplitude its gradient is that of their cosine; unlike the cosine, it is
defined for signals at rest, which ask for a picture that changes nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from align.errors import UserError
from align.vision.backbones import load_backbone
from align.vision.fused import candidates_alike, parts_of
from recon.decoding.guidance import Guidance, ascend

if TYPE_CHECKING:
    from align.checkpoint import Run
    from recon.generation.pipeline import Generator

_PIXELS = 2**17  # of the pictures whose gradient is computed at once: 32 of 64 px, one of 512 px


def require_predicted_responses(run: Run) -> None:
    """Raise `UserError` unless the run predicts responses from pictures as they are."""
    target, name = run.config.target, run.config.encoder.name
    if name != "encoding":
        raise UserError(
            f"--guide encoding needs a run that predicts responses (encoder.name=encoding); run {run.path} has {name}"
        )
    if candidates_alike(target) and (target.views or target.uncertain_views):
        raise UserError("--guide encoding needs a run on plain pictures; this one predicts responses from views")


class Likelihood(nn.Module):
    """Of responses, given pictures: the backbone and the image side of an encoding model, both frozen.

    Raises `UserError` for a run that predicts no responses.
    """

    def __init__(self, run: Run) -> None:
        require_predicted_responses(run)
        super().__init__()
        self.backbone = load_backbone(run.config.backbone)
        self.targets = copy.deepcopy(run.aligner.targets)  # the run's own stay where they are
        self._layers, self._pooling = parts_of(run.config.target.layer), run.config.target.pooling

    def predicted(self, pictures: torch.Tensor) -> torch.Tensor:
        """Whitened responses (n, E) that pictures (n, 3, H, W) in [0, 1] should cause."""
        found = self.backbone.tokens(pictures, self._layers, self._pooling)
        return self.targets.encode(torch.cat([found[layer] for layer in self._layers], dim=2))

    def forward(self, pictures: torch.Tensor, responses: torch.Tensor) -> torch.Tensor:
        """Log-likelihood (n,), up to a constant, of whitened responses (n, E) given pictures (n, 3, H, W)."""
        return -0.5 * (responses - self.predicted(pictures)).square().sum(1)


def guide(
    model: Generator, likelihood: Likelihood, responses: np.ndarray, guidance: Guidance, count: int
) -> Callable[[torch.Tensor, int, np.ndarray], torch.Tensor]:
    """The hook ``(x0, step, rows)`` of a drawing of ``count`` steps: row i is guided by ``responses[i]`` (n, E)."""
    told = torch.from_numpy(np.ascontiguousarray(responses, dtype=np.float32))
    acting, at_once = guidance.acting(count), max(1, _PIXELS // model.size**2)

    def score(responses: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = likelihood(model.decode(x0), responses)
        return scores

    def change(x0: torch.Tensor, step: int, rows: np.ndarray) -> torch.Tensor:
        if step >= acting:
            return x0
        likelihood.to(x0.device)
        own = told[torch.as_tensor(np.asarray(rows))].to(x0.device)
        parts = zip(x0.split(at_once), own.split(at_once), strict=True)
        return torch.cat([ascend(part, partial(score, theirs), guidance) for part, theirs in parts])

    return change
