"""Trains a conditioner: true tokens of one backbone layer to pictures, on a frozen generator, without brain data.

accelerate launch recon/train.py backbone.name=mini layer=3 train.steps=2000        # the embedded generator, CPU
accelerate launch recon/train.py --config configs/recon/conditioner.yaml pictures.photographs=[photos.zip]
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from align.config import add_config_option
from align.errors import UserError


def train(config) -> Path:  # type: ignore[no-untyped-def]
    """Train to ``train.steps``, from the last checkpoint if any; returns the path of ``ip_adapter.safetensors``."""
    import numpy as np
    import torch
    from diffusers import StableDiffusionPipeline
    from torch.nn import functional as F

    from align.vision.backbones import load_backbone
    from align.vision.taps import resolve_layer
    from align.vision.targets import cached_targets
    from recon.generation import denoiser
    from recon.generation.assets import mini_folder
    from recon.generation.conditioner import WEIGHTS, Conditioner, ConditionerInfo, save_conditioner
    from recon.generation.loop import Stage, run_stage
    from recon.generation.pictures import load_pool
    from recon.generation.sketch import sketch_loss

    folder = mini_folder() if config.generator == "mini" else Path(config.generator).expanduser()
    if not (folder / "model_index.json").is_file():
        raise UserError(f"generator={config.generator!r} is no diffusers folder (no model_index.json)")
    pipe = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    backbone = load_backbone(config.backbone)
    layer = resolve_layer(backbone, config.layer)
    run_dir = Path(config.run_dir or default_run_dir(config, layer))
    pool = load_pool(config.pictures, Path(config.cache_dir) / "pictures")
    tokens = cached_targets(backbone, denoiser.pool_stimuli(pool, 0), [layer], config.pooling, config.cache_dir)
    values = tokens[layer].tokens
    latents = denoiser.encode_pool(pipe.vae, pool, run_dir / "latents.npy")
    unet = pipe.unet.eval().requires_grad_(False)
    torch.manual_seed(config.seed)
    info = ConditionerInfo(backbone.name, layer, config.pooling, values.shape[1], values.shape[2], config.generator)
    conditioner = Conditioner(unet, info, *denoiser.channel_statistics(values), config.num_tokens)
    source = denoiser.Tokens(values, 0, conditioner)
    with torch.no_grad():
        empty = pipe.encode_prompt("", "cpu", 1, False)[0]

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        rows = pool.sample(rng, config.train.batch_size, config.pictures.share_photographs)
        clean = denoiser.sample_latents(latents[rows], generator) * pipe.vae.config.scaling_factor
        noise = torch.randn(clean.shape, generator=generator)
        t = torch.randint(pipe.scheduler.config.num_train_timesteps, (len(rows),), generator=generator)
        noisy = pipe.scheduler.add_noise(clean, noise, t)
        own, given = denoiser.condition(source, rows, generator)
        predicted = conditioner.denoise(unet, noisy, t, empty.expand(len(rows), -1, -1), given)
        error = F.mse_loss(predicted.float(), denoiser.goal(pipe.scheduler, clean, noise, t))
        sketched = sketch_loss(conditioner.sketch, own, clean)
        return error + sketched, {"denoise": float(error.detach()), "sketch": float(sketched.detach())}

    stage = Stage(
        name="conditioner",
        modules={"conditioner": conditioner},
        loss=loss,
        config=config.train,
        folder=run_dir / "state",
        seed=config.seed,
        checkpoint_every=config.checkpoint_every,
        ema_decay=0.99,
    )
    averaged = run_stage(stage)["conditioner"]
    assert isinstance(averaged, Conditioner)
    save_conditioner(averaged, run_dir / WEIGHTS, training_facts(config, pool))
    return run_dir / WEIGHTS


def training_facts(config, pool) -> dict[str, str]:  # type: ignore[no-untyped-def]
    """What the file says about its training, beside what it takes: numbers, and names of the sources of pictures."""
    sources = [Path(source).name for source in config.pictures.photographs]
    sources += ["training images of V4_compact_models"] if config.pictures.v4_root else []
    facts = {"steps": config.train.steps, "batch_size": config.train.batch_size, "lr": config.train.lr}
    facts |= {"seed": config.seed, "num_tokens": config.num_tokens, "rendered": pool.n_rendered}
    facts |= {"photographs": len(pool.ids) - pool.n_rendered, "sources": json.dumps(sources)}
    return {key: str(value) for key, value in facts.items()}


def default_run_dir(config, layer: str) -> Path:  # type: ignore[no-untyped-def]
    """``runs/recon/<generator>_<backbone>_<layer>`` with slashes made safe, where `find_conditioner` looks."""
    from align.checkpoint import home

    name = "_".join([Path(config.generator).name, config.backbone.name.replace("/", "-"), layer])
    return home() / "runs" / "recon" / name


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 on success, 2 with one line on bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_option(parser)
    parser.add_argument("--debug", action="store_true", help="show the trace of an error")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    options = parser.parse_intermixed_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        from align.config import load_config
        from align.train import use_all_cores
        from recon.config import ConditionerConfig

        use_all_cores()
        path = train(load_config(ConditionerConfig, options.config, options.overrides))
    except (UserError, OSError) as error:
        if options.debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
