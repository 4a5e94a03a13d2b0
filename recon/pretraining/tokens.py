"""Tokens and latents of the pool that the last stages of pretraining, and conditioners, learn from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from align.config import BackboneConfig
from align.data.signals import Stimuli
from align.vision.backbones import load_backbone
from align.vision.targets import cached_targets
from recon.config import PretrainConfig
from recon.generation.conditioner import Conditioner, ConditionerInfo
from recon.generation.sketch import Sketch
from recon.pretraining import miniature
from recon.pretraining.parts import assets_folder
from recon.pretraining.pictures import Pool
from recon.pretraining.virtual_brains import PICTURES, VirtualBrains

# shares of the steps: mini tokens, SqueezeNet tokens, caption alone (so that the UNet also works without an adapter)
SHARES = {"mini": 0.35, "squeezenet": 0.5, "": 0.15}
# Shares of the conditions that are dropped: tokens and sketch together (the negative of guidance), and each alone.
DROP, DROP_ONE = 0.10, 0.05
# What is done to the training tokens, so that predicted ones are no surprise: nothing; mixed with those of another
# picture, of the same spread (where predicted tokens are wrong, they resemble another picture's); passed through a
# virtual brain.
CLEAN, MIXED, LARGEST_MIX = 0.4, 0.25, 0.8
_LARGEST = 1.2e8  # numbers
_PIXELS = 2**20  # that are encoded at once: a picture of SDXL, 4 of SD 1.5
GOALS = ("epsilon", "v_prediction")
# channels and blocks of the sketches, and their shares of the steps
SKETCHES = {"mini": (128, 3, 0.4), "squeezenet": (192, 4, 0.6)}


@dataclass
class Tokens:
    """Tokens (n, N, D) float16 of the pool's rows ``first`` to ``first + n``, the conditioner that reads them, and the
    brains that tell of them."""

    values: np.ndarray
    first: int
    conditioner: Conditioner

    @cached_property
    def brains(self) -> VirtualBrains:
        """From as many of the pictures as half a gigabyte holds, `PICTURES` at most."""
        n = min(PICTURES, len(self.values), max(64, int(_LARGEST / self.values[0].size)))
        some = np.linspace(0, len(self.values) - 1, n).astype(np.int64)
        raw = torch.from_numpy(self.values[some].astype(np.float32))
        device = next(self.conditioner.parameters()).device
        return VirtualBrains.draw(self.conditioner.standardised(raw.to(device)).cpu(), 0)


def build_sketch(name: str, source: Tokens) -> Sketch:
    """The sketch of one conditioner, untrained."""
    info, (hidden, depth, _) = source.conditioner.info, SKETCHES[name]
    return Sketch(info.n_tokens, info.width, miniature.LATENT_CHANNELS, miniature.LATENT_SIZE, hidden, depth)


def corrupted(tokens: Tokens, rows: np.ndarray, generator: torch.Generator) -> torch.Tensor:
    """Standardised tokens (B, N, D) of the rows: as they are, mixed with another row's, or as a brain tells them."""
    n = len(rows)
    device = next(tokens.conditioner.parameters()).device
    raw = torch.from_numpy(tokens.values[rows - tokens.first].astype(np.float32))
    own = tokens.conditioner.standardised(raw.to(device)).cpu()
    kind = torch.rand(n, 1, 1, generator=generator)
    share = LARGEST_MIX * torch.rand(n, 1, 1, generator=generator)
    other = (1 - share.square()).sqrt() * own + share * own[torch.randperm(n, generator=generator)]
    told = tokens.brains.estimate(own, generator)
    return torch.where(kind < CLEAN, own, torch.where(kind < CLEAN + MIXED, other, told)).to(device)


