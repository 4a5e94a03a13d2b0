"""One judge of pictures: a network that took no part in the run, neither as target nor in any training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from align.errors import UserError
from align.fields.syntax import network_names
from recon.evaluation.settings import JUDGES, EvaluateConfig
from recon.metrics.feature_nets import FeatureNets
from recon.metrics.pixels import enter, resize

if TYPE_CHECKING:
    import torch

READER = "reader"
INDEPENDENT = "timm/tf_efficientnet_lite0"  # its weights come with the extra `weights`
FAMILIES = ("efficientnet", "squeezenet", "alexnet")  # of the judges that are networks of public weights
# Node read: the last feature map, averaged over space (AlexNet: conv5, flattened).
_NETWORKS = {
    "torchvision/squeezenet1_0": "squeezenet1_0",
    "torchvision/squeezenet1_1": "squeezenet1_1",
    "torchvision/alexnet": "alexnet_5",
    "timm/tf_efficientnet_lite0": "efficientnet_lite0",
    "timm/tf_efficientnet_lite1": "efficientnet_lite1",
    "timm/tf_efficientnet_lite2": "efficientnet_lite2",
}
_READER_SIZE = 64  # px
# Networks whose weights shaped the embedded generator: its CLIP pair, and the perceptual loss of its VAE.
USED_BY_GENERATOR = {"mini": ("mini", "torchvision/squeezenet1_1")}


def made_of(backbone: str, generator: str) -> set[str]:
    """The networks that a run is made of: of its backbone, which may join several, and those behind its generator.

    ``generator``: its name as in folders, what follows the first ``_`` aside.
    """
    return {*network_names(backbone), *USED_BY_GENERATOR.get(generator.partition("_")[0], ())}


@dataclass(frozen=True)
class Judge:
    """``features``: pictures (n, 3, H, W) in [0, 1] to (n, F). ``attributes``, the reader's: name to (n, classes)."""

    name: str
    source: str
    features: Callable[[torch.Tensor], np.ndarray]
    attributes: Callable[[torch.Tensor], dict[str, np.ndarray]] | None = None


def judge_name(settings: EvaluateConfig, study: str, used: Iterable[str]) -> str:
    """The judge's name; raises `UserError` when it is unknown or among ``used``, the networks the run is made of.

    Default: the reader for the simulated study; else `INDEPENDENT` where its weights are here and no network of the run
    is of its family, otherwise SqueezeNet 1.0 (also where ``settings.judge_weights`` gives weights without a name).
    """
    settings.check("evaluate.")
    used = set(used)
    name = settings.judge or (READER if study == "simulated" else _default(settings, used))
    if name == READER and study != "simulated":
        raise UserError(f"the judge 'reader' only knows the simulated study, not {study}; pass evaluate.judge=NAME")
    if took_part(name, used):
        free = [judge for judge in JUDGES if not took_part(judge, used) and (judge != READER or study == "simulated")]
        raise UserError(f"judge {name!r} took part in this run; pass evaluate.judge= one of {', '.join(free)}")
    return name


def _default(settings: EvaluateConfig, used: set[str]) -> str:
    if settings.judge_weights is None and not any(family(INDEPENDENT) == family(other) for other in used):
        nets = FeatureNets(settings.weights_dir)
        if nets.has(_NETWORKS[INDEPENDENT]):
            return INDEPENDENT
    return "torchvision/squeezenet1_0"


def family(name: str) -> str:
    """Family of a network by its name, the name itself where it is of none of `FAMILIES`."""
    return next((known for known in FAMILIES if known in name.lower()), name)


def took_part(name: str, used: Iterable[str]) -> bool:
    """Whether a judge is among the networks ``used``, timm's tag of the weights (``.in1k``) aside."""
    return any(name in (other, other.partition(".")[0]) for other in used)


def load_judge(name: str, settings: EvaluateConfig) -> Judge:
    """Load a judge; raises `feature_nets.WeightsMissing` when its weights are not on this machine."""
    if name == READER:
        return _reader(settings.judge_weights)
    network = _NETWORKS[name]
    files: dict[str, str | Path] = {network: settings.judge_weights} if settings.judge_weights else {}
    nets = FeatureNets(settings.weights_dir, files=files, download=settings.download)
    return Judge(name, nets.source(network), _remembering(lambda images: nets.read(network, images)))


def _remembering(read: Callable[[torch.Tensor], np.ndarray]) -> Callable[[torch.Tensor], np.ndarray]:
    """``read`` asked only once for each picture: controls repeat pictures, seen and training ones among them."""
    known: dict[bytes, np.ndarray] = {}

    def features(images: torch.Tensor) -> np.ndarray:
        keys = [_fingerprint(image) for image in images]
        new = {key: row for row, key in enumerate(keys) if key not in known}
        if new:
            known.update(zip(new, read(images[list(new.values())]), strict=True))
        return np.stack([known[key] for key in keys])

    return features


def _fingerprint(image: torch.Tensor) -> bytes:
    """Digest of the values and the shape of one picture (3, H, W)."""
    digest = hashlib.sha256(repr(tuple(image.shape)).encode())
    digest.update(image.contiguous().float().numpy().tobytes())
    return digest.digest()


def _reader(weights: str | None) -> Judge:
    import torch

    from recon.metrics.reader import load_reader

    model = load_reader(weights)

    def small(images: torch.Tensor) -> torch.Tensor:
        if images.shape[-2:] == (_READER_SIZE, _READER_SIZE):
            return images.float()
        return resize(enter(images), _READER_SIZE)

    def features(images: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            value: np.ndarray = model.features(small(images)).flatten(1).numpy()
        return value

    def attributes(images: torch.Tensor) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            return {name: value.numpy() for name, value in model.attributes(small(images)).items()}

    return Judge(READER, Path(weights).name if weights else "embedded", features, attributes)
