"""What the stages of pretraining share: finished parts on disk, towers, VAE, perceptual distance."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from align.config import BackboneConfig
from align.errors import UserError
from align.files import read_json, read_tensors, save_tensors, write_json
from align.vision.backbones import load_backbone
from recon.config import PretrainConfig
from recon.generation.loop import Stage
from recon.pretraining import miniature
from recon.pretraining.pictures import Pool

log = logging.getLogger(__name__)
DONE = "done.safetensors"
MEAN = STD = 0.5  # of the image encoder's input, all channels


def assets_folder(config: PretrainConfig) -> Path:
    """Where the finished model is written."""
    return Path(config.assets) if config.assets else Path(config.out) / "assets"


def images_at(pool: Pool, rows: np.ndarray) -> torch.Tensor:
    """(B, 3, 64, 64) in [0, 1]."""
    return torch.from_numpy(np.array(pool.images[rows])).permute(0, 3, 1, 2).float() / 255


def stage_of(config: PretrainConfig, name: str, modules: dict[str, nn.Module], **kwargs: object) -> Stage:
    """A `Stage` with the settings every stage shares; its modules start from ``config.start_from``, if given."""
    if config.start_from is not None and (Path(config.start_from) / name).is_dir():
        start_from(Path(config.start_from) / name, modules)
    shared = {"seed": config.seed, "checkpoint_every": config.checkpoint_every, "precision": config.precision}
    return Stage(name=name, modules=modules, config=getattr(config, name), **(shared | kwargs))  # type: ignore[arg-type]


def start_from(folder: Path, modules: dict[str, nn.Module]) -> None:
    """Copy what an earlier `finish` wrote wherever name and shape agree; the rest keeps its random start.

    Raises `UserError` when that stage was not finished or nothing fits.
    """
    if not (folder / DONE).is_file():
        raise UserError(f"start_from: {folder / DONE} is missing; finish that stage first or leave start_from out")
    tensors, _ = read_tensors(folder / DONE)
    own = {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    fits = [key for key in own if key in tensors and tensors[key].shape == own[key].shape]
    if not fits:
        raise UserError(f"start_from: nothing in {folder / DONE} has the names and shapes of this stage")
    with torch.no_grad():
        for key in fits:
            own[key].copy_(tensors[key])
    log.info("%d of %d tensors start from %s", len(fits), len(own), folder)


def finish(folder: Path, parts: dict[str, nn.Module], extra: dict[str, torch.Tensor] | None = None) -> None:
    """Write the trained parts of a stage, float32: ``done.safetensors``."""
    tensors = {f"{name}/{key}": value for name, module in parts.items() for key, value in module.state_dict().items()}
    save_tensors(folder / DONE, {k: v.clone() for k, v in (tensors | (extra or {})).items()})


def restore(folder: Path, name: str, module: nn.Module) -> nn.Module:
    """Load one part that `finish` wrote, strictly; frozen."""
    tensors, _ = read_tensors(folder / DONE)
    own = {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}/")}
    module.load_state_dict(own)
    return module.eval().requires_grad_(False)


def tokenizer_for(pool: Pool, folder: Path) -> Any:
    """The tokenizer of the pool's captions, learned once and stored as JSON beside the clip stage."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        tokenizer = miniature.build_tokenizer([caption for caption in pool.captions if caption])
        vocab, merges = miniature.tables_of(tokenizer)
        write_json(path, {"vocab": vocab, "merges": merges})
    tables = read_json(path)
    return miniature.make_tokenizer(tables["vocab"], [tuple(pair) for pair in tables["merges"]])


def perceptual_distance(weights: str | None, device: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Mean squared difference of channel-normalised SqueezeNet 1.1 features at three depths."""
    model = load_backbone(BackboneConfig("torchvision/squeezenet1_1", weights)).model.to(device)
    net = list(model.get_submodule("features").children())
    mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225], device=device).view(3, 1, 1)

    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        x = (torch.cat([a, b]) / 2 + 0.5 - mean) / std
        total = torch.zeros((), device=device)
        for index, layer in enumerate(net):
            x = layer(x)
            if index in (1, 4, 7):
                first, second = F.normalize(x.float(), dim=1, eps=1e-4).chunk(2)
                total = total + (first - second).square().sum(1).mean()
            if index == 7:
                break
        return total

    return distance


def load_vae(out: Path) -> tuple[nn.Module, float]:
    """The trained VAE, with the decoder of its own stage where there is one, and its scaling factor."""
    vae = restore(out / "vae", "vae", miniature.build_vae())
    if (out / "decoder" / DONE).is_file():
        for name in ("post_quant_conv", "decoder"):
            restore(out / "decoder", name, vae.get_submodule(name))
    return vae, float(read_tensors(out / "vae" / DONE)[0]["scaling_factor"])


def load_text(out: Path, pool: Pool) -> tuple[nn.Module, object]:
    """The trained text tower and its tokenizer."""
    tokenizer = tokenizer_for(pool, out / "clip")
    return restore(out / "clip", "text_encoder", miniature.build_text_encoder(tokenizer)), tokenizer
