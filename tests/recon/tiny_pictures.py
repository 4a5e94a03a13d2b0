"""Small synthetic pictures, folders of them, and random weights of real networks, for the tests of the evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image


def smooth(n: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """Smooth random pictures, uint8 (n, size, size, 3), no two alike."""
    coarse = torch.rand(n, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)
    return np.ascontiguousarray(np.round(fine.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8))


def noisy(pictures: np.ndarray, amount: float, seed: int = 0) -> np.ndarray:
    """uint8 pictures with noise of standard deviation ``amount`` (of 1) added."""
    noise = np.random.default_rng(seed).normal(size=pictures.shape) * amount * 255
    return np.clip(np.round(pictures + noise), 0, 255).astype(np.uint8)


def write_folder(folder: Path, pictures: Mapping[str, np.ndarray]) -> Path:
    """Write file name to uint8 (H, W, 3) below ``folder``."""
    for name, pixels in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    return folder


def seed_weights(model: torch.nn.Module, seed: int = 0) -> None:
    """Random weights, exact in half precision, that keep activations alive; batch norms are left as identities."""
    draw = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if value.ndim > 1:
            value.copy_((torch.randn(value.shape, generator=draw) * (2 / value[0].numel()) ** 0.5).half())
        else:
            value.fill_(1 if name.endswith("running_var") or _is_scale(model, name) else 0)


def _is_scale(model: torch.nn.Module, name: str) -> bool:
    """Whether a vector is the weight of a batch norm."""
    owner, _, kind = name.rpartition(".")
    return kind == "weight" and isinstance(model.get_submodule(owner), torch.nn.BatchNorm2d)


def squeezenet_folder(folder: Path) -> Path:
    """A folder with randomly initialised weights of SqueezeNet 1.1, the smallest real network."""
    import torchvision

    model = torchvision.models.squeezenet1_1()
    seed_weights(model)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / "squeezenet1_1.pth")
    return folder
