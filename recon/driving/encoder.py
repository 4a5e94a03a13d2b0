"""Pictures to predicted responses in one call, with a gradient: a network, its layers, and ridge on their tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from align.comparison.ridge import SharedFit, SharedRidge
from align.errors import UserError
from align.response_models.contract import joined, take_rows
from align.response_models.ridge import SHARES
from align.response_models.scaling import Scaling
from align.vision.fused import layer_targets, parts_of, resolve_layers
from align.vision.taps import Backbone

if TYPE_CHECKING:
    from align.config import Config
    from align.data.signals import Stimuli


@dataclass(frozen=True)
class PictureEncoder:
    """Ridge from the tokens of ``layers`` to K responses. ``weight`` (P, K), ``bias`` (K,)."""

    backbone: Backbone
    layers: tuple[str, ...]
    pooling: str
    scaling: Scaling
    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(B, K) for pictures (B, 3, H, W) in [0, 1]; those that require a gradient get one through it."""
        return self.predict(self.backbone.tokens(images, self.layers, self.pooling))

    def predict(self, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B, K) of tokens (B, N, D) of every layer."""
        parts = [
            self.scaling.spaces[name].standardised(tokens[name].float()) / self.scaling.lengths[name]
            for name in self.layers
        ]
        return torch.cat(parts, dim=1) / len(parts) ** 0.5 @ self.weight + self.bias


def picture_tokens(
    backbone: Backbone, layer: str, stimuli: Stimuli, rows: np.ndarray, config: Config
) -> dict[str, np.ndarray]:
    """Tokens (n, N, D) of every part of a (joined) layer, from the cache where they are. Pictures as they are shown."""
    if config.target.views or config.target.uncertain_views:
        raise UserError("a picture that is being made has no altered copies; leave out target.views")
    parts = parts_of(resolve_layers(backbone, layer))
    found = layer_targets(backbone, stimuli, parts, config.target.pooling, config.cache_dir)
    return {part: np.asarray(found[part].tokens[rows], dtype=np.float32) for part in parts}


def fit_encoder(
    backbone: Backbone,
    tokens: dict[str, np.ndarray],
    responses: np.ndarray,
    rows: np.ndarray,
    config: Config,
    penalty: float = 1.0,
) -> PictureEncoder:
    """Fitted to the ``rows`` of tokens (n, N, D) and responses (n, K), with ``penalty`` times the chosen penalties."""
    scaling = Scaling.of(take_rows(tokens, rows), config.target.root)
    spaces = scaling(take_rows(tokens, rows))
    fit = SharedRidge(joined(spaces)).fit(responses[rows], SHARES)
    weight, bias = SharedFit(fit.base, fit.y_mean, fit.turned, penalty * fit.alpha).slopes()
    as_float = (torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32)) for part in (weight, bias))
    return PictureEncoder(backbone, tuple(tokens), config.target.pooling, scaling, *as_float)


def predictions(encoder: PictureEncoder, tokens: dict[str, np.ndarray], batch: int = 256) -> np.ndarray:
    """(n, K) float32 of stored tokens (n, N, D)."""
    count = len(next(iter(tokens.values())))
    with torch.no_grad():
        parts = [
            encoder.predict({name: torch.from_numpy(part[start : start + batch]) for name, part in tokens.items()})
            for start in range(0, count, batch)
        ]
    return np.concatenate([part.numpy() for part in parts])


def of_pictures(encoder: PictureEncoder, images: torch.Tensor, batch: int = 32) -> np.ndarray:
    """(n, K) float32 of pictures (n, 3, H, W)."""
    with torch.no_grad():
        return np.concatenate([encoder(part).numpy() for part in images.split(batch)])
