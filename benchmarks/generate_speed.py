"""Images per second: batches of `recon generate` against the loop people publish, one stock pipeline call per stimulus.

    python benchmarks/generate_speed.py                    # embedded generator, CPU, 2 threads
    python benchmarks/generate_speed.py --gpu              # an SD 1.5 of full size with random weights, bf16, on a GPU

Both sides draw the same pictures (same tokens, same sketch, same noise) in one process, taking turns; the loop is the
stock StableDiffusionInstructPix2PixPipeline in float32, without safety checker, with one generator per picture. The
shortest of the turns counts for each side. Seconds of the processors are given beside those of the clock, for machines
that compute something else meanwhile. Exit code 1 when a picture differs or the gain by the clock is below the bar.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

BAR = 3.0
STEPS, GUIDANCE = 12, 2.0


def main(arguments: list[str] | None = None) -> int:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--gpu", action="store_true", help="also the large generator on a GPU")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {"torch": torch.__version__, "threads": options.threads, "cpu": on_cpu(options)}
    if options.gpu:
        reason = None if torch.cuda.is_available() else "no GPU is visible to torch"
        result["gpu"] = {"skipped": reason} if reason else on_gpu(options)
    print(json.dumps(result, indent=2))
    return 0 if result["cpu"]["same_pictures"] and result["cpu"]["gain"] >= BAR else 1


def on_cpu(options: argparse.Namespace) -> dict[str, Any]:
    """The embedded generator: stock loop against batches."""
    from recon.generation.conditioner import null_embeds, with_positions
    from recon.generation.pipeline import Generator, find_conditioner
    from recon.generation.places import mini_folder
    from recon.generation.runtime import Runtime

    place = find_conditioner("mini", "1", "grid:8")
    ours = Generator.load("mini", place, Runtime(device="cpu"))
    stock = stock_loop(mini_folder(), place)
    n = options.pictures
    tokens = torch.randn(n, *ours.bridge.takes, generator=torch.Generator().manual_seed(0))
    negative, sketches = null_embeds(place), ours.sketched(tokens)
    assert sketches is not None

    def loop() -> torch.Tensor:
        found = []
        for i in range(n):
            embeds = torch.stack([with_positions(tokens[i : i + 1]), negative, negative])
            found.append(
                stock(
                    "",
                    image=sketches[i : i + 1],
                    ip_adapter_image_embeds=[embeds],
                    num_inference_steps=STEPS,
                    guidance_scale=GUIDANCE,
                    image_guidance_scale=GUIDANCE,
                    generator=torch.Generator().manual_seed(i),
                    output_type="pt",
                ).images
            )
        return torch.cat(found)

    def batches() -> torch.Tensor:
        return ours.generate(tokens, range(n), STEPS, GUIDANCE, options.batch_size, sketch=sketches)

    seconds, busy, pictures = turns({"loop": loop, "batches": batches}, options.turns)
    difference = (pictures["loop"] - pictures["batches"]).abs().max().item()
    eight_bit = [(value * 255).round() for value in pictures.values()]
    return {
        "pictures": n,
        "batch_size": options.batch_size,
        "steps": STEPS,
        "loop_images_per_s": n / seconds["loop"],
        "batches_images_per_s": n / seconds["batches"],
        "gain": seconds["loop"] / seconds["batches"],
        "gain_in_processor_seconds": busy["loop"] / busy["batches"],
        "largest_difference": difference,
        "equal_8_bit_values": (eight_bit[0] == eight_bit[1]).float().mean().item(),
        "same_pictures": difference < 1 / 255,
    }


def on_gpu(options: argparse.Namespace) -> dict[str, Any]:
    """SD 1.5 of full size (random weights) with a 4-token adapter, 30 steps, bf16: eager, compiled, one by one."""
    from recon.generation.runtime import Runtime

    n, rates = options.pictures, {}
    tokens = torch.randn(n, 1, 1024, generator=torch.Generator().manual_seed(0))
    for name, batch_size, compiled in (("one by one", 1, False), ("eager", 16, False), ("compiled", 16, True)):
        generator = large_generator(Runtime("bf16", "cuda", compile=compiled))
        generator.generate(tokens[:batch_size], range(batch_size), 30, 7.5, batch_size)  # warm-up, compiling
        torch.cuda.synchronize()
        start = time.perf_counter()
        generator.generate(tokens, range(n), 30, 7.5, batch_size)
        torch.cuda.synchronize()
        rates[name] = n / (time.perf_counter() - start)
    return {"device": torch.cuda.get_device_name(), "images_per_s": rates, "px": 512, "steps": 30}


def turns(
    sides: dict[str, Callable[[], torch.Tensor]], count: int
) -> tuple[dict[str, float], dict[str, float], dict[str, torch.Tensor]]:
    """Shortest time (s) by the clock and of the processors, and the pictures, of each side, taking turns; one call of
    each is not timed."""
    pictures = {name: side() for name, side in sides.items()}
    seconds, busy = dict.fromkeys(sides, float("inf")), dict.fromkeys(sides, float("inf"))
    for _ in range(count):
        for name, side in sides.items():
            clock, processor = time.perf_counter(), time.process_time()
            side()
            seconds[name] = min(seconds[name], time.perf_counter() - clock)
            busy[name] = min(busy[name], time.process_time() - processor)
    return seconds, busy, pictures


def stock_loop(folder: Any, adapter: Any) -> Any:
    """Loaded as docs/pictures.md says."""
    from recon.pretraining.export import stock_pipeline

    pipe = stock_pipeline(folder)
    pipe.load_ip_adapter(
        str(adapter.parent), subfolder="", weight_name=adapter.name, image_encoder_folder=None, local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def large_generator(runtime: Any) -> Any:
    """The architecture of SD 1.5 with random weights, and an IP-Adapter of 4 tokens of 1024 dimensions."""
    from pathlib import Path

    from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from recon.generation.adapters import Adapter
    from recon.generation.bridge import Bridge
    from recon.generation.conditioner import cross_attentions
    from recon.generation.pipeline import Generator
    from recon.pretraining import miniature

    torch.manual_seed(0)
    tokenizer = miniature.build_tokenizer(["a photograph"])
    text = CLIPTextConfig(vocab_size=len(tokenizer), hidden_size=768, num_hidden_layers=12, num_attention_heads=12)
    blocks = (128, 256, 512, 512)
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=blocks,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
            sample_size=512,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
        scheduler=DPMSolverMultistepScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).to(dtype=runtime.dtype)
    matrices = {}
    modules: Any = cross_attentions(pipe.unet).values()
    for index, module in enumerate(modules):
        for name in ("to_k_ip", "to_v_ip"):
            matrices[f"{2 * index + 1}.{name}.weight"] = torch.randn(module.to_k.out_features, 768) / 28
    projection = {
        "proj.weight": torch.randn(4 * 768, 1024) / 32,
        "proj.bias": torch.zeros(4 * 768),
        "norm.weight": torch.ones(768),
        "norm.bias": torch.zeros(768),
    }
    adapter = Adapter(Path("random"), "pooled", {"image_proj": projection, "ip_adapter": matrices}, 1024)
    bridge = Bridge("random", lambda tokens: tokens[:, 0], torch.zeros(1, 1024), (1, 1024), "noise", "random")
    return Generator(pipe, adapter, bridge, "random", runtime)


if __name__ == "__main__":
    sys.exit(main())
