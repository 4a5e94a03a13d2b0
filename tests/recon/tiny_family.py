"""Tiny SD 1.5, SDXL, SDXL-Turbo and LCM of the real classes, and public adapters with their image encoder, in folders.

Adapter files are written name by name in the layout of the public IP-Adapter repository, not by the project's writer.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    T2IAdapter,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from recon.pretraining import miniature
from tests.recon.tiny import tiny_text, tiny_unet, tiny_vae

CROSS = {"sd": 16, "sdxl": 32}
HIDDEN, PROJECTED, DEPTH, SIDE, PATCH = 32, 12, 3, 32, 8  # of the image encoder
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
KINDS: dict[str, dict[str, object]] = {
    "sd": {"family": "sd", "scheduler": PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1)},
    "sd-ddim": {"family": "sd", "scheduler": DDIMScheduler(**BETAS, clip_sample=False, steps_offset=1)},
    "sdxl": {"family": "sdxl", "scheduler": EulerDiscreteScheduler(**BETAS)},
    "turbo": {"family": "sdxl", "scheduler": EulerAncestralDiscreteScheduler(**BETAS, timestep_spacing="trailing")},
    "lcm": {"family": "sd", "scheduler": LCMScheduler(**BETAS), "distilled": True},
}


def build_generator(kind: str, folder: Path) -> Path:
    """A tiny generator of ``kind`` (a key of `KINDS`), 16 px."""
    torch.manual_seed(0)
    facts = KINDS[kind]
    xl = facts["family"] == "sdxl"
    tokenizer = miniature.build_tokenizer(["a red disk on brick", "a blue star on fur"])
    parts = {
        "vae": tiny_vae(force_upcast=xl),
        "text_encoder": _text(len(tokenizer), False),
        "tokenizer": tokenizer,
        "unet": _unet(xl, bool(facts.get("distilled"))),
        "scheduler": facts["scheduler"],
    }
    if xl:
        pipe = StableDiffusionXLPipeline(
            **parts,
            text_encoder_2=_text(len(tokenizer), True),
            tokenizer_2=tokenizer,
            force_zeros_for_empty_prompt=True,
            add_watermarker=False,
        )
    else:
        kind_of = LatentConsistencyModelPipeline if facts.get("distilled") else StableDiffusionPipeline
        pipe = kind_of(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe.save_pretrained(folder)
    return folder


def _unet(xl: bool, distilled: bool) -> UNet2DConditionModel:
    extra = {"time_cond_proj_dim": 8} if distilled else {}
    if xl:
        extra = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 16 + 6 * 4,
            "transformer_layers_per_block": (1, 2),
            "use_linear_projection": True,
        }
    return tiny_unet(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=CROSS["sdxl" if xl else "sd"],
        **extra,
    )


def _text(words: int, projected: bool) -> CLIPTextModel:
    config = tiny_text(words, num_hidden_layers=2, projection_dim=16)
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def build_image_encoder(folder: Path, seed: int = 1) -> Path:
    """A tiny CLIP image encoder with its projection, 16 patches and a CLS token."""
    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=HIDDEN,
        intermediate_size=64,
        projection_dim=PROJECTED,
        num_hidden_layers=DEPTH,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
    )
    model = CLIPVisionModelWithProjection(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    facts = {
        "image_processor_type": "CLIPImageProcessor",
        "crop_size": {"height": SIDE, "width": SIDE},
        "size": {"shortest_edge": SIDE},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "do_center_crop": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    return folder


def build_adapter(kind: str, generator: Path, folder: Path, encoder: Path | None = None) -> Path:
    """``kind`` pooled | plus, for the UNet of ``generator``; ``encoder`` is linked in beside the file."""
    torch.manual_seed(2)
    unet = UNet2DConditionModel.from_pretrained(generator, subfolder="unet")
    cross = unet.config.cross_attention_dim
    projection = _pooled(cross) if kind == "pooled" else _plus(cross)
    tensors = {f"image_proj.{name}": value for name, value in projection.items()}
    names = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for index, name in enumerate(names):
        width = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        for matrix in ("to_k_ip", "to_v_ip"):
            tensors[f"ip_adapter.{2 * index + 1}.{matrix}.weight"] = torch.randn(width, cross) / cross**0.5
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"ip-adapter-{kind}.safetensors"
    save_file(tensors, path)
    if encoder is not None and not (folder / "image_encoder").exists():
        (folder / "image_encoder").symlink_to(encoder)
    return path


def build_controlnet(generator: Path, folder: Path) -> Path:
    """A ControlNet of the UNet of ``generator`` that adds something, which an untrained one does not."""
    torch.manual_seed(3)
    unet = UNet2DConditionModel.from_pretrained(generator, subfolder="unet")
    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16))  # halves the side
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    net.save_pretrained(folder)
    return folder


def build_t2i_adapter(family: str, folder: Path, **options: object) -> Path:
    """A T2I-Adapter for a tiny UNet whose first block has cross-attention ("sd"), or its last ("sdxl")."""
    torch.manual_seed(3)
    usual: dict[str, object] = {"channels": [8, 16], "num_res_blocks": 1, "downscale_factor": 2}
    if family == "sdxl":
        usual |= {"channels": [8, 16, 16, 16], "downscale_factor": 4, "adapter_type": "full_adapter_xl"}
    T2IAdapter(**{**usual, **options}).save_pretrained(folder)
    return folder


def _pooled(cross: int) -> dict[str, torch.Tensor]:
    return {
        "proj.weight": torch.randn(4 * cross, PROJECTED) / PROJECTED**0.5,
        "proj.bias": 0.1 * torch.randn(4 * cross),
        "norm.weight": 1 + 0.1 * torch.randn(cross),
        "norm.bias": 0.1 * torch.randn(cross),
    }


def _plus(cross: int, hidden: int = 64, queries: int = 5) -> dict[str, torch.Tensor]:
    def matrix(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns) / columns**0.5

    def norm(name: str, width: int) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": 1 + 0.1 * torch.randn(width), f"{name}.bias": 0.1 * torch.randn(width)}

    found = {
        "latents": torch.randn(1, queries, hidden),
        "proj_in.weight": matrix(hidden, HIDDEN),
        "proj_in.bias": 0.1 * torch.randn(hidden),
        "proj_out.weight": matrix(cross, hidden),
        "proj_out.bias": 0.1 * torch.randn(cross),
        **norm("norm_out", cross),
    }
    for layer in range(4):
        attention, feedforward = f"layers.{layer}.0", f"layers.{layer}.1"
        found |= (
            norm(f"{attention}.norm1", hidden) | norm(f"{attention}.norm2", hidden) | norm(f"{feedforward}.0", hidden)
        )
        found |= {
            f"{attention}.to_q.weight": matrix(hidden, hidden),
            f"{attention}.to_kv.weight": matrix(2 * hidden, hidden),
            f"{attention}.to_out.weight": matrix(hidden, hidden),
            f"{feedforward}.1.weight": matrix(4 * hidden, hidden),
            f"{feedforward}.3.weight": matrix(hidden, 4 * hidden),
        }
    return found
