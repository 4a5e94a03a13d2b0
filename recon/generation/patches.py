"""A UNet or a LoRA of its own and the base it is made for, put together as one generator folder.

The folder holds links to the files of both, so nothing is stored twice; only the scheduler's configuration is written.
A LoRA lies in it as a file of its own and is added to the UNet when the generator is loaded.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from align.checkpoint import home
from align.data.names import file_name
from align.errors import UserError
from align.files import atomic_folder, beside, locked, read_json, read_tensors, write_json
from recon.generation.hub import fetch, listed
from recon.generation.named import LCM, TRAILING, Patch
from recon.generation.selection import INDEX, weight_files

LORA = "lora.safetensors"
_LORA_FILE = "pytorch_lora_weights.safetensors"  # its usual name on the hub
_UNET_FILE = "diffusion_pytorch_model.safetensors"
# of a scheduler's configuration, what holds for every scheduler of the same model
_SHARED = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type", "steps_offset")


def patch_files(patch: Patch, half: bool) -> list[str]:
    """The files of the patch's repository that are used: weights first. Raises `UserError` where it is not clear."""
    files = list(listed(patch.source, f"generator {patch.source!r}", "--generator BASE+FILE"))
    if patch.file:
        if patch.file not in files:
            raise UserError(f"generator {patch.source!r} has no {patch.file!r}; it holds {_some(files)}")
        return [patch.file]
    if _LORA_FILE in files:
        return [_LORA_FILE]
    for folder in ("", "unet/"):
        own = [name.removeprefix(folder) for name in files if name.startswith(folder)]
        weights = weight_files([name for name in own if "/" not in name], half)
        if weights and "config.json" in own:
            return [*(f"{folder}{name}" for name in weights), f"{folder}config.json"]
    raise UserError(f"generator {patch.source!r}: name the file, as {patch.source}/FILE; it holds {_some(files)}")


def is_lora(files: list[str]) -> bool:
    """Whether the files of a patch are a LoRA, by the name of the weights."""
    return "lora" in files[0].rpartition("/")[2].lower()


def local_patch(source: str) -> list[Path] | None:
    """The files of a patch on this machine, weights first; None where it is no local path. Raises `UserError`."""
    path = Path(source).expanduser()
    if not path.exists():
        return None
    if path.is_file():
        return [path]
    lora = path / _LORA_FILE
    if lora.is_file():
        return [lora]
    for folder in (path, path / "unet"):
        weights = weight_files([file.name for file in folder.glob("*.safetensors*")], half=False)
        if weights and (folder / "config.json").is_file():
            return [*(folder / name for name in weights), folder / "config.json"]
    raise UserError(f"generator {source!r} holds neither a LoRA nor a UNet with config.json; pass the file itself")


def fetch_patch(patch: Patch, half: bool) -> list[Path]:
    """The files of a patch, fetched where they are not here, weights first."""
    local = local_patch(patch.source)
    if local is not None:
        return local
    files = patch_files(patch, half)
    folder = fetch(patch.source, files, f"generator {patch.source!r}", "--generator BASE+FILE")
    return [folder / name for name in files]


def put_together(base: Path, patch: Patch, files: list[Path]) -> Path:
    """The folder of ``base`` with ``files`` of the patch; made once, under ``cache/generators`` of `home`."""
    lora = is_lora([path.name for path in files])
    parts = sorted(path for path in base.rglob("*") if path.is_file())
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in (*parts, *files)]
    digest = hashlib.sha256(repr((stats, patch.scheduler)).encode()).hexdigest()[:16]
    label = file_name(patch.source.rstrip("/").rpartition("/")[2])
    made = home() / "cache" / "generators" / f"{label}-{digest}"
    doing = f"putting {patch.source!r} and its base together"
    made.parent.mkdir(parents=True, exist_ok=True)
    with locked(beside(made, "lock"), doing, wait=None, keep=False):
        if not (made / INDEX).is_file():
            with atomic_folder(made) as folder:
                for name, path in _links(base, parts, files, lora).items():
                    _link(path, folder / name)
                _write_scheduler(folder, patch.scheduler)
    return made


