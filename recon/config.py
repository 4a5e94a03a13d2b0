"""Configuration of the generation side: building the miniature Stable Diffusion, and training conditioners.

What a field may hold is declared in its type, as in `align.config`.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from align.config import BackboneConfig, Config, Pooling, flatten, to_dict
from align.errors import UserError
from align.fields.checks import Checked, Count, Filled, Matches, OneOf, Place, Positive, Share, Source, Whole

STRENGTH = 0.2  # how far a generator that cannot read a sketch may leave the coarse picture it starts from
STAGES = ("clip", "reader", "vae", "decoder", "sketch", "unet")
Layer = Annotated[str, Matches(r"[^\s+]+", "a layer, such as 3 or features.6; layers cannot be joined here")]
Device = Annotated[str, Matches(r"cpu|cuda(:[0-9]+)?", "cpu or cuda")]
DeviceOrAuto = Annotated[str, Matches(r"auto|cpu|cuda(:[0-9]+)?", "auto, cpu or cuda")]
Generator = Annotated[str, Matches(r".*\S.*", "mini, a hub id, or a folder")]
_NAMED = ("study.root", "study.images", "cache_dir", "backbone.weights", "encoder.pretrained")
PLACES = ("study.root", "cache_dir", "backbone.weights")  # where files lie: may be overridden for a finished run


@dataclass
class PicturesConfig(Checked):
    """What the generator and its conditioners are trained on. No test picture or twin of one is ever among them."""

    rendered: Count = 20000  # procedural pictures of the simulated study's training concepts
    photographs: list[Source] = field(default_factory=list)  # zip files or folders of natural photographs
    classes: Source | None = None  # table (.csv: wnid, name) of what photographs in folders named by WordNet id show
    v4_root: Source | None = None  # folder holding data_V4_responses/; its training images only, all sessions
    share_photographs: Share = 0.5  # of every batch


@dataclass
class StageConfig(Checked):
    """Length of one stage of pretraining; 0 steps leave it as it starts."""

    steps: Whole
    batch_size: Count
    lr: Positive


@dataclass
class PretrainConfig(Checked):
    """`recon pretrain`: stages run in this order, each resumes from its last checkpoint."""

    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    clip: StageConfig = field(default_factory=lambda: StageConfig(2500, 192, 1e-3))
    reader: StageConfig = field(default_factory=lambda: StageConfig(1200, 128, 2e-3))
    vae: StageConfig = field(default_factory=lambda: StageConfig(3000, 32, 1e-3))
    decoder: StageConfig = field(default_factory=lambda: StageConfig(500, 16, 3e-4))
    unet: StageConfig = field(default_factory=lambda: StageConfig(7000, 64, 6e-4))
    sketch: StageConfig = field(default_factory=lambda: StageConfig(3000, 16, 2e-3))
    # conditioners trained together with the UNet: backbone, layer, pooling, weights (null = default)
    conditioners: Annotated[list[Annotated[str, OneOf("mini", "squeezenet")]], Filled()] = field(
        default_factory=lambda: ["mini", "squeezenet"]
    )
    mini_layer: Layer = "1"
    squeezenet_layer: Layer = "features.6"
    squeezenet_weights: Source | None = None  # torchvision state dict; also the perceptual loss of the VAE
    mini_pooling: Pooling = "grid:8"
    squeezenet_pooling: Pooling = "grid:7"
    checkpoint_every: Count = 200
    precision: Annotated[str, OneOf("bf16", "fp32")] = "bf16"  # of the forward pass
    device: Device = "cpu"  # random numbers are drawn on the CPU, so every device sees the same
    stages: Annotated[list[Annotated[str, OneOf(*STAGES)]], Filled()] = field(default_factory=lambda: list(STAGES))
    out: Place = "runs/pretrain"  # checkpoints, logs and finished parts
    start_from: Source | None = None  # folder of an earlier pretraining: its finished parts are the starting weights
    assets: Place | None = None  # where the finished model is written; None = <out>/assets
    seed: Whole = 0


@dataclass
class ConditionerConfig(Checked):
    """`accelerate launch recon/train.py`: one conditioner for one (backbone, layer), on a frozen generator."""

    generator: Generator = "mini"  # mini, hub id, or local directory in diffusers layout
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    layer: Layer = "1"
    pooling: Pooling = "grid:4"
    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    train: StageConfig = field(default_factory=lambda: StageConfig(2000, 32, 3e-4))
    sketch: StageConfig = field(default_factory=lambda: StageConfig(1500, 16, 2e-3))  # steps 0 = no sketch
    squeezenet_weights: Source | None = None  # torchvision state dict; with it the sketch also learns to look alike
    device: DeviceOrAuto = "auto"
    checkpoint_every: Count = 100
    run_dir: Place | None = None  # None = runs/recon/<generator>_<backbone>_<layer>
    cache_dir: Place = "cache"
    seed: Whole = 0


def places_in(config: Config, given: Sequence[str] = ()) -> str | None:
    """One line on the paths outside a run that its own configuration names and that will be read or written.

    ``given``: the ``key=value`` pairs that were laid over it; what they name is the caller's own. None where the
    configuration names none.
    """
    told, usual = {pair.partition("=")[0] for pair in given}, dict(flatten(to_dict(Config())))
    values = {key: value for key, value in flatten(to_dict(config)) if key in _NAMED and key not in told}
    named = [f"{key}={value}" for key, value in values.items() if value not in (None, usual[key])]
    how = ", ".join(f"{key}=..." for key in PLACES)
    return f"places named by the run itself: {' '.join(named)} (to take others: {how})" if named else None


def require_places(overrides: Sequence[str]) -> None:
    """Raise `UserError` for a pair that is not of `PLACES`: what a run was trained with stays as it is."""
    for key in (pair.partition("=")[0] for pair in overrides):
        if key not in PLACES:
            near = difflib.get_close_matches(key, PLACES, n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{key!r} cannot be changed for a finished run; only {', '.join(PLACES)} can{hint}")
