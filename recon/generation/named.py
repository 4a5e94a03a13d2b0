"""Names of generators: short ones, hub ids, and BASE+PATCH for a UNet or a LoRA that is drawn with through its base.

``sdxl-turbo`` is stabilityai/sdxl-turbo; ``latent-consistency/lcm-lora-sdxl`` is a LoRA, whose base SDXL is known;
``sd15+someone/some-lcm-lora`` names the base of one that is not known. Short names may be written in capitals.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from align.errors import UserError

SHORT = {
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "sdxl-turbo": "stabilityai/sdxl-turbo",
    "lcm-dreamshaper": "SimianLuo/LCM_Dreamshaper_v7",
    "lcm-lora-sd15": "latent-consistency/lcm-lora-sdv1-5",
    "lcm-lora-sdxl": "latent-consistency/lcm-lora-sdxl",
    "lcm-sdxl": "latent-consistency/lcm-sdxl",
    "sdxl-lightning": "ByteDance/SDXL-Lightning",
}
_REFUSED = ("flux", "stable-diffusion-3", "sd3")  # in names of generators without a UNet
LCM, TRAILING = "lcm", "trailing"  # schedulers of few-step generators


@dataclass(frozen=True)
class Patch:
    """What replaces or changes the UNet of ``base``. ``source``: repository, or local file or folder.

    ``file``: path in the repository, "" = by its list. ``scheduler``: `LCM`, `TRAILING` (Euler with trailing timesteps)
    or "" for that of the base.
    """

    base: str
    source: str
    file: str = ""
    scheduler: str = ""


# what a bare hub id of a UNet or LoRA means: its base, file and scheduler, as their pages say
_KNOWN = {
    "latent-consistency/lcm-sdxl": Patch("sdxl", "latent-consistency/lcm-sdxl", "", LCM),
    "latent-consistency/lcm-lora-sdxl": Patch("sdxl", "latent-consistency/lcm-lora-sdxl", "", LCM),
    "latent-consistency/lcm-lora-sdv1-5": Patch("sd15", "latent-consistency/lcm-lora-sdv1-5", "", LCM),
    "ByteDance/SDXL-Lightning": Patch(
        "sdxl", "ByteDance/SDXL-Lightning", "sdxl_lightning_4step_unet.safetensors", TRAILING
    ),
}


def spelled(name: str) -> str:
    """Short names, ``mini`` among them, in small letters, alone and in BASE+PATCH; a path or hub id as it is."""
    if Path(name).expanduser().exists():
        return name
    return "+".join(part.lower() if part.lower() in (*SHORT, "mini") else part for part in name.split("+"))


def full_name(name: str) -> str:
    """The hub id of a short name, anything else as it is; both name one generator."""
    own = spelled(name)
    return SHORT.get(own, own)


def patch_of(name: str) -> Patch | None:
    """The patch that a name means, None for a whole generator. Raises `UserError` for a generator without a UNet."""
    if Path(name).expanduser().exists():
        return None
    name = spelled(name)
    base, plus, source = name.partition("+")
    if plus:
        return _through(base, full_name(source))
    refuse_transformers(name)
    repository, file = split_file(full_name(name))
    known = _KNOWN.get(repository)
    return known if known is None or not file else Patch(known.base, repository, file, known.scheduler)


def _through(base: str, source: str) -> Patch:
    for name in (base, source):
        refuse_transformers(name)
    if not base or not source:
        raise UserError(
            f"generator '{base}+{source}' should be BASE+PATCH, such as sdxl+latent-consistency/lcm-lora-sdxl"
        )
    repository, file = (source, "") if Path(source).expanduser().exists() else split_file(source)
    known = _KNOWN.get(repository, Patch(base, repository))
    return Patch(base, repository, file or known.file, known.scheduler or _scheduler_by_name(source))


def split_file(name: str) -> tuple[str, str]:
    """("owner/name", "path/inside") of a hub id with a path."""
    parts = name.split("/")
    return "/".join(parts[:2]), "/".join(parts[2:])


def refuse_transformers(name: str) -> None:
    """Raise `UserError` for the names of FLUX and Stable Diffusion 3, which no adapter here fits."""
    last = full_name(name).lower().rstrip("/").rpartition("/")[2]
    if any(last.startswith(word) for word in _REFUSED):
        raise UserError(
            f"generator {name!r} draws with a transformer (FLUX, SD 3); the adapters here are made for the UNet of "
            "Stable Diffusion 1.5 and XL: use sd15, sdxl, sdxl-turbo or the like"
        )


def _scheduler_by_name(source: str) -> str:
    word = source.lower()
    if "lcm" in word:
        return LCM
    return TRAILING if any(kind in word for kind in ("lightning", "turbo", "hyper")) else ""
