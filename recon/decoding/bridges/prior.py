"""Prior: a small network from layer-l tokens to the pooled embedding of a public adapter, trained on pictures only.

A linear path that starts as the ridge bridge, and beside it two layers that start at nothing. Now and then the input is
mixed with another picture's, so that the network learns to make an embedding of a picture from an uncertain one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from align.files import read_made_for, save_tensors
from align.files.checksums import MADE_FOR
from align.files.made_once import made_once
from align.seeding import derive
from recon.config import StageConfig
from recon.decoding.bridges.image_encoder import ImageEncoder
from recon.decoding.bridges.pairs import EmbeddingPairs, training_pairs
from recon.decoding.bridges.ridge import LinearMap, linear_map, pooled_bridge, require_pooled
from recon.generation.adapters import Adapter
from recon.generation.bridge import Bridge

if TYPE_CHECKING:
    from align.checkpoint import Run

MIXED, LARGEST_MIX = 0.5, 0.5  # how often an input is mixed, and with how much of another one at most


@dataclass(frozen=True)
class PriorConfig:
    """Size and training of the network."""

    hidden: int = 512
    dropout: float = 0.2
    train: StageConfig = field(default_factory=lambda: StageConfig(steps=1500, batch_size=128, lr=3e-4))


class Prior(nn.Module):
    """(n, k) components to (n, E) embeddings."""

    def __init__(self, linear: LinearMap, hidden: int, dropout: float) -> None:
        super().__init__()
        width, k = linear.weight.shape
        self.linear = nn.Linear(k, width)
        with torch.no_grad():
            self.linear.weight.copy_(linear.gain * linear.weight)
            self.linear.bias.copy_(linear.gain * (linear.bias - linear.mean) + linear.mean)
        last = nn.Linear(hidden, width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.beside = nn.Sequential(nn.Linear(k, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout), last)

    def forward(self, components: torch.Tensor) -> torch.Tensor:
        return self.linear(components) + self.beside(components)


def prior_bridge(run: Run, adapter: Adapter, encoder: ImageEncoder, config: PriorConfig = PriorConfig()) -> Bridge:
    """Train (resumable; or read what was trained for the same pictures, networks and settings); returns the bridge.

    Raises `UserError` for an adapter that reads no pooled embedding and for a test picture among the training ones.
    """
    require_pooled(adapter, "prior")
    pairs = training_pairs(run, encoder)
    stage = config.train
    key = f"{pairs.key}_{config.hidden}_{config.dropout:g}_{stage.steps}_{stage.batch_size}_{stage.lr:g}"
    folder = run.path / "bridges"
    linear = linear_map(pairs, run.config.seed, folder / f"ridge_{pairs.key}.safetensors")
    torch.manual_seed(derive(run.config.seed, "prior"))
    prior = Prior(linear, config.hidden, config.dropout)
    path = folder / f"prior_{key}.safetensors"

    def make() -> None:
        trained = _train(prior, pairs, config, folder / f"prior_{key}", run.config.seed)
        save_tensors(path, trained.state_dict(), {MADE_FOR: path.stem})

    prior.load_state_dict(made_once(path, lambda: read_made_for(path, path.stem), make, f"a prior for {run.path}"))
    return pooled_bridge("prior", run, adapter, prior.eval().requires_grad_(False), f"prior {key}")


def _train(prior: Prior, pairs: EmbeddingPairs, config: PriorConfig, folder: Path, seed: int) -> nn.Module:
    from recon.generation.loop import Stage, run_stage

    scale = pairs.embeds.var(0).mean().clamp_min(1e-12)

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rows = torch.randint(len(pairs.embeds), (config.train.batch_size,), generator=generator)
        other = torch.randint(len(pairs.embeds), rows.shape, generator=generator)
        share = LARGEST_MIX * torch.rand(len(rows), 1, generator=generator)
        share = share * (torch.rand(len(rows), 1, generator=generator) < MIXED)
        mixed = (1 - share.square()).sqrt() * pairs.components[rows] + share * pairs.components[other]
        out, true = prior(mixed), pairs.embeds[rows]
        mse, cosine = F.mse_loss(out, true) / scale, 1 - F.cosine_similarity(out, true).mean()
        return mse + cosine, {"mse": float(mse.detach()), "cosine": float(cosine.detach())}

    stage = Stage(
        name="prior",
        modules={"prior": prior.train()},
        loss=loss,
        config=config.train,
        folder=folder,
        seed=seed,
        precision="fp32",
        ema_decay=0.99,
    )
    return run_stage(stage)["prior"]
