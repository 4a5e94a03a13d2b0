"""The frozen networks behind the feature metrics and the judge: where their weights are, which node is read.

Nothing is downloaded unless asked. Weights are looked for in the folder given, then in torch's and the hub's caches.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from align.errors import UserError
from recon.evaluation.metrics import enter, resize

if TYPE_CHECKING:
    import torch

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP_STATS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


class WeightsMissing(Exception):
    """The weights of a network are not on this machine; the message says what to put where."""


@dataclass(frozen=True)
class Network:
    """One network as a metric reads it. ``file``: the official weights file, also the name looked for.

    ``stem``: another file whose name starts so is taken where the official one is absent. ``pool``: average the
    node's map over space. ``taps``: the nodes LPIPS compares. ``drop``: parts of the file or the model behind the node.
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


def _torchvision(name: str, **kwargs: Any) -> Callable[[], Any]:
    def build() -> Any:
        import torchvision

        return getattr(torchvision.models, name)(weights=None, **kwargs)

    return build


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

NETWORKS: dict[str, Network] = {
    "alexnet_2": Network(_torchvision("alexnet"), "features.4", 256, **_ALEX),
    "alexnet_5": Network(_torchvision("alexnet"), "features.11", 256, **_ALEX),
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
}
CLIP_REPOSITORY, CLIP_SIZE = "openai/clip-vit-large-patch14", 224
_CLIP_FILES = ("config.json", "model.safetensors")
_WAY_OUT = "evaluate.weights_dir (--weights-dir), or set evaluate.download=true (--download)"
_BATCH = 16


