"""Picture metrics: reconstructions and targets, float (n, 3, H, W) in [0, 1], to one value per stimulus.

Protocol of MindEye2's ``final_evaluations``: both pictures enter at 256 x 256. Every resize is bilinear *without*
antialiasing, the behaviour of tensors in the torchvision 0.16 those tables were made with (today's default differs).
A correlation with a flat picture is 0 by definition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from recon.evaluation.identification import correlation_distance, two_way

if TYPE_CHECKING:
    import torch

    from recon.evaluation.feature_nets import FeatureNets

ENTRY_SIZE = 256  # px, of every picture before every metric
PIXEL_SIZE = 425  # px, PixCorr and SSIM
ANTIALIAS = False
_GRAY = (0.2125, 0.7154, 0.0721)  # skimage.color.rgb2gray
_CHUNK = 2  # pictures at 425 px held at once; larger temporaries cost more page faults than they save


@dataclass(frozen=True)
class Metric:
    """A callable ``(recons, targets, nets) -> (n,)``; ``network`` names what it needs from `FeatureNets`."""

    better: Literal["higher", "lower"]
    protocol: str
    compute: Callable[[torch.Tensor, torch.Tensor, FeatureNets | None], np.ndarray]
    network: str | None = None

    def __call__(self, recons: torch.Tensor, targets: torch.Tensor, nets: FeatureNets | None = None) -> np.ndarray:
        """Per-stimulus values, float64 (n,)."""
        if len(recons) != len(targets):
            raise ValueError(f"{len(recons)} reconstructions for {len(targets)} targets")
        return np.asarray(self.compute(recons, targets, nets), dtype=np.float64)


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """Bilinear resize of (n, 3, H, W) to (n, 3, size, size), no antialiasing."""
    from torch.nn.functional import interpolate

    if images.shape[-2:] == (size, size):
        return images.float()
    return interpolate(images.float(), size=(size, size), mode="bilinear", align_corners=False, antialias=ANTIALIAS)


def enter(images: torch.Tensor) -> torch.Tensor:
    """The 256 x 256 bottleneck through which every picture enters every metric."""
    return resize(images, ENTRY_SIZE)


def pix_corr(recons: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    """Pearson r over all RGB values at 425 x 425 of each pair, (n,)."""
    import torch

    values = []
    for recon, target in _pairs(recons, targets):
        a, b = recon.flatten(1).double(), target.flatten(1).double()
        a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
        scale = a.norm(dim=1) * b.norm(dim=1)
        flat = (a.abs().amax(1) < 1e-6) | (b.abs().amax(1) < 1e-6)
        values.append(torch.where(flat, 0.0, (a * b).sum(1) / scale.clamp_min(1e-30)))
    return torch.cat(values).numpy()


def ssim(recons: torch.Tensor, targets: torch.Tensor, *, legacy_columnwise: bool = False) -> np.ndarray:
    """Structural similarity of each pair at 425 x 425 in gray, (n,).

    Gaussian weights of sigma 1.5 over 11 x 11 px, population covariance, data range 1, mean over whole windows: what
    scikit-image >= 0.20 computes for 2-D pictures. ``legacy_columnwise`` gives the mean of 1-D SSIMs of the image
    columns, which scikit-image <= 0.19 made of ``multichannel=True`` (Brain-Diffuser's numbers; .08 to .11 higher).
    """
    import torch

    values = []
    gray = torch.tensor(_GRAY).reshape(1, 3, 1, 1)
    for recon, target in _pairs(recons, targets):
        a, b = ((image * gray).sum(1, keepdim=True) for image in (recon, target))
        moments = [_blur(x, legacy_columnwise) for x in (a, b, a * a, b * b, a * b)]
        mean_a, mean_b, aa, bb, ab = moments
        c1, c2 = 0.01**2, 0.03**2
        top = (2 * mean_a * mean_b + c1) * (2 * (ab - mean_a * mean_b) + c2)
        bottom = (mean_a**2 + mean_b**2 + c1) * (aa - mean_a**2 + bb - mean_b**2 + c2)
        values.append((top / bottom).double().mean(dim=(1, 2, 3)))
    return torch.cat(values).numpy()


def _blur(x: torch.Tensor, columns_only: bool) -> torch.Tensor:
    import torch
    from torch.nn.functional import conv2d

    offsets = torch.arange(-5, 6, dtype=torch.float32)  # truncated at 3.5 sigma
    kernel = torch.exp(-(offsets**2) / (2 * 1.5**2))
    kernel = kernel / kernel.sum()
    x = conv2d(x, kernel.reshape(1, 1, 11, 1))
    return x if columns_only else conv2d(x, kernel.reshape(1, 1, 1, 11))


def _pairs(recons: torch.Tensor, targets: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for start in range(0, len(recons), _CHUNK):
        rows = slice(start, start + _CHUNK)
        yield resize(enter(recons[rows]), PIXEL_SIZE), resize(enter(targets[rows]), PIXEL_SIZE)


def _feature_metric(
    network: str, compare: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Callable[[torch.Tensor, torch.Tensor, FeatureNets | None], np.ndarray]:
    def compute(recons: torch.Tensor, targets: torch.Tensor, nets: FeatureNets | None) -> np.ndarray:
        if nets is None:
            raise ValueError(f"this metric needs the network {network!r}; pass nets=FeatureNets(...)")
        return compare(nets.features(network, recons), nets.features(network, targets))

    return compute


def _lpips_metric(network: str) -> Callable[[torch.Tensor, torch.Tensor, FeatureNets | None], np.ndarray]:
    def compute(recons: torch.Tensor, targets: torch.Tensor, nets: FeatureNets | None) -> np.ndarray:
        if nets is None:
            raise ValueError(f"this metric needs the network {network!r}; pass nets=FeatureNets(...)")
        return nets.lpips(network, recons, targets)

    return compute


def _two_way(network: str, protocol: str) -> Metric:
    return Metric("higher", protocol + ", two-way", _feature_metric(network, two_way), network)


def _distance(network: str, protocol: str) -> Metric:
    return Metric("lower", protocol + ", correlation distance", _feature_metric(network, correlation_distance), network)


METRICS: dict[str, Metric] = {
    "PixCorr": Metric("higher", "RGB, 425 px", lambda recons, targets, nets: pix_corr(recons, targets)),
    "SSIM": Metric(
        "higher", "gray, 425 px, 2-D Gaussian sigma 1.5", lambda recons, targets, nets: ssim(recons, targets)
    ),
    "LPIPS": Metric("lower", "v0.1, alex trunk, 256 px", _lpips_metric("lpips_alex"), "lpips_alex"),
    "LPIPS(squeeze)": Metric("lower", "v0.1, squeeze trunk, 256 px", _lpips_metric("lpips_squeeze"), "lpips_squeeze"),
    "AlexNet(2)": _two_way("alexnet_2", "AlexNet features.4, 256 px"),
    "AlexNet(5)": _two_way("alexnet_5", "AlexNet features.11, 256 px"),
    "Inception": _two_way("inception", "Inception v3 avgpool, 342 px"),
    "CLIP": _two_way("clip", "CLIP ViT-L/14 projected, 224 px"),
    "EffNet": _distance("effnet", "EfficientNet-B1 avgpool, 255 px"),
    "SwAV": _distance("swav", "SwAV ResNet-50 avgpool, 224 px"),
}
