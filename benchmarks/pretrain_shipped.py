"""The generator that ships becomes a run of `recon pretrain` again, whose UNet can be trained on.

    python benchmarks/pretrain_shipped.py --config configs/recon/mini.yaml out=RUN 'pictures.photographs=[A.zip]' ...
    recon pretrain --config configs/recon/mini.yaml out=RUN start_from=RUN/start 'stages=[unet]' ...

What ships is half precision and has its tokens' standardisation folded into the first maps; both are undone here.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import torch
from transformers import CLIPTokenizer

from align.config import add_config_option, load_config
from align.files import read_tensors, save_tensors, write_json
from align.vision import mini_weights
from recon.config import PretrainConfig
from recon.generation.conditioner import Conditioner
from recon.generation.pipeline import find_conditioner
from recon.generation.places import mini_folder
from recon.generation.sketch import PREFIX
from recon.pretraining import miniature
from recon.pretraining.export import export_towers
from recon.pretraining.parts import DONE
from recon.pretraining.pictures import load_pool
from recon.pretraining.tokens import tokens_of


def main() -> None:
    """Write the finished stages, and the tokens of the pictures that the configuration names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_option(parser)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = load_config(PretrainConfig, options.config, options.overrides)
    run, assets = Path(config.out), mini_folder()
    tensors = _tensors(mini_weights() / "model.safetensors", "image_encoder")
    tensors |= _tensors(assets / "text_encoder" / "model.safetensors", "text_encoder")
    tensors["text_encoder/text_projection.weight"] = read_tensors(assets / "text_projection.safetensors")[0]["weight"]
    vae = _tensors(assets / "vae" / "diffusion_pytorch_model.safetensors", "vae")
    factor = json.loads((assets / "vae" / "config.json").read_text(encoding="utf-8"))["scaling_factor"]
    tokenizer = CLIPTokenizer.from_pretrained(assets / "tokenizer", local_files_only=True)
    vocab, merges = miniature.tables_of(tokenizer)
    write_json(run / "clip" / "tokenizer.json", {"vocab": vocab, "merges": merges})
    _finished(run / "clip", _named(tensors, "text_encoder", miniature.build_text_encoder(tokenizer)))
    _finished(run / "vae", {**vae, "scaling_factor": torch.tensor(factor)})
    pool = load_pool(config.pictures, run)
    export_towers(config, pool)
    sketches: dict[str, torch.Tensor] = {}
    start = _tensors(assets / "unet" / "diffusion_pytorch_model.safetensors", "unet")
    for name in config.conditioners:
        adapter = tokens_of(name, config, pool, miniature.build_unet()).conditioner
        file = find_conditioner(adapter.info.backbone, adapter.info.layer, adapter.info.pooling, Path.cwd())
        stored = {key: value.float() for key, value in read_tensors(file)[0].items()}
        sketches |= {f"{name}/{key}": value for key, value in unfolded_sketch(stored, adapter).items()}
        start |= {f"{name}/{key}": value for key, value in unfolded_adapter(stored, adapter).items()}
    _finished(run / "sketch", sketches)
    _finished(run / "start" / "unet", start)


def unfolded_sketch(stored: dict[str, torch.Tensor], adapter: Conditioner) -> dict[str, torch.Tensor]:
    """Tensors of a conditioner's file to those of its sketch, which reads standardised tokens."""
    own = {key.removeprefix(PREFIX): value for key, value in stored.items() if key.startswith(PREFIX)}
    weight, bias = _unfolded(own["enter.weight"], own["enter.bias"], adapter)
    return own | {"enter.weight": weight, "enter.bias": bias}


def unfolded_adapter(stored: dict[str, torch.Tensor], adapter: Conditioner) -> dict[str, torch.Tensor]:
    """Tensors of a conditioner's file to the state of the module that reads standardised tokens."""
    own = dict(adapter.state_dict())
    for public, name in (("proj.0", "ff.net.0.proj"), ("proj.2", "ff.net.2"), ("proj.3", "norm")):
        for part in ("weight", "bias"):
            own[f"image_proj.{name}.{part}"] = stored[f"image_proj.{public}.{part}"]
    first = "image_proj.ff.net.0.proj"
    width = adapter.info.width
    weight, bias = _unfolded(own[f"{first}.weight"][:, :width], own[f"{first}.bias"], adapter)
    own[f"{first}.weight"], own[f"{first}.bias"] = torch.cat([weight, own[f"{first}.weight"][:, width:]], 1), bias
    for index in range(len(adapter.ip_adapter)):
        for part in ("k", "v"):
            own[f"ip_adapter.{index}.to_{part}_ip.0.weight"] = stored[f"ip_adapter.{2 * index + 1}.to_{part}_ip.weight"]
    return own


def _unfolded(weight: torch.Tensor, bias: torch.Tensor, adapter: Conditioner) -> tuple[torch.Tensor, torch.Tensor]:
    mean, std = adapter.get_buffer("mean"), adapter.get_buffer("std")
    return weight * std, bias + weight @ mean


def _tensors(path: Path, name: str) -> dict[str, torch.Tensor]:
    return {f"{name}/{key}": value.float() for key, value in read_tensors(path)[0].items()}


def _named(tensors: dict[str, torch.Tensor], name: str, tower: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Keys of the plain encoder to those of its tower, whose prefix depends on the version of transformers."""
    full = {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}
    others = {key: value for key, value in tensors.items() if not key.startswith(f"{name}/")}
    for own in tower.state_dict():
        match = next(key for key in full if own == key or own.endswith(f".{key}") or key.endswith(f".{own}"))
        others[f"{name}/{own}"] = full[match].float()
    return others


def _finished(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_tensors(folder / DONE, {key: value.contiguous() for key, value in tensors.items()})


if __name__ == "__main__":
    main()
