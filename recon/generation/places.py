"""Where generators, adapters and image encoders lie: the embedded one, a local path, or the Hugging Face hub.

The local cache of the hub is asked first, the network only for what is missing there; where neither has it, one line
says what is missing and what to give instead. What is fetched of a generator: `recon.generation.selection`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from align.errors import UserError
from align.files import read_json
from recon.generation.hub import HUB_ID, fetch, listed, snapshot
from recon.generation.named import full_name, patch_of, split_file
from recon.generation.patches import fetch_patch, is_lora, put_together
from recon.generation.selection import INDEX, MODELS, UNUSED, generator_files, weight_files

ADAPTERS = "h94/IP-Adapter"  # the public adapters; what leads to one without naming it means this repository
_WEIGHTS = (".safetensors", ".bin")
# what a bare hub id of an adapter means, by the family of the generator (layout of h94/IP-Adapter): those whose image
# encoder is ViT-H, the one that decoders of brain signals are built on
_DEFAULT_FILES = {"sd": "models/ip-adapter_sd15.safetensors", "sdxl": "sdxl_models/ip-adapter_sdxl_vit-h.safetensors"}
_ENCODER_FILES = ("config.json", "model.safetensors")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AdapterPlace:
    """An adapter file; ``repository`` and ``file`` (its path there) where it came from the hub."""

    path: Path
    repository: str | None = None
    file: str = ""


def generator_folder(name: str, half: bool = False) -> Path:
    """The folder in diffusers layout behind "mini", a short name (`recon.generation.named`), a local path or a hub id.

    ``half``: it is for a run in 16 bit, for which the smaller copy of the weights is fetched where there is one. A UNet
    or LoRA is put together with its base. Raises `UserError` for a folder without model_index.json, a generator that no
    adapter here fits, and a hub id that is neither cached nor reachable.
    """
    patch = patch_of(name)
    if patch is not None:
        paths = fetch_patch(patch, half)
        without = () if is_lora([path.name for path in paths]) else ("unet",)
        return put_together(_whole_generator(patch.base, half, without), patch, paths)
    return _whole_generator(name, half)


def _whole_generator(name: str, half: bool, without: tuple[str, ...] = ()) -> Path:
    folder = mini_folder() if name == "mini" else Path(name).expanduser()
    if (folder / INDEX).is_file():
        return folder
    repository = full_name(name)
    if folder.exists() or not HUB_ID.fullmatch(repository):
        raise UserError(
            f"generator {name!r} is no diffusers folder (no {INDEX}); use mini, sd15, sdxl-turbo, a local folder or a "
            "hub id such as stabilityai/sdxl-turbo"
        )
    cached = snapshot(repository)
    if cached is not None and whole(cached, half, without):
        return cached
    what = f"generator {name!r}"
    try:
        wanted = generator_files(listed(repository, what, "--generator DIR", cached=False), half, name, without)
        fetched = fetch(repository, wanted, what, "--generator DIR")
    except UserError:
        if cached is not None and whole(cached, True, without):
            log.info("%s: the copy with 2 bytes per value is cached and is used in 32 bit", what)
            return cached
        raise
    if not whole(fetched, half, without) and not whole(fetched, True, without):
        raise UserError(f"{what}: parts are missing in {str(fetched)!r}; give a local copy: --generator DIR")
    return fetched


def whole(folder: Path, half: bool = True, without: tuple[str, ...] = ()) -> bool:
    """Whether every part that the index names has its files, and weights where it has any but those of ``without``.

    ``half``: whether weights of 2 bytes per value do.
    """
    if not (folder / INDEX).is_file():
        return False
    parts = {name: kind for name, kind in read_json(folder / INDEX, {}, finite=False).items() if isinstance(kind, list)}
    for name, kind in parts.items():
        if name in UNUSED or not kind or kind[0] is None:
            continue
        names = [path.name for path in (folder / name).glob("*") if path.is_file()]
        if not names or (name in MODELS and name not in without and not _has_weights(names, half)):
            return False
    return True


def _has_weights(names: list[str], half: bool) -> bool:
    found = weight_files(names, half)
    if not found:
        return any(name.endswith(".bin") for name in names)
    return half or found == weight_files([name for name in names if "fp16" not in name], half)


def find_adapter(name: str, family: str) -> AdapterPlace:
    """The adapter file behind a file, a folder that holds one, a hub id, or a hub id with a path inside it.

    ``family``: of the generator ("sd" | "sdxl"); says which file a bare hub id means. Raises `UserError`.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return AdapterPlace(path)
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix in _WEIGHTS)
        if len(found) != 1:
            told = f"{len(found)} weight files: {', '.join(f.name for f in found[:6])}" if found else "no weight file"
            raise UserError(f"adapter {name!r} holds {told}; pass the file itself")
        return AdapterPlace(found[0])
    repository, file = adapter_file(name, family)
    folder = fetch(repository, [file], f"adapter {name!r} (file {file})", "--adapter FILE")
    return AdapterPlace(folder / file, repository, file)


