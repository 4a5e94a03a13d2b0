"""The attribute reader: a small convnet that names shape, pattern, texture, colour and position of a rendered picture.

It judges the simulated study. It is trained on rendered pictures alone (blurred, noisy and recoloured copies too) and
takes no part in alignment or generation.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from align.data.studies.simulated.rendering import COLOURS, COLUMNS, PATTERNS, ROWS, SHAPES, TEXTURES, Scene
from align.files import read_tensors, save_tensors

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "pattern": PATTERNS,
    "texture": TEXTURES,
    "colour": tuple(COLOURS),
    "position": tuple(f"{row} {column}" for row in ROWS for column in COLUMNS),
}
_FILE = "reader.safetensors"


class AttributeReader(nn.Module):
    """Images (B, 3, 64, 64) in [0, 1] to features (B, 256) and one classifier per attribute."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = (3, width, 2 * width, 4 * width, 4 * width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=1 if i == 0 else 2, padding=1), nn.GroupNorm(8, b), nn.GELU())
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.squeeze = nn.Conv2d(4 * width, width // 2, 1)
        self.hidden = nn.Sequential(nn.Linear(width // 2 * 64, 256), nn.LayerNorm(256), nn.GELU())
        self.heads = nn.ModuleDict({name: nn.Linear(256, len(values)) for name, values in ATTRIBUTES.items()})

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, 64, 64) in [0, 1] to (B, 256)."""
        x = images * 2 - 1
        for block in self.blocks:
            x = block(x)
        return self.hidden(self.squeeze(x).flatten(1))

    def attributes(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Probabilities (B, number of values) per attribute, in the order of `ATTRIBUTES`."""
        features = self.features(images)
        return {name: head(features).softmax(-1) for name, head in self.heads.items()}


def labels_of(scene: Scene) -> list[int]:
    """Class indices of a scene, in the order of `ATTRIBUTES`."""
    return [values.index(getattr(scene, name)) for name, values in ATTRIBUTES.items()]


def reader_loss(reader: AttributeReader, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over the attributes; labels (B, number of attributes)."""
    features = reader.features(images)
    losses = [F.cross_entropy(head(features), labels[:, i]) for i, head in enumerate(reader.heads.values())]
    return torch.stack(losses).mean()


def degrade(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Blurred, noisy, faded copies, as reconstructions are: (B, 3, 64, 64) in [0, 1] to the same."""
    n = len(images)
    small = F.interpolate(images, scale_factor=0.5, mode="area")
    blurred = F.interpolate(small, size=images.shape[-2:], mode="bilinear", align_corners=False)
    weight = torch.rand(n, 1, 1, 1, generator=generator)
    images = weight * images + (1 - weight) * blurred
    noise = torch.randn(images.shape, generator=generator) * 0.08 * torch.rand(n, 1, 1, 1, generator=generator)
    gain = 1 + 0.2 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    return (images * gain + noise).clamp(0, 1)


def save_reader(reader: AttributeReader, folder: str | Path) -> None:
    """Write ``reader.safetensors`` (half precision)."""
    save_tensors(Path(folder) / _FILE, {name: value.half() for name, value in reader.state_dict().items()})


def load_reader(path: str | Path | None = None) -> AttributeReader:
    """The embedded reader, or the one in folder ``path``; frozen, float32."""
    from recon.generation.places import mini_folder

    folder = Path(path) if path else mini_folder() / "reader"
    tensors, _ = read_tensors(folder / _FILE)
    reader = AttributeReader()
    reader.load_state_dict({name: value.float() for name, value in tensors.items()})
    return reader.eval().requires_grad_(False)
