"""Where generators, adapters and image encoders lie: the embedded one, a local path, or the Hugging Face hub.

The local cache of the hub is asked first, the network only for what is missing there; where neither has it, one line
says what is missing and what to give instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from align.errors import UserError
from align.files import read_json

INDEX = "model_index.json"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_UNUSED = ("safety_checker", "feature_extractor", "image_encoder")  # parts of a generator that are not loaded
_WEIGHTS = (".safetensors", ".bin")
# what a bare hub id of an adapter means, by the family of the generator (layout of h94/IP-Adapter)
_DEFAULT_FILES = {"sd": "models/ip-adapter_sd15.safetensors", "sdxl": "sdxl_models/ip-adapter_sdxl.safetensors"}


@dataclass(frozen=True)
class AdapterPlace:
    """An adapter file; ``repository`` and ``file`` (its path there) where it came from the hub."""

    path: Path
    repository: str | None = None
    file: str = ""


def generator_folder(name: str) -> Path:
    """The folder in diffusers layout behind "mini", a local path or a hub id such as stabilityai/sdxl-turbo.

    Raises `UserError` for a folder without model_index.json, and for a hub id that is neither cached nor reachable.
    """
    folder = mini_folder() if name == "mini" else Path(name).expanduser()
    if (folder / INDEX).is_file():
        return folder
    if folder.exists() or not _HUB_ID.fullmatch(name):
        raise UserError(
            f"generator {name!r} is no diffusers folder (no {INDEX}); use mini, a local folder or a hub id such as "
            "stabilityai/sdxl-turbo"
        )
    cached = _cached(name, [INDEX, "*/*"])
    if cached is not None and whole(cached):
        return cached
    return _download_generator(name)


def whole(folder: Path) -> bool:
    """Whether every part that the index names has its files, weights where it has any."""
    if not (folder / INDEX).is_file():
        return False
    parts = {name: kind for name, kind in read_json(folder / INDEX, {}, finite=False).items() if isinstance(kind, list)}
    for name, kind in parts.items():
        if name in _UNUSED or not kind or kind[0] is None:
            continue
        files = [path.name for path in (folder / name).glob("*")]
        model = name in ("unet", "vae") or name.startswith("text_encoder")
        if not files or (model and not any(file.endswith(_WEIGHTS) for file in files)):
            return False
    return True


def find_adapter(name: str, family: str) -> AdapterPlace:
    """The adapter file behind a file, a folder that holds one, a hub id, or a hub id with a path inside it.

    ``family``: of the generator ("sd" | "sdxl"); says which file a bare hub id means. Raises `UserError`.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return AdapterPlace(path)
    if path.is_dir():
        files = sorted(found for found in path.iterdir() if found.suffix in _WEIGHTS)
        if len(files) != 1:
            told = f"{len(files)} weight files: {', '.join(f.name for f in files[:6])}" if files else "no weight file"
            raise UserError(f"adapter {name!r} holds {told}; pass the file itself")
        return AdapterPlace(files[0])
    parts = name.split("/")
    repository, file = "/".join(parts[:2]), "/".join(parts[2:]) or _DEFAULT_FILES[family]
    if not _HUB_ID.fullmatch(repository) or path.is_absolute():
        raise UserError(f"adapter {name!r} does not exist; pass a file, a folder, or a hub id such as h94/IP-Adapter")
    folder = fetch(repository, [file], f"adapter {name!r} (file {file})", "--adapter FILE")
    return AdapterPlace(folder / file, repository, file)


def image_encoder_folder(place: AdapterPlace, width: int, pooled: bool, given: str | None = None) -> Path:
    """The folder of the CLIP image encoder an adapter was trained with: ``given``, or the one beside it that fits.

    ``width``: what the adapter reads, which must be the encoder's ``projection_dim`` (``pooled``) or ``hidden_size``.
    Raises `UserError` where none fits.
    """
    key = "projection_dim" if pooled else "hidden_size"
    if given is not None:
        folders = [Path(given).expanduser()]
        if not (folders[0] / "config.json").is_file():
            raise UserError(f"image encoder {given!r} holds no config.json; pass the folder of a CLIP image encoder")
    elif place.repository is None:
        beside = place.path.parent
        folders = [beside / "image_encoder", beside.parent / "image_encoder", beside.parent / "models/image_encoder"]
    else:
        names = [f"{Path(place.file).parent}/image_encoder", "models/image_encoder"]
        folders = [_hub_folder(place.repository, name, key, width) for name in dict.fromkeys(names)]
    there = [folder for folder in folders if (folder / "config.json").is_file()]
    seen = {folder: read_json(folder / "config.json", {}, finite=False) for folder in there}
    for folder, config in seen.items():
        if config.get(key) == width:
            return folder
    found = ", ".join(f"{folder} ({key} {config.get(key)})" for folder, config in seen.items()) or "none found"
    raise UserError(
        f"adapter {str(place.path)!r} reads embeddings of width {width} and no CLIP image encoder of {key} {width} "
        f"lies beside it ({found}); pass --image-encoder DIR"
    )


def fetch(repository: str, patterns: list[str], what: str, option: str) -> Path:
    """The local snapshot of a hub repository that holds files of all ``patterns``, fetched where not cached."""
    from huggingface_hub import snapshot_download

    cached = _cached(repository, patterns)
    if cached is not None and all(any(cached.glob(pattern)) for pattern in patterns):
        return cached
    try:
        folder = Path(snapshot_download(repository, allow_patterns=patterns))
    except Exception as error:  # the hub's client has its own exceptions, and so has each network
        raise _unreachable(what, option, repository, f"{type(error).__name__}: {error}") from error
    lacking = [pattern for pattern in patterns if not any(folder.glob(pattern))]
    if lacking:  # offline, the client hands over what it has without an error
        raise _unreachable(what, option, repository, f"no {lacking[0]}, offline or not in that repository")
    return folder


def _hub_folder(repository: str, name: str, key: str, width: int) -> Path:
    """Folder ``name`` of a repository: its config, and where that fits, the weights too."""
    what = f"image encoder {repository}/{name}"
    folder = fetch(repository, [f"{name}/config.json"], what, "--image-encoder DIR") / name
    if read_json(folder / "config.json", {}, finite=False).get(key) == width:
        return (
            fetch(repository, [f"{name}/config.json", f"{name}/model.safetensors"], what, "--image-encoder DIR") / name
        )
    return folder


def _cached(repository: str, patterns: list[str]) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=patterns, local_files_only=True))
    except Exception:  # not cached; what is wrong with the name, the network will say
        return None


def _download_generator(name: str) -> Path:
    from diffusers import DiffusionPipeline

    what = f"generator {name!r}"
    try:
        folder = Path(DiffusionPipeline.download(name, use_safetensors=True))
    except Exception as error:
        raise _unreachable(what, "--generator DIR", name, f"{type(error).__name__}: {error}") from error
    if not whole(folder):
        raise _unreachable(what, "--generator DIR", name, f"parts are missing in {folder}")
    return folder


def _unreachable(what: str, option: str, repository: str, reason: str) -> UserError:
    reason = (reason.strip().splitlines() or [""])[0][:200]
    return UserError(
        f"{what} is not in the local cache and {repository} cannot be fetched from the hub ({reason}); offline, give a "
        f"local copy: {option}"
    )


def mini_folder() -> Path:
    """``recon/assets/mini``: a Stable Diffusion folder in diffusers layout, with conditioners."""
    return Path(str(files("recon"))) / "assets" / "mini"
