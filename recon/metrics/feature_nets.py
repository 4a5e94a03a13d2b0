"""Features of pictures by the frozen networks of `networks`: finding their weights, reading their nodes.

Nothing is downloaded unless asked. Weights are looked for in the folder given, then in torch's and the hub's caches.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.errors import UserError
from align.files import launched
from align.files.launched import rows_in
from align.vision.packages import INSTALL, packaged_file
from recon.metrics.networks import CLIP_FILES, CLIP_REPOSITORY, CLIP_SIZE, CLIP_STATS, NETWORKS, Network
from recon.metrics.pixels import enter, resize

if TYPE_CHECKING:
    import torch


class WeightsMissing(Exception):
    """The weights of a network are not on this machine; the message says what to put where."""


OFFLINE = "weights not available offline"
AS_PAIRS = "evaluate.weights_dir=FOLDER, or set evaluate.download=true"  # how commands on a run are told of weights
AS_OPTIONS = "--weights-dir FOLDER, or give --download"  # how recon evaluate-images is
_BATCH = 4  # on a CPU core .7 of the time of 16: temporaries that are larger cost more page faults


class FeatureNets:
    """Features of pictures by named networks, loaded when first asked for.

    ``files``: network name to weights file (a folder for ``clip``), tried first. Weights not found raise
    `WeightsMissing`; ``ways``: how the command that asks is told where they are.
    """

    def __init__(
        self,
        weights_dir: str | Path | None = None,
        *,
        files: dict[str, str | Path] | None = None,
        download: bool = False,
        ways: str = AS_PAIRS,
    ) -> None:
        self.weights_dir = Path(weights_dir).expanduser() if weights_dir else None
        if self.weights_dir and not self.weights_dir.is_dir():
            raise UserError(f"weights_dir={str(weights_dir)!r} is not a folder; pass the folder that holds the weights")
        self.files = {name: Path(path).expanduser() for name, path in (files or {}).items()}
        self.download, self.ways = download, ways
        self._loaded: dict[str, _Reader] = {}
        self._known: dict[tuple[str, str], np.ndarray] = {}

    def source(self, name: str) -> str:
        """File name of the weights and the first 8 digits of their SHA-256; raises `WeightsMissing`."""
        with launched.first_then_others():  # the first one fetches it, where it may
            path = self._find_clip() / CLIP_FILES[1] if name == "clip" else self._find(NETWORKS[name], name)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        label = f"{path.parent.name}/{path.name}" if name == "clip" else path.name
        return f"{label}@{digest[:8]}"

    def has(self, name: str) -> bool:
        """Whether the weights of a network are on this machine."""
        try:
            self._find(NETWORKS[name], name)
        except WeightsMissing:
            return False
        return True

    def features(self, name: str, images: torch.Tensor) -> np.ndarray:
        """Float32 (n, F) of pictures (n, 3, H, W) in [0, 1]; kept until `clear`, so targets are read once."""
        key = (name, hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest())
        if key not in self._known:
            self._known[key] = self.read(name, images)
        return self._known[key]

    def read(self, name: str, images: torch.Tensor) -> np.ndarray:
        """`features` of which nothing is kept."""
        size, own = self.size(name), launched.own_share(range(0, len(images), _BATCH))
        batches = (resize(enter(images[i : i + _BATCH]), size) for i in own)
        return launched.of_all(self.extract(name, batches, rows_in(own, _BATCH, len(images))) if own else None)

    def lpips(self, name: str, recons: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
        """LPIPS v0.1 of each pair at 256 x 256, (n,); Zhang et al. 2018, linear weights of the lpips package."""
        size = self.size(name)
        values = [
            self.lpips_pairs(name, *(resize(enter(images[i : i + _BATCH]), size) for images in (recons, targets)))
            for i in launched.own_share(range(0, len(recons), _BATCH))
        ]
        return launched.of_all(np.concatenate(values) if values else None)

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
        return self.extract_together([name], batches, n)[name]

    def extract_together(self, names: Sequence[str], batches: Iterable[torch.Tensor], n: int) -> dict[str, np.ndarray]:
        """`extract` of several nodes of one network (see `one_pass`) in one pass over the batches."""
        reader, start = self._reader(names[0]), 0
        nodes = {name: NETWORKS[name].node if name in NETWORKS else "" for name in names}
        features: dict[str, np.ndarray] = {}
        for batch in batches:
            for name, value in zip(nodes, reader(batch, list(nodes.values())), strict=True):
                flat = value.flatten(1).numpy()
                if name not in features:
                    features[name] = np.empty((n, flat.shape[1]), np.float32)  # at once: lists of batches need it twice
                features[name][start : start + len(flat)] = flat
            start += len(batch)
        return features

    def one_pass(self, first: str, second: str) -> bool:
        """Whether two networks are one with the same weights, read at two nodes."""
        if not {first, second} <= set(NETWORKS) or self.files.get(first) != self.files.get(second):
            return False
        return replace(NETWORKS[first], node="") == replace(NETWORKS[second], node="")

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
        return _in_package(spec, self.ways) if spec.package else self._in_torch_cache(spec)

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
            raise WeightsMissing(f"{OFFLINE}: put {spec.file} into {self.ways}")
        return cached

    def _find_clip(self) -> Path:
        from transformers.utils import cached_file

        folder = self.files.get("clip")
        if folder is None and self.weights_dir:
            folder = self.weights_dir / CLIP_REPOSITORY.split("/")[1]
        if folder and (folder.is_dir() or "clip" in self.files):
            for file in CLIP_FILES:
                if not (folder / file).is_file():
                    raise UserError(
                        f"weights of clip {str(folder)!r} should be a folder with {' and '.join(CLIP_FILES)}"
                    )
            return folder
        try:
            found = [cached_file(CLIP_REPOSITORY, file, local_files_only=not self.download) for file in CLIP_FILES]
        except OSError as error:
            raise WeightsMissing(
                f"{OFFLINE}: put {CLIP_REPOSITORY} ({', '.join(CLIP_FILES)}) as folder "
                f"{CLIP_REPOSITORY.split('/')[1]} into {self.ways}"
            ) from error
        return Path(found[0]).parent


def _in_package(spec: Network, ways: str) -> Path:
    """The file that an installed package carries."""
    path = packaged_file(spec.package, spec.file)
    if path is not None:
        return path
    raise WeightsMissing(f"{OFFLINE}: install them ({INSTALL}), or put {spec.file} into {ways.partition(',')[0]}")


class _Reader:
    """One network with its hooks, each registered once."""

    def __init__(
        self,
        model: Any,
        node: str,
        stats: tuple[tuple[float, float, float], tuple[float, float, float]],
        pool: bool = False,
        taps: tuple[str, ...] = (),
    ) -> None:
        self.model, self.pool, self.names = model, pool, taps
        self.mean, self.std = (np.asarray(values, np.float32).reshape(1, 3, 1, 1) for values in stats)
        self._seen: dict[str, Any] = {}
        self._hooked: set[str] = set()
        self._hook({node, *taps} - {""})

    def __call__(self, images: torch.Tensor, nodes: Sequence[str]) -> list[torch.Tensor]:
        """Outputs of the nodes (of the whole model for "") for pictures (B, 3, S, S) in [0, 1]."""
        self._hook(set(nodes) - {""})
        output = self._run(images)
        values = [self._seen[node] if node else output for node in nodes]
        return [value.mean(dim=(2, 3)) for value in values] if self.pool else values

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

    def _hook(self, names: set[str]) -> None:
        for name in names - self._hooked:
            self.model.get_submodule(name).register_forward_hook(self._keep(name))
            self._hooked.add(name)

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
    if spec.ordered and len(state) == len(names := list(model.state_dict())):
        state = dict(zip(names, state.values(), strict=True))
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
