"""Stock pipelines from a folder: which kinds are known, in which number format, and what each is meant for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.files import read_json
from recon.config import STRENGTH
from recon.generation.bounds import require_sensible
from recon.generation.foreign import require_known_parts, require_no_code
from recon.generation.patches import LORA, add_lora
from recon.generation.runtime import Runtime
from recon.generation.selection import INDEX, UNUSED, holds_half

FAMILIES = {
    "StableDiffusionPipeline": "sd",
    "StableDiffusionInstructPix2PixPipeline": "sd",
    "LatentConsistencyModelPipeline": "sd",
    "StableDiffusionXLPipeline": "sdxl",
}
# the same parts; only the plain pipeline has what encodes prompts for our loop
_READ_AS = {"StableDiffusionInstructPix2PixPipeline": "StableDiffusionPipeline"}

MOST_LATENTS = 512  # their side, for pictures of 4096 px


@dataclass(frozen=True)
class Defaults:
    """Steps and guidance a generator is meant for, and how far it may leave a coarse picture (1 = from noise)."""

    steps: int
    guidance_scale: float
    strength: float = STRENGTH


def family_of(folder: Path) -> str:
    """The family, "sd" or "sdxl"; raises `UserError` for a pipeline of another kind."""
    kind = _kind(folder)
    if kind not in FAMILIES:
        raise UserError(f"generator {str(folder)!r} is a {kind}; known kinds: {', '.join(FAMILIES)}")
    return FAMILIES[kind]


def _kind(folder: Path) -> str:
    kind: str = read_json(folder / INDEX, {"_class_name": str}, finite=False)["_class_name"]
    return kind


def load_pipeline(folder: Path, runtime: Runtime) -> Any:
    """The stock pipeline in ``folder``, without safety checker, on the CPU, in the number format of ``runtime``.

    Raises `UserError` for a pipeline of another kind, for a folder that is not whole, and, before any library looks at
    it, for one with code or with parts that are not of diffusers and transformers.
    """
    family, what = family_of(folder), f"generator {str(folder)!r}"
    require_no_code(folder, what)
    index = read_json(folder / INDEX, {}, finite=False)
    require_known_parts(folder, index, what)
    require_sensible(folder, what)
    import diffusers
    from diffusers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    options: dict[str, Any] = {"dtype": runtime.dtype, "local_files_only": True}
    options |= {part: None for part in UNUSED if part in index}
    if family == "sd":
        options |= {"safety_checker": None, "requires_safety_checker": False}
    if holds_half(folder / "unet") and (runtime.half or not any((folder / "unet").glob("*model.safetensors"))):
        options["variant"] = "fp16"
    try:
        kind = _kind(folder)
        pipe = getattr(diffusers, _READ_AS.get(kind, kind)).from_pretrained(folder, **options)
    except Exception as error:  # both libraries fail in as many ways as folders can be broken
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"generator {str(folder)!r} cannot be read: {reason}") from error
    size = pipe.unet.config.sample_size
    if not isinstance(size, int) or not 0 < size <= MOST_LATENTS:
        raise UserError(f"{what} draws latents of side {size}; one whole number to {MOST_LATENTS} is read here")
    if (folder / LORA).is_file():
        add_lora(pipe.unet, folder / LORA)
    return pipe.to(dtype=runtime.dtype)  # text encoders keep the format of their files otherwise


def reads_sketch(pipe: Any) -> bool:
    """Whether the UNet has a second set of input channels, for the latents of a sketch (the layout of stock
    ``StableDiffusionInstructPix2PixPipeline``)."""
    return int(pipe.unet.config.in_channels) == 2 * int(pipe.vae.config.latent_channels)


def defaults_of(pipe: Any, kind: str) -> Defaults:
    """Few-step generators, told by their scheduler: LCM, or Euler with trailing timesteps (SDXL-Turbo, Lightning): 4
    steps without guidance (8.5 where it is an input of the UNet: Luo et al. 2023, arXiv 2310.04378). Own conditioners:
    12 steps and guidance 2; where the UNet reads a sketch guidance 2.5 and from noise (chosen on training photographs,
    see the decisions). Public adapters: 30 steps and the guidance that their own code and the stock pipeline start from
    (7.5; SDXL 5)."""
    scheduler = type(pipe.scheduler).__name__
    if pipe.unet.config.time_cond_proj_dim is not None:
        return Defaults(4, 8.5)
    trailing = pipe.scheduler.config.get("timestep_spacing") == "trailing"
    if scheduler.startswith("LCM") or (scheduler.startswith("Euler") and trailing):
        return Defaults(4, 1.0)
    if kind == "own":
        return Defaults(12, 2.5, 1.0) if reads_sketch(pipe) else Defaults(12, 2.0, STRENGTH)
    return Defaults(30, 5.0 if FAMILIES[type(pipe).__name__] == "sdxl" else 7.5)
