"""Which files of a generator's repository or folder are used: one copy of the weights, of the parts that are loaded.

Repositories hold the same weights several times (32 and 16 bit, ONNX, Flax, all-in-one files) and parts that are never
used here (safety checker, feature extractor). The UNet of SDXL-Turbo alone is 10.3 GB in 32 and 5.1 GB in 16 bit.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from align.errors import UserError

INDEX = "model_index.json"
MODELS = ("unet", "vae", "text_encoder", "text_encoder_2")
OTHERS = ("scheduler", "tokenizer", "tokenizer_2")
NEEDED = ("unet", "vae", "text_encoder", "scheduler", "tokenizer")
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")  # parts a pipeline may name; none is ever loaded
HALF = "fp16"  # the hub's name of the copy with 2 bytes per value
_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|model)(?:\.(\w+))?(?:-\d{5}-of-\d{5})?(?:\.(\w+))?\.safetensors(?:\.index(?:\.\w+)?\.json)?"
)
_VARIANT_OF_INDEX = re.compile(r"\.index\.(\w+)\.json$")


def generator_files(files: Iterable[str], half: bool, name: str, without: Collection[str] = ()) -> list[str]:
    """The files that drawing with a generator needs, of the paths ``files`` of its repository, sorted.

    ``half``: it runs in 16 bit, so that the copy with 2 bytes per value is taken where there is one; otherwise the one
    with 4, or the only one. ``without``: parts whose weights come from elsewhere; their configuration is still taken.

    Raises `UserError` for a repository that is no Stable Diffusion 1.5 or XL, or lacks a part or its safetensors.
    """
    files = list(files)
    by_part: dict[str, list[str]] = {}
    for path in files:
        part, _, file = path.partition("/")
        if file and "/" not in file:
            by_part.setdefault(part, []).append(file)
    if INDEX not in files or "unet" not in by_part:
        raise UserError(_no_generator(files, by_part, name))
    lacking = [part for part in NEEDED if part not in by_part]
    if lacking:
        raise UserError(f"generator {name!r} has no {lacking[0]}/; take another, such as sd15 or sdxl-turbo")
    found = [INDEX]
    for part, own in by_part.items():
        if part in OTHERS:
            found += [f"{part}/{file}" for file in own if file.endswith((".json", ".txt", ".model"))]
        elif part in MODELS:
            weights = [] if part in without else weight_files(own, half)
            if not weights and part not in without:
                raise UserError(f"generator {name!r} has no .safetensors weights in {part}/; take another repository")
            found += [f"{part}/{file}" for file in ["config.json", *weights] if file in own]
    return sorted(found)


def weight_files(files: Iterable[str], half: bool) -> list[str]:
    """The weights of one part, of the file names in its folder: one copy, with its index where it is in pieces."""
    copies: dict[str, list[str]] = {}
    for file in files:
        match = _WEIGHTS.fullmatch(file)
        if match:
            index = _VARIANT_OF_INDEX.search(file)
            copies.setdefault(match[1] or match[2] or (index[1] if index else ""), []).append(file)
    whole = [copy for copy, own in copies.items() if any(file.endswith(".safetensors") for file in own)]
    order = [HALF, ""] if half else ["", HALF]
    chosen = next((copy for copy in order if copy in whole), None)
    return [] if chosen is None else sorted(copies[chosen])


def holds_half(folder: Path) -> bool:
    """Whether a part's folder has the copy with 2 bytes per value."""
    return any(bytes_per_value(path.name) == 2 for path in folder.glob("*.safetensors"))


def bytes_per_value(path: str) -> int | None:
    """2 or 4 for a file of weights under the usual names, by its name; None for any other."""
    match = _WEIGHTS.fullmatch(path.rpartition("/")[2])
    return None if match is None else 2 if HALF in (match[1], match[2]) else 4


def _no_generator(files: list[str], by_part: Mapping[str, list[str]], name: str) -> str:
    """What a repository without the parts of Stable Diffusion is."""
    if "transformer" in by_part:
        return (
            f"generator {name!r} draws with a transformer (FLUX, SD 3 and the like); the adapters here are made for "
            "the UNet of Stable Diffusion 1.5 and XL: use sd15, sdxl, sdxl-turbo or the like"
        )
    if any(file.endswith(".safetensors") for file in files):
        return (
            f"generator {name!r} holds no whole pipeline; a UNet or a LoRA is drawn with through its base: "
            f"--generator sdxl+{name} or sd15+{name} (or +{name}/FILE)"
        )
    return (
        f"generator {name!r} is no Stable Diffusion in diffusers layout (no {INDEX}); use sd15, sdxl-turbo or the like"
    )