def adapter_file(name: str, family: str) -> tuple[str, str]:
    """Repository and file that the hub id of an adapter means; raises `UserError` for anything else."""
    repository, file = split_file(name)
    if not HUB_ID.fullmatch(repository) or Path(name).expanduser().is_absolute():
        raise UserError(f"adapter {name!r} does not exist; pass a file, a folder, or a hub id such as {ADAPTERS}")
    usual = _DEFAULT_FILES[family]
    if file.rstrip("/") in ("", usual.partition("/")[0]):
        return repository, usual
    if not file.endswith(_WEIGHTS):
        raise UserError(f"adapter {name!r} names a folder; name a file in it, such as {repository}/{usual}")
    return repository, file


def encoder_places(file: str) -> list[str]:
    """Folders of a repository in which the image encoder of adapter ``file`` may lie, the likeliest first.

    In h94/IP-Adapter every adapter reads ViT-H (``models/image_encoder``) but ``ip-adapter_sd15_vit-G`` and
    ``sdxl_models/ip-adapter_sdxl``, which read ViT-bigG (``sdxl_models/image_encoder``).
    """
    folder, _, name = file.rpartition("/")
    large = "vit-g" in name.lower() or (folder == "sdxl_models" and "vit-h" not in name.lower())
    usual = ["sdxl_models", "models"] if large else ["models", "sdxl_models"]
    order = usual if folder in usual else [folder, *usual]
    return [f"{place}/image_encoder".lstrip("/") for place in order]


def image_encoder_folder(place: AdapterPlace, width: int, pooled: bool, given: str | None = None) -> Path:
    """The folder of the CLIP image encoder an adapter was trained with: ``given``, or the one beside it that fits.

    ``width``: what the adapter reads, which must be the encoder's ``projection_dim`` (``pooled``) or ``hidden_size``.
    Raises `UserError` where none fits.
    """
    key = "projection_dim" if pooled else "hidden_size"
    seen: dict[str, object] = {}
    missing: list[UserError] = []
    for folder in _encoder_folders(place, given, key, width, missing):
        config = read_json(folder / "config.json", {}, finite=False)
        if config.get(key) == width:
            return folder
        seen[str(folder)] = config.get(key)
    if missing and not seen:
        raise missing[0]
    found = ", ".join(f"{folder} ({key} {value})" for folder, value in seen.items()) or "none found"
    raise UserError(
        f"adapter {str(place.path)!r} reads embeddings of width {width} and no CLIP image encoder of {key} {width} "
        f"lies beside it ({found}); pass --image-encoder DIR"
    )


def _encoder_folders(
    place: AdapterPlace, given: str | None, key: str, width: int, missing: list[UserError]
) -> Iterator[Path]:
    """Folders with a config.json that may be the encoder; those of the hub are asked for one after the other.

    ``missing``: is given the errors of those that cannot be had.
    """
    if given is not None:
        folder = Path(given).expanduser()
        if not (folder / "config.json").is_file():
            raise UserError(f"image encoder {given!r} holds no config.json; pass the folder of a CLIP image encoder")
        yield folder
    elif place.repository is None:
        beside = place.path.parent
        names = ("image_encoder", "../image_encoder", "../models/image_encoder", "../sdxl_models/image_encoder")
        yield from (beside / name for name in names if (beside / name / "config.json").is_file())
    else:
        for name in encoder_places(place.file):
            try:
                folder = _hub_folder(place.repository, name, key, width)
            except UserError as error:
                missing.append(error)
            else:
                yield folder


def _hub_folder(repository: str, name: str, key: str, width: int) -> Path:
    """Folder ``name`` of a repository: its config, and where that fits, the weights too."""
    what, option = f"image encoder {repository}/{name}", "--image-encoder DIR"
    folder = fetch(repository, [f"{name}/config.json"], what, option) / name
    if read_json(folder / "config.json", {}, finite=False).get(key) == width:
        return fetch(repository, [f"{name}/{file}" for file in _ENCODER_FILES], what, option) / name
    return folder


def mini_folder() -> Path:
    """``recon/assets/mini``: a Stable Diffusion folder in diffusers layout, with conditioners."""
    return Path(str(files("recon"))) / "assets" / "mini"
