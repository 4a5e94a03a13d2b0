"""Picture metrics: reconstructions and targets, float (n, 3, H, W) in [0, 1], to one value per stimulus.

Protocol of MindEye2's ``final_evaluations``: both pictures enter at 256 x 256. Every resize is bilinear *without*
antialiasing, the behaviour of tensors in the torchvision 0.16 those tables were made with (today's default differs).
A correlation with a flat picture is 0 by definition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from align.files import launched
from recon.metrics.identification import correlation_distance, two_way
from recon.metrics.pixels import (
    ENTRY_SIZE,
    correlation,
    enlarged_correlation,
    enter,
    gray,
    resize,
    structural_similarity,
)

if TYPE_CHECKING:
    import torch

    from recon.metrics.feature_nets import FeatureNets

PIXEL_SIZE = 425  # px, PixCorr and SSIM
_CHUNK = 4  # pictures at 425 px held at once; larger temporaries cost more page faults than they save


@dataclass(frozen=True)
class Metric:
    """A callable ``(recons, targets, nets) -> (n,)``; ``network`` names what it needs from `FeatureNets`.

    ``kind``: what is done with the pictures, for those who compute in their own way (`set_scores`).
    """

    better: Literal["higher", "lower"]
    protocol: str
    compute: Callable[[torch.Tensor, torch.Tensor, FeatureNets | None], np.ndarray]
    network: str | None = None
    kind: Literal["pixels", "lpips", "two_way", "distance"] = "pixels"

    def __call__(self, recons: torch.Tensor, targets: torch.Tensor, nets: FeatureNets | None = None) -> np.ndarray:
        """Per-stimulus values, float64 (n,)."""
        if len(recons) != len(targets):
            raise ValueError(f"{len(recons)} reconstructions for {len(targets)} targets")
        return np.asarray(self.compute(recons, targets, nets), dtype=np.float64)


def pix_corr(recons: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    """Pearson r over all RGB values at 425 x 425 of each pair, (n,)."""
    values = []
    for start in launched.own_share(range(0, len(recons), _CHUNK)):
        a, b = (enter(images[start : start + _CHUNK]) for images in (recons, targets))
        if PIXEL_SIZE >= ENTRY_SIZE:
            values.append(enlarged_correlation(a, b, PIXEL_SIZE))
        else:
            values.append(correlation(resize(a, PIXEL_SIZE), resize(b, PIXEL_SIZE)))
    return launched.of_all(np.concatenate(values) if values else None)


def ssim(recons: torch.Tensor, targets: torch.Tensor, *, legacy_columnwise: bool = False) -> np.ndarray:
    """Structural similarity of each pair at 425 x 425 in gray, (n,); see `pixels.structural_similarity`."""
    values = []
    for start in launched.own_share(range(0, len(recons), _CHUNK)):
        a, b = (resize(gray(enter(images[start : start + _CHUNK])), PIXEL_SIZE) for images in (recons, targets))
        values.append(structural_similarity(a, b, columnwise=legacy_columnwise))
    return launched.of_all(np.concatenate(values) if values else None)


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
    return Metric("higher", protocol + ", two-way", _feature_metric(network, two_way), network, "two_way")


def _distance(network: str, protocol: str) -> Metric:
    compare = _feature_metric(network, correlation_distance)
    return Metric("lower", protocol + ", correlation distance", compare, network, "distance")


def _lpips(trunk: str) -> Metric:
    network = f"lpips_{trunk}"
    return Metric("lower", f"v0.1, {trunk} trunk, 256 px", _lpips_metric(network), network, "lpips")


METRICS: dict[str, Metric] = {
    "PixCorr": Metric("higher", "RGB, 425 px", lambda recons, targets, nets: pix_corr(recons, targets)),
    "SSIM": Metric(
        "higher", "gray, 425 px, 2-D Gaussian sigma 1.5", lambda recons, targets, nets: ssim(recons, targets)
    ),
    "LPIPS": _lpips("alex"),
    "LPIPS(squeeze)": _lpips("squeeze"),
    "LPIPS(vgg)": _lpips("vgg"),
    "AlexNet(2)": _two_way("alexnet_2", "AlexNet features.4, 256 px"),
    "AlexNet(5)": _two_way("alexnet_5", "AlexNet features.11, 256 px"),
    "Inception": _two_way("inception", "Inception v3 avgpool, 342 px"),
    "CLIP": _two_way("clip", "CLIP ViT-L/14 projected, 224 px"),
    "EffNet": _distance("effnet", "EfficientNet-B1 avgpool, 255 px"),
    "SwAV": _distance("swav", "SwAV ResNet-50 avgpool, 224 px"),
}
# Not in any published table: two families of small networks, whose weights are the easiest to have.
STAND_INS: dict[str, Metric] = {
    "SqueezeNet(1.0)": _two_way("squeezenet1_0", "SqueezeNet 1.0 features.12 averaged, 224 px"),
    "SqueezeNet(1.1)": _two_way("squeezenet1_1", "SqueezeNet 1.1 features.12 averaged, 224 px"),
    **{
        f"EfficientNet-Lite({k})": _two_way(f"efficientnet_lite{k}", f"EfficientNet-Lite{k} bn2 averaged, {size} px")
        for k, size in enumerate((224, 240, 260))
    },
}
