"""What drawing with a generator needs before anything is fetched: every file with its size, disk, GPU memory.

The lists are those that fetching uses (`recon.generation.selection`, `patches`, `places`), so nothing is printed that
would not be fetched, and nothing fetched that was not printed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.data.download.part import free_bytes, human
from align.errors import UserError
from recon.generation.hub import HUB_ID, is_cached, listed
from recon.generation.named import Patch, full_name, patch_of
from recon.generation.patches import is_lora, local_patch, patch_files
from recon.generation.places import adapter_file, encoder_places, mini_folder
from recon.generation.selection import INDEX, bytes_per_value, generator_files, weight_files

_WEIGHTS = (".safetensors", ".bin")


@dataclass(frozen=True)
class Need:
    """One file. ``size``: bytes, None = not told. ``in_memory``: of them, as they lie in GPU memory; 0 = no weights."""

    what: str
    repository: str
    path: str
    size: int | None
    cached: bool
    in_memory: int = 0

    @property
    def part(self) -> str:
        """What is moved to a GPU and back as one: a folder of a generator, an adapter, an image encoder."""
        return f"{self.what} {self.path.partition('/')[0] if self.what == 'generator' else ''}".strip()


def needs(
    generator: str,
    half: bool,
    adapter: str | None = None,
    image_encoder: str | None = None,
    bridge: str = "own",
    controlnet: str | None = None,
) -> list[Need]:
    """The files of a generator and of what stands beside it, none twice; what lies on this machine is told as cached.

    Raises `UserError` for names that mean nothing, repositories that nobody knows, generators no adapter here fits.
    """
    found = _of_generator(generator, half)
    if adapter is not None and not Path(adapter).expanduser().exists():
        repository, file = adapter_file(adapter, _family(generator, found))
        found += _of_repository("adapter", repository, [file], f"adapter {adapter!r}", "--adapter FILE")
        if bridge != "own" and image_encoder is None:
            found += _of_encoder(repository, file)
    if controlnet is not None and not Path(controlnet).expanduser().exists():
        what = f"--controlnet {controlnet!r}"
        names = list(listed(controlnet, what, "--controlnet DIR"))
        files = [*weight_files(names, half=False), "config.json"]
        found += _of_repository("controlnet", controlnet, files, what, "--controlnet DIR", half)
    return list({(need.repository, need.path): need for need in found}.values())


def summary(found: list[Need], precision: str, place: Path) -> dict[str, Any]:
    """The dry run as plain values; ``place``: where the hub's cache lies."""
    fetched = [need for need in found if not need.cached]
    by_part: dict[str, int] = {}
    for need in found:
        by_part[need.part] = by_part.get(need.part, 0) + need.in_memory
    to_fetch = sum(need.size or 0 for need in fetched)
    return {
        "precision": precision,
        "files": [
            {"what": n.what, "repository": n.repository, "path": n.path, "bytes": n.size, "cached": n.cached}
            for n in found
        ],
        "bytes_to_fetch": to_fetch,
        "of_unknown_size": sum(need.size is None for need in fetched),
        "bytes_cached": sum(need.size or 0 for need in found if need.cached),
        "cache": str(place),
        "bytes_free": free_bytes(place),
        "gpu_bytes_of_weights": sum(by_part.values()),
        "gpu_bytes_with_offload": max(by_part.values(), default=0),
    }


def as_text(result: dict[str, Any]) -> str:
    """The dry run in lines: every file, then disk and GPU memory."""
    lines = [
        f"  {'cached' if f['cached'] else 'to fetch':9}{_size(f['bytes']):>12}  {f['repository']}  {f['path']}"
        for f in result["files"]
    ]
    unknown = result["of_unknown_size"]
    more = f" and {unknown} file{'s' * (unknown > 1)} of unknown size" if unknown else ""
    short = result["bytes_to_fetch"] > result["bytes_free"]
    lines += [
        f"disk: {human(result['bytes_to_fetch'])}{more} to fetch, {human(result['bytes_cached'])} are there; "
        f"{human(result['bytes_free'])} are free in {result['cache']}{', WHICH IS NOT ENOUGH' if short else ''}",
        f"GPU memory in {result['precision']}: {human(result['gpu_bytes_of_weights'])} for the weights, with --offload "
        f"{human(result['gpu_bytes_with_offload'])} (the largest part); drawing takes more on top, which is not known "
        "before it is measured",
    ]
    return "\n".join(lines)


