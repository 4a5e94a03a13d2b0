"""A tiny Stable Diffusion of the real classes, in a folder, with a conditioner: what the generation tests run on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel

from recon.generation.conditioner import Conditioner, ConditionerInfo, save_conditioner
from recon.pretraining import miniature

N_TOKENS, WIDTH = 4, 6


def tiny_unet(**options: Any) -> UNet2DConditionModel:
    """Two levels, attention at the first; ``options`` go over what is set here."""
    usual: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**{**usual, **options})


def tiny_text(words: int, **options: Any) -> CLIPTextConfig:
    """One layer of width 16."""
    usual: dict[str, Any] = {
        "vocab_size": words,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": miniature.MAX_TOKENS,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    return CLIPTextConfig(**{**usual, **options})


def tiny_vae(**options: Any) -> AutoencoderKL:
    """16 x 16 x 3 to 8 x 8 x 4."""
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=16,
        **options,
    )


def tiny_conditioner(unet: UNet2DConditionModel, generator: str) -> Conditioner:
    info = ConditionerInfo("mini", "2", "grid:2", N_TOKENS, WIDTH, generator)
    mean, std = torch.linspace(-3, 3, WIDTH), torch.linspace(0.5, 2, WIDTH)
    conditioner = Conditioner(unet, info, mean, std)
    for processor in conditioner.ip_adapter:  # a trained adapter differs from its start
        processor.to_v_ip[0].weight.data.mul_(3).add_(0.3)
    return conditioner


def tiny_generator(folder: Path, reads_sketch: bool = False) -> tuple[Path, Path, UNet2DConditionModel, Conditioner]:
    """Folder in diffusers layout, conditioner file, and the modules behind them. ``reads_sketch``: with the input
    channels, and as the pipeline, that read a second picture."""
    torch.manual_seed(0)
    tokenizer = miniature.build_tokenizer(["a red disk on brick", "a blue star on fur"])
    text, vae = CLIPTextModel(tiny_text(len(tokenizer))), tiny_vae()
    unet = tiny_unet(in_channels=8 if reads_sketch else 4)
    kind = StableDiffusionInstructPix2PixPipeline if reads_sketch else StableDiffusionPipeline
    pipe = kind(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=miniature.build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder)
    conditioner = tiny_conditioner(unet, str(folder))
    path = folder / "conditioner.safetensors"
    save_conditioner(conditioner, path)
    return folder, path, unet, conditioner