def _links(base: Path, parts: list[Path], files: list[Path], lora: bool) -> dict[str, Path]:
    """Names in the new folder and the files they stand for: those of the base, then, in their place, the patch's."""
    links = {path.relative_to(base).as_posix(): path for path in parts}
    if lora:
        return links | {LORA: files[0]}
    kept = {name: path for name, path in links.items() if not name.startswith("unet/") or name == "unet/config.json"}
    one = sum(path.suffix == ".safetensors" for path in files) == 1
    return kept | {f"unet/{_UNET_FILE if one and path.suffix == '.safetensors' else path.name}": path for path in files}


def add_lora(unet: Any, path: Path) -> None:
    """Add a LoRA (Hu et al. 2021, arXiv 2106.09685) to the weights of ``unet``: W + alpha / rank * up @ down.

    Names as kohya's scripts or as diffusers write them. Raises `UserError` for a tensor that is of no part of ``unet``.
    """
    import torch

    modules = {name: module for name, module in unet.named_modules() if getattr(module, "weight", None) is not None}
    by_underscores = {name.replace(".", "_"): name for name in modules}
    found: dict[str, dict[str, torch.Tensor]] = {}
    what = f"{str(path)!r} is no LoRA of this UNet"
    for key, value in read_tensors(path)[0].items():
        place, kind = _lora_place(key, by_underscores)
        if place not in modules or kind is None:
            raise UserError(f"{what}: it has no part for {key!r}; is the base another one?")
        found.setdefault(place, {})[kind] = value.float()
    for place, own in found.items():
        weight = modules[place].weight
        if not {"up", "down"} <= set(own):
            raise UserError(f"{str(path)!r} is not whole: {place} lacks {'up' if 'down' in own else 'down'}")
        up, down = own["up"], own["down"]
        change = (up.flatten(1) @ down.flatten(1)) * (float(own["alpha"]) / len(down) if "alpha" in own else 1.0)
        if change.numel() != weight.numel() or len(change) != len(weight):
            raise UserError(f"{what}: {place} has another shape; is the base another one?")
        weight.data = (weight.float() + change.view(weight.shape)).to(weight.dtype)


def _lora_place(key: str, by_underscores: dict[str, str]) -> tuple[str, str | None]:
    """(module of the UNet, "up" | "down" | "alpha" | None) of a tensor's name."""
    kinds = {
        ".lora_down.weight": "down",
        ".lora_up.weight": "up",
        ".alpha": "alpha",
        ".lora_A.weight": "down",
        ".lora_B.weight": "up",
        ".lora.down.weight": "down",
        ".lora.up.weight": "up",
    }
    ending = next((end for end in kinds if key.endswith(end)), "")
    place = key.removesuffix(ending)
    if place.startswith("lora_unet_"):
        place = by_underscores.get(place.removeprefix("lora_unet_"), place)
    return place.removeprefix("unet."), kinds.get(ending)


def _write_scheduler(folder: Path, kind: str) -> None:
    """The scheduler that a few-step patch is meant for, with the noise levels of the base."""
    if not kind:
        return
    path = folder / "scheduler" / "scheduler_config.json"
    base = read_json(path, {}, finite=False)
    shared = {name: base[name] for name in _SHARED if name in base}
    own = {
        LCM: {"_class_name": "LCMScheduler", "clip_sample": False, "set_alpha_to_one": False},
        TRAILING: {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"},
    }[kind]
    index = read_json(folder / INDEX, {}, finite=False)
    for target, content in (
        (path, shared | own),
        (folder / INDEX, index | {"scheduler": ["diffusers", own["_class_name"]]}),
    ):
        target.unlink()  # a link, which is not written through
        write_json(target, content)


def _link(source: Path, target: Path) -> None:
    """A link where the system allows one, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.symlink(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _some(names: list[str]) -> str:
    weights = [name for name in names if name.endswith(".safetensors")] or names
    return ", ".join(weights[:6]) + (f" and {len(weights) - 6} more" if len(weights) > 6 else "")
