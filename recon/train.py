"""Trains a conditioner: true tokens of one backbone layer to pictures, on a frozen generator, without brain data.

accelerate launch recon/train.py backbone.name=mini layer=3 train.steps=2000        # the embedded generator, CPU
accelerate launch recon/train.py --config configs/recon/conditioner.yaml pictures.photographs=[photos.zip]
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

try:
    from align.config import add_config_option, load_config
except ModuleNotFoundError as error:  # a script's own folder is on the path, not the project's
    sys.exit(f"error: the project is not installed ({error}); run `pip install -e .` in its folder first")
from align.errors import UserError, run_command
from align.files import locked
from align.files.launched import refuse
from align.train import use_all_cores
from align.training.launcher import refuse_options
from recon.config import ConditionerConfig, StageConfig

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from align.vision.backbones import Backbone
    from recon.generation.conditioner import Conditioner
    from recon.generation.loop import Loss
    from recon.generation.sketch import Sketch
    from recon.pretraining.pictures import Pool
    from recon.pretraining.tokens import Tokens


def train(config: ConditionerConfig) -> Path:
    """Train to ``train.steps`` and ``sketch.steps``, each from its last checkpoint; returns ``ip_adapter.safetensors``.

    Raises `UserError` for a bad configuration, a generator that cannot be trained on or read, and for a device that is
    not there.
    """
    import torch

    from align.vision.backbones import load_backbone
    from recon.generation.conditioner import WEIGHTS, Conditioner, ConditionerInfo, save_conditioner
    from recon.generation.named import spelled
    from recon.pretraining.pictures import load_pool
    from recon.pretraining.tokens import Tokens, channel_statistics, encode_pool

    config.check()
    config = replace(config, generator=spelled(config.generator))
    pipe, device = _pipeline(config)
    backbone = load_backbone(config.backbone)
    layer = _layer(config, backbone)
    pool = load_pool(config.pictures, Path(config.cache_dir) / "pictures")
    values = _tokens(config, backbone, layer, pool)
    run_dir = Path(config.run_dir or default_run_dir(config, layer))
    size = pipe.unet.config.sample_size * pipe.vae_scale_factor
    pipe.to(device)
    with locked(run_dir / ".train.lock", f"training into {str(run_dir)!r}", keep=False):
        latents = encode_pool(pipe.vae, pool, run_dir / "latents.npy", size)
        torch.manual_seed(config.seed)
        n_tokens, width = values.shape[1:]
        taken = (backbone.name, layer, config.pooling, n_tokens, width)
        info = ConditionerInfo(*taken, config.generator, backbone.resizing)
        conditioner = Conditioner(pipe.unet, info, *channel_statistics(values)).to(device)
        work = _Work(config, pipe, pool, Tokens(values, 0, conditioner), latents, size, run_dir)
        sketch = _train_sketch(work)
        averaged = _train_conditioner(work, sketch)
        facts = training_facts(config, pool)
        save_conditioner(averaged.cpu(), run_dir / WEIGHTS, facts, None if sketch is None else sketch.cpu())
        return run_dir / WEIGHTS


def training_facts(config: ConditionerConfig, pool: Pool) -> dict[str, str]:
    """What the file says about its training, beside what it takes: numbers, and names of the sources of pictures."""
    sources = [Path(source).name for source in config.pictures.photographs]
    sources += ["training images of V4_compact_models"] if config.pictures.v4_root else []
    facts: dict[str, Any] = {"steps": config.train.steps, "batch_size": config.train.batch_size, "lr": config.train.lr}
    facts |= {"seed": config.seed, "rendered": pool.n_rendered}
    facts |= {"photographs": len(pool.ids) - pool.n_rendered, "sources": json.dumps(sources)}
    return {key: str(value) for key, value in facts.items()}


@dataclass(frozen=True)
class _Work:
    """What both parts are trained on: the frozen pipeline, the pictures, their tokens and latents, and where to."""

    config: ConditionerConfig
    pipe: Any
    pool: Pool
    source: Tokens
    latents: np.ndarray
    size: int
    run_dir: Path


def _pipeline(config: ConditionerConfig) -> tuple[Any, torch.device]:
    """The frozen generator, on the CPU, and the device to train on."""
    from recon.generation.loading import load_pipeline
    from recon.generation.places import generator_folder
    from recon.generation.runtime import Runtime, check_runtime
    from recon.pretraining.tokens import GOALS

    folder = generator_folder(config.generator)
    device = check_runtime(Runtime(device=config.device))
    pipe = load_pipeline(folder, Runtime())
    pipe.unet.eval().requires_grad_(False)
    if pipe.unet.config.time_cond_proj_dim is not None:
        raise UserError(f"generator={config.generator!r} is distilled; train the conditioner on the model it came from")
    schedule = pipe.scheduler.config
    if "beta_schedule" not in schedule or schedule.get("prediction_type", "epsilon") not in GOALS:
        raise UserError(
            f"generator={config.generator!r}: conditioners are trained for noise of a beta_schedule and a UNet that "
            f"predicts {' or '.join(GOALS)}; {type(pipe.scheduler).__name__} is of another kind"
        )
    return pipe, device


def _layer(config: ConditionerConfig, backbone: Backbone) -> str:
    """Name of the layer; raises `UserError` for an unknown one, and where it cannot be pooled as asked."""
    from align.vision.fused import require_pooling
    from align.vision.taps import resolve_layer

    layer = resolve_layer(backbone, config.layer)
    require_pooling(backbone, [layer], config.pooling)
    return layer


def _tokens(config: ConditionerConfig, backbone: Backbone, layer: str, pool: Pool) -> np.ndarray:
    """Tokens (n, N, D) of the pool."""
    from align.vision.targets import cached_targets
    from recon.pretraining.tokens import pool_stimuli

    return cached_targets(backbone, pool_stimuli(pool, 0), [layer], config.pooling, config.cache_dir)[layer].tokens


def _train_conditioner(work: _Work, sketch: Sketch | None) -> Conditioner:
    """The moving average of the trained conditioner; a generator that reads a sketch is given that of the tokens."""
    import numpy as np
    import torch
    from torch.nn import functional as F

    from recon.generation.latents import LatentScale
    from recon.generation.loading import FAMILIES, reads_sketch
    from recon.generation.texts import Texts, added_conditions, joined
    from recon.pretraining.tokens import corrupted, dropped, goal, noised, sample_latents

    config, pipe, device = work.config, work.pipe, work.pipe.device
    scheduler = pipe.scheduler
    conditioner, reads, scale = work.source.conditioner, reads_sketch(pipe), LatentScale.of(pipe.vae)
    empty = Texts(pipe, FAMILIES[type(pipe).__name__], device).batch([""])

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        rows = work.pool.sample(rng, config.train.batch_size, config.pictures.share_photographs)
        clean = scale.scaled(sample_latents(work.latents[rows], generator))
        noise = torch.randn(clean.shape, generator=generator)
        t = torch.randint(scheduler.config.num_train_timesteps, (len(rows),), generator=generator)
        noisy, wanted = noised(scheduler, clean, noise, t), goal(scheduler, clean, noise, t)
        text = joined([empty] * len(rows))
        added = added_conditions(pipe, text, work.size, device, torch.float32)
        given, noisy = corrupted(work.source, rows, generator), noisy.to(device)
        hint = torch.zeros_like(noisy)
        if sketch is not None and reads:
            with torch.no_grad():
                hint = scale.raw(sketch(given))
        given, hint = dropped(given, hint, generator)
        seen = torch.cat([noisy, hint], dim=1) if reads else noisy
        told = conditioner.denoise(pipe.unet, seen, t.to(device), text.states.to(device), given, added)
        return F.mse_loss(told.float(), wanted.to(device)), {}

    return cast("Conditioner", _run(config, "conditioner", conditioner, loss, config.train, work.run_dir / "state"))


def _train_sketch(work: _Work) -> Sketch | None:
    """The moving average of the sketch; None where tokens lie on no square grid, or with ``sketch.steps`` 0."""
    import numpy as np
    import torch

    from recon.generation.latents import LatentScale
    from recon.generation.sketch import Sketch, takes
    from recon.pretraining.parts import perceptual_distance
    from recon.pretraining.sketching import Teacher
    from recon.pretraining.tokens import corrupted

    config, pipe = work.config, work.pipe
    info, latent = work.source.conditioner.info, pipe.vae.config
    if not takes(info.n_tokens) or not config.sketch.steps:
        return None
    torch.manual_seed(config.seed + 1)
    sketch = Sketch(info.n_tokens, info.width, latent.latent_channels, pipe.unet.config.sample_size).to(pipe.device)
    weights = config.squeezenet_weights
    perceptual = None if weights is None else perceptual_distance(weights, str(pipe.device))
    vae = pipe.vae.requires_grad_(False)
    teacher = Teacher(vae, LatentScale.of(vae), work.latents, perceptual)

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        rows = work.pool.sample(rng, config.sketch.batch_size, config.pictures.share_photographs)
        few = rng.permutation(len(rows))[: max(1, len(rows) // 4)]  # decoding costs most, so it is done for a few
        images = torch.from_numpy(work.pool.at(rows[few], work.size)).permute(0, 3, 1, 2).float() / 255
        return teacher.loss(sketch, corrupted(work.source, rows, generator), rows, few, images)

    return cast("Sketch", _run(config, "sketch", sketch, loss, config.sketch, work.run_dir / "state_sketch"))


def _run(
    config: ConditionerConfig, name: str, module: nn.Module, loss: Loss, length: StageConfig, folder: Path
) -> nn.Module:
    """Train ``module`` as a stage of its own; returns its moving average."""
    from recon.generation.loop import Stage, run_stage

    every = config.checkpoint_every
    stage = Stage(name, {name: module}, loss, length, folder, seed=config.seed, checkpoint_every=every, ema_decay=0.99)
    return run_stage(stage)[name]


def default_run_dir(config: ConditionerConfig, layer: str) -> Path:
    """``runs/recon/<generator>_<backbone>_<layer>``, legal on every system; `find_conditioner` looks there."""
    from align.checkpoint import home
    from align.data.names import file_name, joined_name

    labels = (Path(config.generator).name, config.backbone.name, layer)
    return home() / "runs" / "recon" / joined_name([file_name(label) for label in labels])


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 on success, 2 with one line on bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_option(parser)
    parser.add_argument("--debug", action="store_true", help="show the trace of an error")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_intermixed_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    def work() -> int:
        config = load_config(ConditionerConfig, options.config, options.overrides)
        refuse("recon/train.py", ["align/train.py"])
        refuse_options()
        use_all_cores()
        print(train(config))
        return 0

    return run_command("error", work, options.debug, "the same command continues from here")


if __name__ == "__main__":
    sys.exit(main())