class FeatureNets:
    """Features of pictures by named networks, loaded when first asked for.

    ``files``: network name to weights file (a folder for ``clip``), tried first. Weights not found raise
    `WeightsMissing`.
    """

    def __init__(
        self,
        weights_dir: str | Path | None = None,
        *,
        files: dict[str, str | Path] | None = None,
        download: bool = False,
    ) -> None:
        self.weights_dir = Path(weights_dir).expanduser() if weights_dir else None
        if self.weights_dir and not self.weights_dir.is_dir():
            raise UserError(f"weights_dir={str(weights_dir)!r} is not a folder; pass the folder that holds the weights")
        self.files = {name: Path(path).expanduser() for name, path in (files or {}).items()}
        self.download = download
        self._loaded: dict[str, _Reader] = {}
        self._known: dict[tuple[str, str], np.ndarray] = {}

    def source(self, name: str) -> str:
        """File name of the weights and the first 8 digits of their SHA-256; raises `WeightsMissing`."""
        path = self._find_clip() / _CLIP_FILES[1] if name == "clip" else self._find(NETWORKS[name], name)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        label = f"{path.parent.name}/{path.name}" if name == "clip" else path.name
        return f"{label}@{digest[:8]}"

    def features(self, name: str, images: torch.Tensor) -> np.ndarray:
        """Float32 (n, F) of pictures (n, 3, H, W) in [0, 1]; kept until `clear`, so targets are read once."""
        key = (name, hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest())
        if key not in self._known:
            size = self.size(name)
            batches = (resize(enter(images[i : i + _BATCH]), size) for i in range(0, len(images), _BATCH))
            self._known[key] = self.extract(name, batches, len(images))
        return self._known[key]

    def lpips(self, name: str, recons: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
        """LPIPS v0.1 of each pair at 256 x 256, (n,); Zhang et al. 2018, linear weights of the lpips package."""
        size = self.size(name)
        values = [
            self.lpips_pairs(name, *(resize(enter(images[i : i + _BATCH]), size) for images in (recons, targets)))
            for i in range(0, len(recons), _BATCH)
        ]
        return np.concatenate(values)

    def lpips_pairs(self, name: str, recons: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
        """LPIPS of one batch (B, 3, S, S) at the size in which the pictures come, (B,)."""
        import torch

        reader, lins = self._reader(name), _lpips_lins(name.removeprefix("lpips_"))
        total = torch.zeros(len(recons), dtype=torch.float64)
        for a, b, lin in zip(reader.taps(recons), reader.taps(targets), lins, strict=True):
            difference = (_channel_unit(a) - _channel_unit(b)) ** 2
            total += (difference * lin).sum(1).mean(dim=(1, 2))
        return total.numpy()

    def size(self, name: str) -> int:
        """Side in pixels of what the network reads in the standard protocol."""
        return CLIP_SIZE if name == "clip" else NETWORKS[name].size

    def extract(self, name: str, batches: Iterable[torch.Tensor], n: int) -> np.ndarray:
        """Float32 (n, F) of batches (B, 3, S, S) that already have the network's size; nothing is kept."""
        reader, start = self._reader(name), 0
        features = np.empty((n, 0), np.float32)
        for batch in batches:
            value = reader(batch).flatten(1).numpy()
            if not features.size:
                features = np.empty((n, value.shape[1]), np.float32)  # at once: lists of batches need it twice
            features[start : start + len(value)] = value
            start += len(value)
        return features

    def clear(self) -> None:
        """Forget networks and features."""
        self._loaded.clear()
        self._known.clear()

    def _reader(self, name: str) -> _Reader:
        if name not in self._loaded:
            if name == "clip":
                self._loaded[name] = _Reader(_clip_tower(self._find_clip()), "", CLIP_STATS)
            else:
                spec = NETWORKS[name]
                model = _load(spec, self._find(spec, name))
                self._loaded[name] = _Reader(model, spec.node, spec.stats, spec.pool, spec.taps)
        return self._loaded[name]

    def _find(self, spec: Network, name: str) -> Path:
        if name in self.files:
            if not self.files[name].is_file():
                raise UserError(f"weights of {name} {str(self.files[name])!r} do not exist")
            return self.files[name]
        if self.weights_dir:
            exact = self.weights_dir / spec.file
            similar = sorted(path for path in self.weights_dir.glob(f"{spec.stem}*") if path.is_file())
            if exact.is_file() or len(similar) == 1:
                return exact if exact.is_file() else similar[0]
            if similar:
                raise WeightsMissing(f"{[path.name for path in similar]} could all be {spec.stem}; keep {spec.file}")
        return self._in_torch_cache(spec)

    def _in_torch_cache(self, spec: Network) -> Path:
        import torch

        cached = Path(torch.hub.get_dir()) / "checkpoints" / spec.file
        if self.download and not cached.is_file():
            cached.parent.mkdir(parents=True, exist_ok=True)
            prefix = re.search(r"-([0-9a-f]{8})\.", spec.file)  # torchvision's names end in the start of the digest
            try:
                torch.hub.download_url_to_file(spec.url + spec.file, str(cached), prefix and prefix[1])
            except (OSError, RuntimeError) as error:
                raise WeightsMissing(f"download of {spec.url + spec.file} failed: {error}") from error
        if not cached.is_file():
            raise WeightsMissing(f"weights not available offline: put {spec.file} into {_WAY_OUT}")
        return cached

    def _find_clip(self) -> Path:
        from transformers.utils import cached_file

        folder = self.files.get("clip")
        if folder is None and self.weights_dir:
            folder = self.weights_dir / CLIP_REPOSITORY.split("/")[1]
        if folder and (folder.is_dir() or "clip" in self.files):
            for file in _CLIP_FILES:
                if not (folder / file).is_file():
                    raise UserError(
                        f"weights of clip {str(folder)!r} should be a folder with {' and '.join(_CLIP_FILES)}"
                    )
            return folder
        try:
            found = [cached_file(CLIP_REPOSITORY, file, local_files_only=not self.download) for file in _CLIP_FILES]
        except OSError as error:
            raise WeightsMissing(
                f"weights not available offline: put {CLIP_REPOSITORY} ({', '.join(_CLIP_FILES)}) as folder "
                f"{CLIP_REPOSITORY.split('/')[1]} into {_WAY_OUT}"
            ) from error
        return Path(found[0]).parent


class _Reader:
    """One network with its hooks, registered once."""

    def __init__(
        self,
        model: Any,
        node: str,
        stats: tuple[tuple[float, float, float], tuple[float, float, float]],
        pool: bool = False,
        taps: tuple[str, ...] = (),
    ) -> None:
        self.model, self.node, self.pool, self.names = model, node, pool, taps
        self.mean, self.std = (np.asarray(values, np.float32).reshape(1, 3, 1, 1) for values in stats)
        self._seen: dict[str, Any] = {}
        for name in {node, *taps} - {""}:
            model.get_submodule(name).register_forward_hook(self._keep(name))

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Output of the node (of the whole model where it is "") for pictures (B, 3, S, S) in [0, 1]."""
        output = self._run(images)
        value = self._seen[self.node] if self.node else output
        return value.mean(dim=(2, 3)) if self.pool else value

    def taps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps of all taps, in order."""
        self._run(images)
        return [self._seen[name] for name in self.names]

    def _run(self, images: torch.Tensor) -> torch.Tensor:
        import torch

        with torch.inference_mode():
            normal = (images - torch.from_numpy(self.mean)) / torch.from_numpy(self.std)
            output: torch.Tensor = self.model(normal.contiguous(memory_format=torch.channels_last))
        return output

    def _keep(self, name: str) -> Callable[[Any, Any, Any], None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            self._seen[name] = output.clone()  # the next layer may work in place

        return hook


def _load(spec: Network, path: Path) -> Any:
    """The network with the weights of ``path``, every one of them used; raises `UserError` where they do not fit."""
    import torch

    state = {name.removeprefix("module."): value for name, value in _state_dict(path).items()}
    state = {name: v.float() if v.is_floating_point() else v for name, v in state.items() if not _part(name, spec.drop)}
    with torch.device("meta"):
        model = spec.build()
    for name in spec.drop:
        if hasattr(model, name):
            setattr(model, name, torch.nn.Identity())
    try:
        model.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise UserError(
            f"{str(path)!r} holds no weights of {spec.stem}: {str(error).splitlines()[1].strip()}"
        ) from error
    # convolutions on a CPU take half the time when the channels of a pixel lie together; the values are the same
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _part(name: str, parts: tuple[str, ...]) -> bool:
    return name.split(".")[0] in parts


def _state_dict(path: Path) -> dict[str, torch.Tensor]:
    import pickle

    import torch

    if path.suffix == ".safetensors":
        from align.files import read_tensors

        return read_tensors(path)[0]
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(f"{str(path)!r} is not a whole file of plain weights") from error


def _clip_tower(folder: Path) -> Any:
    import torch
    from transformers import CLIPVisionModelWithProjection

    logger = logging.getLogger("transformers.modeling_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)  # the folder also holds the text tower, which is rightly not used
    try:
        tower = CLIPVisionModelWithProjection.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
    finally:
        logger.setLevel(level)
    tower.eval().requires_grad_(False)
    return lambda pixels: tower(pixel_values=pixels).image_embeds


def _lpips_lins(trunk: str) -> list[torch.Tensor]:
    """The linear weights, which the package carries; its constructor would download a trunk."""
    import lpips
    import torch

    path = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{trunk}.pth"
    state = torch.load(path, map_location="cpu", weights_only=True)
    return [state[f"lin{k}.model.1.weight"] for k in range(len(state))]


def _channel_unit(x: torch.Tensor) -> torch.Tensor:
    return x / (x.norm(dim=1, keepdim=True) + 1e-10)
