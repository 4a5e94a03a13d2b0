"""Ridge: a closed-form map from layer-l tokens to the pooled embedding of a public adapter, fitted in minutes.

It learns from the study's training pictures alone. The tokens enter as the components in which the run predicts them:
a prediction holds nothing else.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from align.data.splits import grouped_folds
from align.encoders.ridge import FOLDS, fit_ridge
from align.errors import UserError
from align.files import read_made_for, save_tensors
from align.files.checksums import MADE_FOR
from align.files.made_once import made_once
from recon.decoding.bridges.image_encoder import ImageEncoder
from recon.decoding.bridges.pairs import EmbeddingPairs, training_pairs
from recon.generation.adapters import Adapter
from recon.generation.bridge import Bridge

if TYPE_CHECKING:
    from align.checkpoint import Run

log = logging.getLogger(__name__)
ALPHAS = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6]  # components have a mean variance of 1
_LARGEST_GAIN = 5.0


@dataclass(frozen=True)
class LinearMap:
    """y = bias + weight x; ``gain``: by how much held-out predictions were too flat."""

    weight: torch.Tensor
    bias: torch.Tensor
    mean: torch.Tensor
    gain: float

    def __call__(self, components: torch.Tensor) -> torch.Tensor:
        """(n, k) to (n, E), with the spread around the mean that true embeddings have."""
        plain = components @ self.weight.T + self.bias
        return self.mean + self.gain * (plain - self.mean)


def ridge_bridge(run: Run, adapter: Adapter, encoder: ImageEncoder) -> Bridge:
    """Fit (or read what was fitted for the same pictures and networks) and return the bridge.

    Raises `UserError` for an adapter that reads no pooled embedding and for a test picture among the training ones.
    """
    require_pooled(adapter, "ridge")
    pairs = training_pairs(run, encoder)
    path = run.path / "bridges" / f"ridge_{pairs.key}.safetensors"
    return pooled_bridge("ridge", run, adapter, linear_map(pairs, run.config.seed, path), f"ridge {pairs.key}")


def pooled_bridge(name: str, run: Run, adapter: Adapter, mapping: object, key: str) -> Bridge:
    """The bridge around a map from the run's components to pooled embeddings."""
    targets, target = run.aligner.targets, run.config.target

    def convert(tokens: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return mapping(targets.encode(tokens.to(targets.mean.device, torch.float32)))  # type: ignore[operator]

    shape = (int(targets.token_shape[0]), int(targets.token_shape[1]))
    source = f"{run.config.backbone.name} layer {target.layer} {target.pooling}"
    return Bridge(name, convert, torch.zeros(1, adapter.width), shape, source, key)


def require_pooled(adapter: Adapter, name: str) -> None:
    """Raise `UserError` unless the adapter reads one pooled embedding per picture."""
    if adapter.kind != "pooled":
        what = "an IP-Adapter-Plus, which reads token states" if adapter.kind == "plus" else "an own conditioner"
        raise UserError(
            f"bridge {name} gives a pooled embedding and {str(adapter.path)!r} is {what}; "
            "pass an IP-Adapter of 4 tokens"
        )


def linear_map(pairs: EmbeddingPairs, seed: int, path: Path) -> LinearMap:
    """What `fit_linear` stored at ``path`` for these pairs, fitted first where absent."""

    def read() -> LinearMap:
        tensors = read_made_for(path, path.stem)
        return LinearMap(tensors["weight"], tensors["bias"], tensors["mean"], float(tensors["gain"]))

    return made_once(path, read, lambda: fit_linear(pairs, seed, path), f"a linear map for {path.parent}")


def fit_linear(pairs: EmbeddingPairs, seed: int, path: Path) -> LinearMap:
    """Ridge with its penalty chosen by retrieval in grouped cross-validation over training pictures; stored."""
    folds = grouped_folds(pairs.groups, FOLDS, seed)
    fit = fit_ridge(pairs.components, pairs.embeds, ALPHAS, folds)
    flat = fit.held_out.var(0).sum().clamp_min(1e-12)
    gain = float((pairs.embeds.var(0).sum() / flat).sqrt().clamp(1.0, _LARGEST_GAIN))
    mean = pairs.embeds.mean(0)
    centred = torch.nn.functional.cosine_similarity(fit.held_out - mean, pairs.embeds - mean).mean()
    facts = {
        MADE_FOR: path.stem,
        "alpha": str(fit.alpha),
        "held_out_reciprocal_rank": f"{fit.scores[fit.alpha]:.4f}",
        "held_out_cosine": f"{float(centred):.4f}",
        "n_pictures": str(len(pairs.embeds)),
    }
    log.info("ridge bridge: %s", ", ".join(f"{name} {value}" for name, value in facts.items()))
    tensors = {"weight": fit.weight, "bias": fit.bias, "mean": mean, "gain": torch.tensor(gain)}
    save_tensors(path, tensors, facts)
    return LinearMap(fit.weight, fit.bias, mean, gain)
