"""Configuration of the generation side: building the miniature Stable Diffusion, and training conditioners."""

from __future__ import annotations

from dataclasses import dataclass, field

from align.config import BackboneConfig


@dataclass
class PicturesConfig:
    """What the generator and its conditioners are trained on. No test picture or twin of one is ever among them."""

    rendered: int = 20000  # procedural pictures of the simulated study's training concepts
    photographs: list[str] = field(default_factory=list)  # zip files or folders of natural photographs
    classes: str | None = None  # table (.csv: wnid, name) of what photographs in folders named by WordNet id show
    v4_root: str | None = None  # folder holding data_V4_responses/; its training images only, all sessions
    share_photographs: float = 0.5  # of every batch


@dataclass
class StageConfig:
    """Length of one stage of pretraining."""

    steps: int
    batch_size: int
    lr: float


@dataclass
class PretrainConfig:
    """`recon pretrain`: stages run in this order, each resumes from its last checkpoint."""

    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    clip: StageConfig = field(default_factory=lambda: StageConfig(2500, 192, 1e-3))
    reader: StageConfig = field(default_factory=lambda: StageConfig(1200, 128, 2e-3))
    vae: StageConfig = field(default_factory=lambda: StageConfig(3000, 32, 1e-3))
    unet: StageConfig = field(default_factory=lambda: StageConfig(7000, 64, 6e-4))
    sketch: StageConfig = field(default_factory=lambda: StageConfig(3000, 16, 2e-3))
    # conditioners trained together with the UNet: backbone, layer, pooling, weights (null = default)
    conditioners: list[str] = field(default_factory=lambda: ["mini", "squeezenet"])
    mini_layer: str = "1"
    squeezenet_layer: str = "features.6"
    squeezenet_weights: str | None = None  # torchvision state dict; also the perceptual loss of the VAE
    mini_pooling: str = "grid:4"
    squeezenet_pooling: str = "grid:7"
    num_tokens: int = 16
    checkpoint_every: int = 200
    precision: str = "bf16"  # bf16 | fp32, of the forward pass
    device: str = "cpu"  # cpu | cuda; random numbers are drawn on the CPU, so both see the same
    stages: list[str] = field(default_factory=lambda: ["clip", "reader", "vae", "sketch", "unet"])
    out: str = "runs/pretrain"  # checkpoints, logs and finished parts
    start_from: str | None = None  # folder of an earlier pretraining: its finished parts are the starting weights
    assets: str | None = None  # where the finished model is written; None = <out>/assets
    seed: int = 0


@dataclass
class ConditionerConfig:
    """`accelerate launch recon/train.py`: one conditioner for one (backbone, layer), on a frozen generator."""

    generator: str = "mini"  # mini, hub id, or local directory in diffusers layout
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    layer: str = "1"
    pooling: str = "grid:4"
    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    num_tokens: int = 16
    train: StageConfig = field(default_factory=lambda: StageConfig(2000, 32, 3e-4))
    sketch: StageConfig = field(default_factory=lambda: StageConfig(1500, 16, 2e-3))  # steps 0 = no sketch
    squeezenet_weights: str | None = None  # torchvision state dict; with it the sketch also learns to look alike
    device: str = "auto"  # auto | cpu | cuda
    checkpoint_every: int = 100
    run_dir: str | None = None  # None = runs/recon/<generator>_<backbone>_<layer>
    cache_dir: str = "cache"
    seed: int = 0
