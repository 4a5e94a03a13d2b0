"""Finished parts of pretraining to one folder that stock diffusers and transformers load, half precision on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from align.files import atomic_folder, read_json, save_tensors, write_atomic, write_json
from recon.config import PretrainConfig
from recon.generation.conditioner import ConditionerInfo, save_conditioner
from recon.metrics.reader import AttributeReader, save_reader
from recon.pretraining import miniature
from recon.pretraining.parts import assets_folder
from recon.pretraining.pictures import Pool

# With both guidances equal, the pipeline compares "tokens and sketch" with "neither", as `Generator` does.
EXAMPLE = {"num_inference_steps": 12, "guidance_scale": 2.5, "image_guidance_scale": 2.5}


def export_towers(config: PretrainConfig, pool: Pool) -> None:
    """``image_encoder/``, ``tokenizer/``, the projection that pairs ``text_encoder/`` with the image encoder.

    The image encoder is the `mini` backbone. The one that ships lies in ``align/vision/mini``, not in the assets.
    """
    from recon.pretraining.parts import MEAN, STD, load_text, restore

    assets = assets_folder(config)
    clip = Path(config.out) / "clip"
    image_encoder = restore(clip, "image_encoder", miniature.build_image_encoder())
    save_half(image_encoder, assets / "image_encoder")
    write_json(
        assets / "image_encoder" / "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": True,
            "size": {"height": miniature.IMAGE_SIZE, "width": miniature.IMAGE_SIZE},
            "do_center_crop": False,
            "do_normalize": True,
            "image_mean": [MEAN] * 3,
            "image_std": [STD] * 3,
            "resample": 2,
        },
    )
    text, tokenizer = load_text(Path(config.out), pool)
    projection = text.get_submodule("text_projection").weight
    save_tensors(assets / "text_projection.safetensors", {"weight": projection.half()})
    tokenizer.save_pretrained(assets / "tokenizer")  # type: ignore[attr-defined]


def export_reader(config: PretrainConfig, pool: Pool) -> None:
    """``reader/``: the attribute reader."""
    from recon.pretraining.parts import restore

    reader = restore(Path(config.out) / "reader", "reader", AttributeReader())
    assert isinstance(reader, AttributeReader)
    save_reader(reader, assets_folder(config) / "reader")


def export_generator(config: PretrainConfig, pool: Pool) -> None:
    """The Stable Diffusion folder around the towers, and ``conditioners/``."""
    from transformers import CLIPTextModel

    from recon.pretraining.parts import load_text, load_vae, restore
    from recon.pretraining.tokens import build_sketch, tokens_of

    assets, out = assets_folder(config), Path(config.out)
    unet = miniature.build_unet()
    sources = {name: tokens_of(name, config, pool, unet) for name in config.conditioners}
    for name, source in sources.items():
        conditioner = source.conditioner
        restore(out / "unet", name, conditioner)
        sketch = build_sketch(name, sources[name])
        restore(out / "sketch", name, sketch)
        save_conditioner(conditioner, assets / "conditioners" / _file_of(conditioner.info), sketch=sketch)
    save_half(restore(out / "unet", "unet", unet), assets / "unet")
    vae, factor = load_vae(out)
    vae.register_to_config(scaling_factor=factor)  # type: ignore[operator]
    save_half(vae, assets / "vae")
    text, _ = load_text(out, pool)
    encoder = CLIPTextModel(text.config)
    shared = {key: value for key, value in text.state_dict().items() if not key.startswith("text_projection")}
    encoder.load_state_dict({key.removeprefix(_prefix(encoder, text)): value for key, value in shared.items()})
    save_half(encoder, assets / "text_encoder")
    miniature.build_scheduler().save_pretrained(assets / "scheduler")
    write_json(assets / "model_index.json", _index())
    example = sources[min(sources)].conditioner.info
    export_example(assets, assets / "conditioners" / _file_of(example), pool)


def export_example(assets: Path, conditioner: Path, pool: Pool) -> None:
    """``example.safetensors`` and ``example.png``: input and output of the stock pipeline, for a rendered picture.

    ``image`` (1, 3, 64, 64) in [0, 1]: the sketch. ``ip_adapter_image_embeds`` (3, 1, N, D + 16): tokens of the
    picture, then twice those of no picture, as the pipeline's guidance reads them.
    """
    import torch

    from align.config import BackboneConfig
    from align.files import atomic_path
    from align.vision.backbones import load_backbone
    from recon.generation.conditioner import null_embeds, read_info, with_positions
    from recon.generation.pipeline import Generator

    info = read_info(conditioner)
    weights = {"mini": str(assets / "image_encoder")}
    backbone = load_backbone(BackboneConfig(info.backbone, weights.get(info.backbone)))
    image = torch.from_numpy(pool.images[0].copy()).permute(2, 0, 1)[None].float() / 255
    tokens = backbone.tokens(image, [info.layer], info.pooling)[info.layer]
    none = null_embeds(conditioner)
    embeds = torch.stack([with_positions(tokens), none, none])
    sketch = Generator.load(str(assets), conditioner).sketched(tokens)
    assert sketch is not None  # every conditioner that is exported has one
    save_tensors(assets / "example.safetensors", {"image": sketch, "ip_adapter_image_embeds": embeds})
    pipe = stock_pipeline(assets)
    pipe.load_ip_adapter(
        str(assets),
        subfolder="conditioners",
        weight_name=conditioner.name,
        image_encoder_folder=None,
        local_files_only=True,
    )
    generator = torch.Generator().manual_seed(0)
    picture = pipe("", image=sketch, ip_adapter_image_embeds=[embeds], **EXAMPLE, generator=generator).images[0]
    with atomic_path(assets / "example.png") as temporary:
        picture.save(temporary)


def stock_pipeline(folder: Path) -> Any:
    """The stock pipeline in ``folder``, which hands ``ip_adapter_image_embeds`` on to its UNet: that of diffusers
    0.42.1 reads them and then leaves them out."""
    from diffusers import StableDiffusionInstructPix2PixPipeline

    class WithTokens(StableDiffusionInstructPix2PixPipeline):
        def __call__(self, *args: Any, ip_adapter_image_embeds: list[Any], **options: Any) -> Any:
            plain, added = self.unet.forward, {"image_embeds": ip_adapter_image_embeds}
            self.unet.forward = lambda *a, **k: plain(*a, **{**k, "added_cond_kwargs": added})
            try:
                return super().__call__(*args, **options)
            finally:
                self.unet.forward = plain

    return WithTokens.from_pretrained(folder, local_files_only=True)


def save_half(model: nn.Module, folder: Path) -> None:
    """``save_pretrained`` with half-precision weights and a configuration that asks for float32 when loading."""
    import copy

    with atomic_folder(folder, replaces=_is_model) as new:
        copy.deepcopy(model).half().save_pretrained(new)  # type: ignore[operator]
        path = new / "config.json"
        facts = read_json(path)
        if "dtype" in facts or "torch_dtype" in facts:
            facts.pop("torch_dtype", None)
            write_atomic(path, json.dumps(facts | {"dtype": "float32"}, indent=2) + "\n")


def _is_model(folder: Path) -> bool:
    """Whether a folder holds what `save_half` writes, and nothing else."""
    return all(path.is_file() and path.suffix in (".json", ".safetensors") for path in folder.iterdir())


def _file_of(info: ConditionerInfo) -> str:
    """Name of a conditioner's file."""
    return f"{info.backbone.replace('/', '_')}_{info.layer}.safetensors"


def _prefix(encoder: nn.Module, tower: nn.Module) -> str:
    """What the tower's keys carry in front of the plain encoder's (depends on the version of transformers)."""
    first = next(iter(encoder.state_dict()))
    match = next(key for key in tower.state_dict() if key.endswith(first))
    return match[: -len(first)]


def _index() -> dict[str, object]:
    return {
        "_class_name": "StableDiffusionInstructPix2PixPipeline",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
