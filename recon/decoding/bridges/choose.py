"""From words on the command line to an adapter and the bridge that leads to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from align.errors import UserError
from recon.decoding.bridges.image_encoder import load_image_encoder
from recon.decoding.bridges.prior import PriorConfig, prior_bridge
from recon.decoding.bridges.resume import resume_bridge
from recon.decoding.bridges.ridge import ridge_bridge
from recon.decoding.conditions import TOKENS
from recon.decoding.guidance import Guidance
from recon.decoding.low_level import LOW_LEVEL
from recon.decoding.words import WORDS
from recon.generation.adapters import Adapter, load_adapter
from recon.generation.bridge import Bridge, own_bridge
from recon.generation.control import Control
from recon.generation.places import ADAPTERS, find_adapter, image_encoder_folder
from recon.words.alignment import ALIGNMENTS

if TYPE_CHECKING:
    import torch

    from align.checkpoint import Run
    from recon.generation.conditioner import ConditionerInfo

BRIDGES = ("own", "resume", "prior", "ridge")


@dataclass(frozen=True)
class Conditioning:
    """``adapter``: file, folder or hub id; None = the own conditioner that fits. ``match``: `bridges.matching`.

    ``tokens``: one of `recon.decoding.conditions.TOKENS`; None = predicted where the run predicts what the conditioner
    takes, else from the library. ``low_level``: one of `recon.decoding.low_level.LOW_LEVEL`; None = both for an
    encoding model, tokens where the conditioner has a sketch, else none. ``words``: one of
    `recon.decoding.words.WORDS`; ``text_tower``: of pivot and joint, None = mini. ``best_of``: samples among which the
    brain chooses (`recon.drawing.best_of`). ``controlnet``: folder or hub id of a ControlNet or T2I-Adapter;
    ``control``, ``control_scale``: what it reads and how strong it is, None = edges and 1
    (`recon.generation.control.Control`). ``library``: folder or zip of further pictures that tokens may be taken of
    (`recon.decoding.library`). ``guide``: how the response pulls at the picture while it is drawn, None = not at all.

    Raises `UserError` for anything else.
    """

    adapter: str | None = None
    bridge: str = "own"
    image_encoder: str | None = None
    match: str = "spread"
    prior: PriorConfig = field(default_factory=PriorConfig)
    tokens: str | None = None
    low_level: str | None = None
    words: str = "none"
    text_tower: str | None = None
    best_of: int = 1
    controlnet: str | None = None
    library: str | Path | None = None
    guide: Guidance | None = None
    control: str | None = None
    control_scale: float | None = None

    def __post_init__(self) -> None:
        if self.tokens not in (None, *TOKENS):
            raise UserError(f"tokens {self.tokens!r} are not known; use {', '.join(TOKENS)}")
        if self.low_level not in (None, *LOW_LEVEL):
            raise UserError(f"low-level path {self.low_level!r} is not known; use {', '.join(LOW_LEVEL)}")
        if self.words not in WORDS:
            raise UserError(f"words {self.words!r} is not known; use {', '.join(WORDS)}")
        if self.text_tower is not None and self.words not in ALIGNMENTS:
            raise UserError(f"--text-tower is of --words {' and '.join(ALIGNMENTS)}; pass one of them too")
        if self.best_of < 1:
            raise UserError(f"--best-of {self.best_of} should be 1 or more")
        if self.library is not None and self.tokens == "predicted":
            raise UserError("--library gives tokens of its pictures in place of predicted ones; leave --tokens out")
        if self.control_of is None and (self.control, self.control_scale) != (None, None):
            raise UserError("--control and --control-scale are of a ControlNet or T2I-Adapter; pass --controlnet too")

    @property
    def control_of(self) -> Control | None:
        """ControlNet or T2I-Adapter with what it reads, None where there is none."""
        if self.controlnet is None:
            return None
        return Control(
            self.controlnet, self.control or "edges", 1.0 if self.control_scale is None else self.control_scale
        )


def default_adapter(generator: str, bridge: str) -> str | None:
    """What no --adapter means: the own conditioner (None), or for a bridge to a public adapter `ADAPTERS`.

    The embedded generator has no public adapter.
    """
    return None if bridge == "own" or generator == "mini" else ADAPTERS


def adapter_and_bridge(
    run: Run, wanted: Conditioning, generator: str, family: str, device: torch.device | str = "cpu"
) -> tuple[Adapter, Bridge]:
    """Read the adapter and make the bridge to it from the run's tokens. ``device``: where frozen networks run.

    Raises `UserError`, one line, for what is missing and for what does not fit together.
    """
    if wanted.bridge not in BRIDGES:
        raise UserError(f"bridge {wanted.bridge!r} is not known; use {', '.join(BRIDGES)}")
    target = run.config.target
    if wanted.adapter is None:
        if wanted.bridge != "own":
            raise UserError(
                f"bridge {wanted.bridge} leads to a public adapter; pass --adapter FILE, DIR or HUB_ID "
                "such as h94/IP-Adapter"
            )
        adapter = load_adapter(_conditioner(run, wanted.tokens, generator))
        _require_view(run, adapter)
        return adapter, own_bridge(adapter)
    place = find_adapter(wanted.adapter, family)
    adapter = load_adapter(place.path)
    if wanted.bridge == "own":
        _require_view(run, adapter)
        return adapter, own_bridge(adapter)
    if adapter.kind == "own":
        raise UserError(f"bridge {wanted.bridge} leads to a public adapter, {wanted.adapter!r} is an own conditioner")
    folder = image_encoder_folder(place, adapter.width, adapter.kind == "pooled", wanted.image_encoder)
    encoder = load_image_encoder(folder)
    encoder.backbone.to(device)
    if wanted.bridge == "resume":
        from align.vision.backbones import load_backbone

        backbone = load_backbone(run.config.backbone).to(device)
        return adapter, resume_bridge(adapter, encoder, backbone, target.layer, target.pooling)
    if wanted.bridge == "prior":
        return adapter, prior_bridge(run, adapter, encoder, wanted.prior)
    return adapter, ridge_bridge(run, adapter, encoder)


def _conditioner(run: Run, tokens: str | None, generator: str) -> Path:
    """Own conditioner of the run's layer, or, for tokens from a library, of any layer of its backbone."""
    from align.checkpoint import home
    from recon.generation.pipeline import find_conditioner, own_conditioners

    backbone, target = run.config.backbone.name, run.config.target
    found = own_conditioners(backbone, home(), generator)
    if run.aligner.has_tokens and tokens in (None, "predicted"):
        exact = [path for path, info in found.items() if (info.layer, info.pooling) == (target.layer, target.pooling)]
        if exact:
            return next((path for path in exact if not _sees_otherwise(run, found[path])), exact[0])
    if found and tokens != "predicted":
        return next(iter(found))
    return find_conditioner(backbone, target.layer, target.pooling, home(), generator)


def _sees_otherwise(run: Run, info: ConditionerInfo) -> bool:
    """Whether the backbone was shown the pictures in another way for the conditioner than for the run, where both say.

    A run of before this was kept says at most that it has no crop.
    """
    own = run.meta.get("resizing")
    if own is None:
        return run.config.backbone.crop == "none" and bool(info.resizing) and not info.resizing.endswith("no crop")
    return info.resizing not in ("", own)


def _require_view(run: Run, adapter: Adapter) -> None:
    if adapter.info is not None and _sees_otherwise(run, adapter.info):
        own, crop = run.meta.get("resizing", "whole picture, no crop"), run.config.backbone.crop
        raise UserError(
            f"conditioner {str(adapter.path)!r} takes tokens of pictures that were resized otherwise "
            f"({adapter.info.resizing}) than those of run {run.path} ({own}); train one for them: accelerate launch "
            f"recon/train.py backbone.crop={crop}"
        )
