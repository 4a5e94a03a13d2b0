"""The last stages of pretraining: sketches of two conditioners; then the denoiser with both, on captions and tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from recon.config import PretrainConfig
from recon.generation.latents import LatentScale
from recon.generation.loop import run_stage
from recon.pretraining import miniature
from recon.pretraining.pictures import Pool
from recon.pretraining.sketching import Teacher
from recon.pretraining.tokens import (
    SHARES,
    SKETCHES,
    build_sketch,
    corrupted,
    dropped,
    encode_captions,
    encode_pool,
    goal,
    noised,
    sample_latents,
    tokens_of,
)


def train_unet(config: PretrainConfig, pool: Pool, folder: Path) -> None:
    """UNet and conditioners together, with the finished sketches; the moving averages are what is kept."""
    from recon.pretraining.parts import finish, load_text, load_vae, restore, stage_of

    out = Path(config.out)
    vae, factor = load_vae(out)
    latents = encode_pool(vae, pool, out / "latents.npy", miniature.IMAGE_SIZE, precision=config.precision)
    text_encoder, tokenizer = load_text(out, pool)
    prompts = encode_captions(text_encoder, tokenizer, pool)
    torch.manual_seed(config.seed + 3)
    unet = miniature.build_unet()
    adapters = {name: tokens_of(name, config, pool, unet) for name in config.conditioners}
    unet.to(config.device)
    sketches: dict[str, nn.Module] = {}
    for name, tokens in adapters.items():
        tokens.conditioner.to(config.device)
        sketches[name] = restore(out / "sketch", name, build_sketch(name, tokens)).to(config.device)
    scheduler = miniature.build_scheduler()
    names = [*config.conditioners, ""]
    shares = np.array([SHARES[name] for name in names]) / sum(SHARES[name] for name in names)

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        name = names[rng.choice(len(names), p=shares)]
        rows = pool.sample(rng, config.unet.batch_size, config.pictures.share_photographs)
        clean = sample_latents(latents[rows], generator) * factor
        noise = torch.randn(clean.shape, generator=generator)
        t = torch.randint(scheduler.config.num_train_timesteps, (len(rows),), generator=generator)
        noisy = noised(scheduler, clean, noise, t)
        wanted = goal(scheduler, clean, noise, t)
        silent = torch.rand(len(rows), generator=generator) < (0.85 if name else 0.1)
        text = torch.where(silent[:, None, None], prompts["empty"], prompts["rows"][rows]).float()
        noisy, t, wanted, text = (x.to(config.device) for x in (noisy, t, wanted, text))
        if not name:
            told = unet(torch.cat([noisy, torch.zeros_like(noisy)], dim=1), t, encoder_hidden_states=text).sample
        else:
            given = corrupted(adapters[name], rows, generator)
            with torch.no_grad():  # unscaled, as the stock pipeline that reads such a UNet feeds it
                hint = sketches[name](given).float() / factor
            given, hint = dropped(given, hint, generator)
            told = adapters[name].conditioner.denoise(unet, torch.cat([noisy, hint], dim=1), t, text, given)
        value = F.mse_loss(told.float(), wanted)
        return value, {f"loss_{name or 'text'}": float(value.detach())}

    modules: dict[str, nn.Module] = {"unet": unet}
    modules |= {name: tokens.conditioner for name, tokens in adapters.items()}
    stage = stage_of(config, "unet", modules=modules, loss=loss, folder=folder, ema_decay=0.999)
    with sdpa_kernel(SDPBackend.MATH):  # a step on a CPU takes a sixth less: the fused kernel's backward pass is slow
        finish(folder, run_stage(stage))


def train_sketches(config: PretrainConfig, pool: Pool, folder: Path) -> None:
    """A sketch for each conditioner, by turns; the moving averages are what is kept."""
    from recon.pretraining.parts import finish, images_at, load_vae, perceptual_distance, stage_of

    out = Path(config.out)
    vae, factor = load_vae(out)
    moments = encode_pool(vae, pool, out / "latents.npy", miniature.IMAGE_SIZE, precision=config.precision)
    perceptual = perceptual_distance(config.squeezenet_weights, config.device)
    teacher = Teacher(vae.to(config.device), LatentScale(factor), moments, perceptual)
    torch.manual_seed(config.seed + 4)
    sources = {name: tokens_of(name, config, pool, miniature.build_unet()) for name in config.conditioners}
    sketches = {name: build_sketch(name, source) for name, source in sources.items()}
    for name, source in sources.items():
        source.conditioner.to(config.device)
        sketches[name].to(config.device)
    names = list(config.conditioners)
    shares = np.array([SKETCHES[name][2] for name in names]) / sum(SKETCHES[name][2] for name in names)

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        name = names[rng.choice(len(names), p=shares)]
        rows = pool.sample(rng, config.sketch.batch_size, config.pictures.share_photographs)
        given = corrupted(sources[name], rows, generator)
        few = rng.permutation(len(rows))[: max(1, len(rows) // 8)]  # decoding costs most, so it is done for a few
        value, parts = teacher.loss(sketches[name], given, rows, few, images_at(pool, rows[few]))
        return value, {f"{part}_{name}": number for part, number in parts.items()}

    modules: dict[str, nn.Module] = dict(sketches)
    finish(folder, run_stage(stage_of(config, "sketch", modules=modules, loss=loss, folder=folder, ema_decay=0.997)))