def dropped(given: torch.Tensor, hint: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Standardised tokens and latents of the sketch, set to zero (mean tokens, no sketch) in some rows."""
    draw = torch.rand(len(given), generator=generator).to(given.device)
    tokens = (draw >= DROP + DROP_ONE).float()
    sketch = ((draw >= DROP) & ((draw < DROP + DROP_ONE) | (draw >= DROP + 2 * DROP_ONE))).float()
    return given * tokens[:, None, None], hint * sketch[:, None, None, None]


def tokens_of(name: str, config: PretrainConfig, pool: Pool, unet: nn.Module) -> Tokens:
    """Tokens of the whole pool for one conditioner."""
    out = Path(config.out)
    if name == "mini":
        backbone = load_backbone(BackboneConfig("mini", str(assets_folder(config) / "image_encoder")))
        layer, pooling = config.mini_layer, config.mini_pooling
    else:
        backbone = load_backbone(BackboneConfig("torchvision/squeezenet1_1", config.squeezenet_weights))
        layer, pooling = config.squeezenet_layer, config.squeezenet_pooling
    stimuli = pool_stimuli(pool, 0)
    values = cached_targets(backbone, stimuli, [layer], pooling, out / "cache")[layer].tokens
    mean, std = channel_statistics(values)
    n_tokens, width = values.shape[1:]
    info = ConditionerInfo(backbone.name, layer, pooling, n_tokens, width, resizing=backbone.resizing)
    return Tokens(values, 0, Conditioner(unet, info, mean, std))


def channel_statistics(tokens: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (D,) over pictures and positions of tokens (n, N, D)."""
    flat = torch.from_numpy(np.asarray(tokens[:: max(1, len(tokens) // 4000)], dtype=np.float32)).flatten(0, 1)
    return flat.mean(0), flat.std(0).clamp(min=1e-4)


def pool_stimuli(pool: Pool, first: int) -> Stimuli:
    """The pool's pictures from row ``first`` on, photographs at the resolution of their source."""
    ids = pool.ids[first:]
    blank = ("",) * len(ids)
    return Stimuli(ids, lambda i: pool.original(first + i), np.arange(len(ids)), blank, blank)


@torch.no_grad()
def encode_pool(vae: nn.Module, pool: Pool, path: Path, size: int, precision: str = "fp32") -> np.ndarray:
    """Latent mean and log-variance of every picture at ``size`` px, float16 (n, 2 C, S, S); computed once and stored,
    where the VAE is. ``precision``: fp32, or bf16 for a third of the time.

    Peak memory is one batch, of fewer pictures the larger they are: the file is written as it grows.
    """
    from tqdm import tqdm

    from align.files import atomic_path
    from align.files.checksums import append_checksum, map_npy
    from align.files.made_once import made_once

    batch, device = max(1, min(64, _PIXELS // size**2)), next(vae.parameters()).device

    def make() -> None:
        with atomic_path(path) as temporary:
            stored: np.ndarray | None = None
            for start in tqdm(range(0, len(pool.images), batch), desc="encode pictures", mininterval=5):
                x = torch.from_numpy(pool.at(range(start, min(start + batch, len(pool.images))), size))
                x = x.to(device).float()
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                    posterior = vae.encode(x.permute(0, 3, 1, 2) / 127.5 - 1).latent_dist
                rows = torch.cat([posterior.mean, posterior.logvar], dim=1).half().cpu().numpy()
                if stored is None:
                    shape = (len(pool.images), *rows.shape[1:])
                    stored = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
                stored[start : start + len(rows)] = rows
            del stored  # its bytes reach the file
            append_checksum(temporary, path.name)

    return made_once(path, lambda: map_npy(path), make, f"latents {str(path)!r}")


def sample_latents(moments: np.ndarray, generator: torch.Generator) -> torch.Tensor:
    """A draw from each posterior: (B, 2 C, S, S) moments to (B, C, S, S)."""
    mean, logvar = torch.from_numpy(moments.astype(np.float32)).chunk(2, dim=1)
    return mean + (0.5 * logvar).exp() * torch.randn(mean.shape, generator=generator)


def noised(scheduler: object, clean: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Latents (B, C, h, w) at the steps ``t`` (B,): sqrt(a) clean + sqrt(1 - a) noise, a = ``alphas_cumprod``.

    Not the scheduler's own ``add_noise``: that of multistep solvers (diffusers 0.42.1) gives step 0 the noise of the
    last one and the other way round, unless ``set_timesteps`` was called before.
    """
    alphas = scheduler.alphas_cumprod.to(clean.device)[t].view(-1, 1, 1, 1)  # type: ignore[attr-defined]
    return alphas.sqrt() * clean + (1 - alphas).sqrt() * noise


def goal(scheduler: object, clean: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """What the UNet should return: the noise, or (v-prediction, Salimans & Ho 2022) alpha noise - sigma clean."""
    if scheduler.config.prediction_type == "epsilon":  # type: ignore[attr-defined]
        return noise
    alphas = scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)  # type: ignore[attr-defined]
    return alphas.sqrt() * noise - (1 - alphas).sqrt() * clean


@torch.no_grad()
def encode_captions(text_encoder: nn.Module, tokenizer: object, pool: Pool) -> dict[str, torch.Tensor]:
    """Hidden states of every caption (n, L, width), and of the empty caption (1, L, width)."""

    def encode(texts: list[str]) -> torch.Tensor:
        batch = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")  # type: ignore[operator]
        return text_encoder(batch.input_ids).last_hidden_state.half()

    captions = list(pool.captions)
    rows = torch.cat([encode(captions[i : i + 512]) for i in range(0, len(captions), 512)])
    return {"rows": rows, "empty": encode([""])}
