"""The frozen networks behind the feature metrics and the judge: official weights, input size, the node that is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict

from align.vision.packages import PACKAGED

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP_STATS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True)
class Network:
    """One network as a metric reads it. ``file``: the official weights file, also the name looked for.

    ``stem``: another file whose name starts so is taken where the official one is absent. ``pool``: average the
    node's map over space. ``taps``: the nodes LPIPS compares. ``drop``: parts of the file or the model behind the node.
    ``package``: an installed package that carries the file. ``ordered``: tensors of the file bear other names than
    those of the model and stand in the same order.
    """

    build: Callable[[], Any]
    node: str
    size: int
    file: str
    stem: str
    url: str
    stats: tuple[tuple[float, float, float], tuple[float, float, float]] = IMAGENET
    pool: bool = False
    taps: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    package: str = ""
    ordered: bool = False


def _torchvision(name: str, **kwargs: Any) -> Callable[[], Any]:
    def build() -> Any:
        import torchvision

        return getattr(torchvision.models, name)(weights=None, **kwargs)

    return build


def _efficientnet_lite(number: int) -> Network:
    """One of the EfficientNet-Lite family: residual and depthwise, unlike AlexNet or SqueezeNet."""
    name = f"tf_efficientnet_lite{number}"
    own = PACKAGED[name]

    def build() -> Any:
        import timm

        return timm.create_model(name, pretrained=False)

    return Network(
        build,
        "bn2",
        own.size,
        own.file,
        f"efficientnet-lite{number}",
        "",  # no public address: the extra `weights` installs the package
        stats=((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        pool=True,
        package=own.package,
        ordered=True,
    )


class _Weights(TypedDict):
    file: str
    stem: str
    url: str
    drop: tuple[str, ...]


_PYTORCH = "https://download.pytorch.org/models/"
_ALEX: _Weights = {"file": "alexnet-owt-7be5be79.pth", "stem": "alexnet", "url": _PYTORCH, "drop": ("classifier",)}
_SQUEEZE0: _Weights = {
    "file": "squeezenet1_0-b66bff10.pth",
    "stem": "squeezenet1_0",
    "url": _PYTORCH,
    "drop": ("classifier",),
}
_SQUEEZE1: _Weights = {
    "file": "squeezenet1_1-b8a52dc0.pth",
    "stem": "squeezenet1_1",
    "url": _PYTORCH,
    "drop": ("classifier",),
}
_VGG: _Weights = {"file": "vgg16-397923af.pth", "stem": "vgg16", "url": _PYTORCH, "drop": ("classifier", "avgpool")}
_ALEX_TAPS = tuple(f"features.{i}" for i in (1, 4, 7, 9, 11))
_SQUEEZE_TAPS = tuple(f"features.{i}" for i in (1, 4, 7, 9, 10, 11, 12))
_VGG_TAPS = tuple(f"features.{i}" for i in (3, 8, 15, 22, 29))
# LPIPS shifts and scales pictures in [-1, 1]; said for [0, 1] its constants are the ImageNet statistics.
# With weights torchvision switches transform_input on; without it the official weights see wrongly scaled pictures.
_inception = _torchvision("inception_v3", transform_input=True, aux_logits=True, init_weights=False)

_alexnet = _torchvision("alexnet")

NETWORKS: dict[str, Network] = {
    "alexnet_2": Network(_alexnet, "features.4", 256, **_ALEX),
    "alexnet_5": Network(_alexnet, "features.11", 256, **_ALEX),
    "inception": Network(_inception, "avgpool", 342, "inception_v3_google-0cc3c7bd.pth", "inception_v3", _PYTORCH),
    "effnet": Network(
        _torchvision("efficientnet_b1"), "avgpool", 255, "efficientnet_b1-c27df63c.pth", "efficientnet_b1-", _PYTORCH
    ),
    # IMAGENET1K_V1, what `efficientnet_b1(weights=True)` of torchvision 0.13 loads
    "effnet_v1": Network(
        _torchvision("efficientnet_b1"),
        "avgpool",
        255,
        "efficientnet_b1_rwightman-bac287d4.pth",
        "efficientnet_b1_rwightman",
        _PYTORCH,
    ),
    "swav": Network(
        _torchvision("resnet50"),
        "avgpool",
        224,
        "swav_800ep_pretrain.pth.tar",
        "swav",
        "https://dl.fbaipublicfiles.com/deepcluster/",
        drop=("fc", "projection_head", "prototypes"),  # published with its training heads, without a classifier
    ),
    "lpips_alex": Network(_torchvision("alexnet"), "", 256, **_ALEX, taps=_ALEX_TAPS),
    "lpips_squeeze": Network(_torchvision("squeezenet1_1"), "", 256, **_SQUEEZE1, taps=_SQUEEZE_TAPS),
    "lpips_vgg": Network(_torchvision("vgg16"), "", 256, **_VGG, taps=_VGG_TAPS),
    "squeezenet1_0": Network(_torchvision("squeezenet1_0"), "features.12", 224, **_SQUEEZE0, pool=True),
    "squeezenet1_1": Network(_torchvision("squeezenet1_1"), "features.12", 224, **_SQUEEZE1, pool=True),
    "efficientnet_lite0": _efficientnet_lite(0),
    "efficientnet_lite1": _efficientnet_lite(1),
    "efficientnet_lite2": _efficientnet_lite(2),
}
CLIP_REPOSITORY, CLIP_SIZE = "openai/clip-vit-large-patch14", 224
CLIP_FILES = ("config.json", "model.safetensors")
