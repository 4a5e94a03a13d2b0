"""The last stages of pretraining: the denoiser with two conditioners, on captions and tokens; then their sketches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from recon.config import PretrainConfig
from recon.generation.loop import run_stage
from recon.pretraining import miniature
from recon.pretraining.pictures import Pool
from recon.pretraining.sketching import Teacher
from recon.pretraining.tokens import (
    SHARES,
    SKETCHES,
    build_sketch,
    condition,
    encode_captions,
    encode_pool,
    goal,
    sample_latents,
    tokens_of,
)


def train_unet(config: PretrainConfig, pool: Pool, folder: Path) -> None:
    """UNet and conditioners together; the moving averages are what is kept."""
    from recon.pretraining.parts import finish, load_text, load_vae, stage_of

    out = Path(config.out)
    vae, factor = load_vae(out)
    latents = encode_pool(vae, pool, folder / "latents.npy", miniature.IMAGE_SIZE)
    text_encoder, tokenizer = load_text(out, pool)
    prompts = encode_captions(text_encoder, tokenizer, pool)
    torch.manual_seed(config.seed + 3)
    unet = miniature.build_unet()
    adapters = {name: tokens_of(name, config, pool, unet) for name in SHARES if name}
    unet.to(config.device)
    for tokens in adapters.values():
        tokens.conditioner.to(config.device)
    scheduler = miniature.build_scheduler()
    names, shares = list(SHARES), list(SHARES.values())

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        name = names[rng.choice(len(names), p=shares)]
        rows = _rows(name, rng, config.unet.batch_size, pool)
        clean = sample_latents(latents[rows], generator) * factor
        noise = torch.randn(clean.shape, generator=generator)
        t = torch.randint(scheduler.config.num_train_timesteps, (len(rows),), generator=generator)
        noisy = scheduler.add_noise(clean, noise, t)
        wanted = goal(scheduler, clean, noise, t)
        silent = torch.rand(len(rows), generator=generator) < (0.85 if name else 0.1)
        text = torch.where(silent[:, None, None], prompts["empty"], prompts["rows"][rows]).float()
        noisy, t, wanted, text = (x.to(config.device) for x in (noisy, t, wanted, text))
        if not name:
            value = F.mse_loss(unet(noisy, t, encoder_hidden_states=text).sample.float(), wanted)
            return value, {"loss_text": float(value.detach())}
        given = condition(adapters[name], rows, generator)
        value = F.mse_loss(adapters[name].conditioner.denoise(unet, noisy, t, text, given).float(), wanted)
        return value, {f"loss_{name}": float(value.detach())}

    modules: dict[str, nn.Module] = {"unet": unet}
    modules |= {name: tokens.conditioner for name, tokens in adapters.items()}
    finish(folder, run_stage(stage_of(config, "unet", modules=modules, loss=loss, folder=folder, ema_decay=0.999)))


def train_sketches(config: PretrainConfig, pool: Pool, folder: Path) -> None:
    """A sketch for each conditioner, by turns; the moving averages are what is kept."""
    from recon.pretraining.parts import finish, images_at, load_vae, perceptual_distance, stage_of

    out = Path(config.out)
    vae, factor = load_vae(out)
    moments = encode_pool(vae, pool, out / "unet" / "latents.npy", miniature.IMAGE_SIZE)
    perceptual = perceptual_distance(config.squeezenet_weights, config.device)
    teacher = Teacher(vae.to(config.device), factor, moments, perceptual)
    torch.manual_seed(config.seed + 4)
    sources = {name: tokens_of(name, config, pool, miniature.build_unet()) for name in SKETCHES}
    sketches = {name: build_sketch(name, source) for name, source in sources.items()}
    for name, source in sources.items():
        source.conditioner.to(config.device)
        sketches[name].to(config.device)
    names, shares = list(SKETCHES), [share for _, _, share in SKETCHES.values()]

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        name = names[rng.choice(len(names), p=shares)]
        rows = _rows(name, rng, config.sketch.batch_size, pool)
        value, parts = teacher.loss(sketches[name], sources[name], rows, images_at(pool, rows))
        return value, {f"{part}_{name}": number for part, number in parts.items()}

    modules: dict[str, nn.Module] = dict(sketches)
    finish(folder, run_stage(stage_of(config, "sketch", modules=modules, loss=loss, folder=folder, ema_decay=0.995)))


def _rows(name: str, rng: np.random.Generator, n: int, pool: Pool) -> np.ndarray:
    if name == "squeezenet":
        return rng.integers(pool.n_rendered, len(pool.images), n)
    return pool.sample(rng, n, 0.15)