def _size(size: int | None) -> str:
    return "size unknown" if size is None else human(size)


def _of_generator(name: str, half: bool) -> list[Need]:
    patch = patch_of(name)
    if patch is None:
        return _of_whole(name, half, ())
    local = local_patch(patch.source)
    names = [path.name for path in local] if local is not None else patch_files(patch, half)
    base = _of_whole(patch.base, half, () if is_lora(names) else ("unet",))
    if local is not None:
        return base + [Need("generator", patch.source, path.name, path.stat().st_size, True) for path in local]
    return base + _of_patch(patch, names, half)


def _of_patch(patch: Patch, names: list[str], half: bool) -> list[Need]:
    found = _of_repository(
        "generator", patch.source, names, f"generator {patch.source!r}", "--generator BASE+FILE", half
    )
    if is_lora(names):  # is added to the weights of the base
        return [Need(n.what, n.repository, n.path, n.size, n.cached) for n in found]
    return found


def _of_whole(name: str, half: bool, without: tuple[str, ...]) -> list[Need]:
    folder = mini_folder() if name == "mini" else Path(name).expanduser()
    if (folder / INDEX).is_file():
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        used = generator_files(names, half, name, without)
        sizes = {file: (folder / file).stat().st_size for file in used}
        return [Need("generator", name, file, size, True, _memory(file, size, half)) for file, size in sizes.items()]
    repository, what = full_name(name), f"generator {name!r}"
    if folder.exists() or not HUB_ID.fullmatch(repository):
        raise UserError(f"{what} is no diffusers folder (no {INDEX}) and no hub id; use sd15, sdxl-turbo or the like")
    files = generator_files(listed(repository, what, "--generator DIR"), half, name, without)
    return _of_repository("generator", repository, files, what, "--generator DIR", half)


def _of_encoder(repository: str, adapter: str) -> list[Need]:
    """The image encoder of an adapter: the first of its likely places that the repository has."""
    what = f"image encoder of {repository}"
    names = listed(repository, what, "--image-encoder DIR")
    place = next((name for name in encoder_places(adapter) if f"{name}/config.json" in names), None)
    if place is None:
        raise UserError(f"{what} is not in it (config.json and model.safetensors); pass --image-encoder DIR")
    files = [f"{place}/config.json", f"{place}/model.safetensors"]
    return _of_repository("image encoder", repository, files, what, "--image-encoder DIR")


def _of_repository(
    kind: str, repository: str, files: list[str], what: str, option: str, half: bool = False
) -> list[Need]:
    sizes = listed(repository, what, option)
    absent = next((file for file in files if file not in sizes), None)
    if absent is not None:
        raise UserError(f"{what}: {repository} has no {absent}; {option}")
    return [
        Need(kind, repository, file, sizes[file], is_cached(repository, file), _memory(file, sizes[file] or 0, half))
        for file in files
    ]


def _memory(path: str, size: int, half: bool) -> int:
    """Bytes of weights in memory, in 16 or 32 bit; those of a file whose own format is not known, as in the file."""
    if not path.endswith(_WEIGHTS):
        return 0
    own = bytes_per_value(path)
    return size if own is None else size * (2 if half else 4) // own


def _family(generator: str, found: list[Need]) -> str:
    """ "sdxl" where the generator has a second text encoder, else "sd"."""
    return "sdxl" if any(need.path.startswith("text_encoder_2/") for need in found) else "sd"
