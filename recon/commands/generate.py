"""`recon generate`: pictures from predicted tokens and control tokens, by any generator, adapter and bridge."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon.commands.texts import add_tower
from recon.generation.named import spelled

if TYPE_CHECKING:
    from align.checkpoint import Run
    from recon.decoding.bridges.choose import Conditioning
    from recon.decoding.plan import Sampling
    from recon.generation.runtime import Runtime

LIBRARY = "further pictures for the library; twins of test pictures are left out (encoding models)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options beside those of every command that starts from a run."""
    add_drawing_arguments(parser)
    add = parser.add_argument
    add("--no-tuning", action="store_true", help="leave out what recon tune-pictures chose for this run")
    add("--choose-by", default="agreement", help="with the brain; anything that needs the seen picture is refused")
    add("--out", type=Path, help="folder for the pictures (default: the run folder)")
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seeds", type=int, nargs="+", metavar="N", help="of the starting noise: one picture each")
    seeds.add_argument("--seed", type=int, default=0, help="the same for one picture (default: %(default)s)")
    add("--limit", type=int, help="only the first pictures of the test split")
    text = "fetch and draw nothing: list the files to fetch with their size, disk and GPU memory (needs no --subject)"
    add("--dry-run", action="store_true", help=text)


def add_drawing_arguments(parser: argparse.ArgumentParser) -> None:
    """What pictures are drawn by, how, and on what: the same for every command that takes all of it."""
    add = parser.add_argument
    text = "mini, sd15, sdxl, sdxl-turbo, sdxl-lightning, lcm-lora-sdxl, a folder in diffusers layout, a hub id, or "
    add("--generator", type=spelled, default="mini", help=f"{text}BASE+UNET_OR_LORA (default: %(default)s)")
    text = "IP-Adapter or -Plus (default: the own conditioner that fits; with another bridge h94/IP-Adapter)"
    add("--adapter", metavar="FILE|DIR|HUB_ID", help=text)
    add("--bridge", choices=["own", "resume", "prior", "ridge"], default="own", help="from tokens to the adapter")
    add("--image-encoder", metavar="DIR", help="of the adapter (default: the one beside it)")
    add("--match", choices=["spread", "none", "moments"], default="spread", help="predicted tokens to true ones")
    text = "predicted by the run, of the likeliest library picture, or expected over the library (encoding models)"
    add("--tokens", choices=["predicted", "library", "posterior"], help=f"{text} (default: predicted where they fit)")
    add("--library", type=Path, metavar="FOLDER|ZIP", help=LIBRARY)
    text = "coarse picture to start from: by tokens, by pixels, both, none (default: what the run and adapter can do)"
    add("--low-level", choices=["none", "tokens", "pixels", "both"], help=text)
    text = (
        "how far the generator may leave it: 0 = not at all, 1 = from noise (default: what the generator is meant for)"
    )
    add("--strength", type=float, help=text)
    add(
        "--controlnet",
        metavar="DIR|HUB_ID",
        help="ControlNet or T2I-Adapter that keeps the layout of the coarse picture",
    )
    text = "what it reads: the coarse picture as it is, or its edges (default: edges)"
    add("--control", choices=["sketch", "edges"], help=text)
    add("--control-scale", type=float, metavar="X", help="how strong it is: 0 = not at all (default: 1)")
    text = "prompt, a caption of a training picture: of the nearest picture (retrieved), or the nearest in text space"
    add("--words", choices=["none", "retrieved", "pivot", "joint"], default="none", help=f"{text} (pivot, joint)")
    add_tower(parser)
    text = "the response pulls at the picture while it is drawn, SCALE per gradient step (default: none)"
    add("--guide", metavar="encoding[:SCALE]", help=text)
    add("--best-of", type=int, metavar="N", help="samples among which the brain chooses (default: 1)")
    add("--scale", type=float, default=1.0, help="of the adapter; 0 = the generator without it")
    add("--steps", type=int, help="sampling steps (default: what the generator is meant for)")
    add("--guidance-scale", type=float, help="(default: what the generator is meant for; 1 = none)")
    add("--batch-size", type=int, default=32, help="never changes a picture (default: %(default)s)")
    text = "(default: fp32 on a CPU and for mini; on a GPU bf16 where it has it, else fp16)"
    add("--precision", choices=["fp32", "bf16", "fp16"], help=text)
    add("--attention", choices=["sdpa", "xformers"], default="sdpa")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--compile", action="store_true", help="torch.compile the denoiser: minutes at first, then faster")
    add("--offload", action="store_true", help="parts of the generator wait in main memory (GPU only)")


def run(args: argparse.Namespace, run: Run) -> dict[str, Any]:
    """The command's function."""
    from recon.drawing.best_of import require_agreement
    from recon.drawing.generate import generate
    from recon.tuning.candidates import TUNED
    from recon.tuning.chosen import read_choice

    require_agreement(args.choose_by)
    conditioning, sampling, runtime = settings_of(args, tuple(args.seeds or [args.seed]))
    choice = None if args.no_tuning else read_choice(run, args.generator, conditioning, sampling, runtime.half)
    if choice is not None:
        given = {name for name in TUNED if getattr(args, name) is not None}
        conditioning, sampling = choice.under(given, conditioning, sampling)
    return generate(
        run,
        args.generator,
        args.out,
        sampling,
        limit=args.limit,
        conditioning=conditioning,
        runtime=runtime,
        chosen_on=None if choice is None else choice.said,
    )


def dry_run(args: argparse.Namespace) -> dict[str, Any]:
    """What the command would fetch, without a run: `recon.generation.needs`.

    Raises `UserError` for settings that the drawing itself would refuse.
    """
    from huggingface_hub import constants

    from recon.decoding.guidance import require_steps
    from recon.drawing.best_of import require_agreement
    from recon.drawing.generate import check_sampling
    from recon.generation.needs import as_text, needs, summary

    require_agreement(args.choose_by)
    conditioning, sampling, runtime = settings_of(args, tuple(args.seeds or [args.seed]))
    check_sampling(sampling, args.limit)
    require_steps(conditioning.guide, sampling.strength)
    adapter = conditioning.adapter
    found = needs(args.generator, runtime.half, adapter, args.image_encoder, args.bridge, args.controlnet)
    result = {
        "generator": args.generator,
        "adapter": adapter,
        **summary(found, runtime.precision, Path(constants.HF_HUB_CACHE)),
    }
    return {**result, "text": as_text(result)}


def settings_of(args: argparse.Namespace, seeds: tuple[int, ...]) -> tuple[Conditioning, Sampling, Runtime]:
    """What `add_drawing_arguments` was told, with ``seeds`` of the starting noise."""
    from recon.decoding.bridges.choose import Conditioning, default_adapter
    from recon.decoding.guidance import Guidance
    from recon.decoding.plan import Sampling
    from recon.generation.runtime import Runtime, default_precision

    precision = args.precision or default_precision(args.generator, args.device)
    sampling = Sampling(
        seeds=seeds,
        steps=args.steps,
        guidance_scale=args.guidance_scale,
        batch_size=args.batch_size,
        scale=args.scale,
        strength=args.strength,
    )
    conditioning = Conditioning(
        args.adapter or default_adapter(args.generator, args.bridge),
        args.bridge,
        args.image_encoder,
        args.match,
        tokens=args.tokens,
        low_level=args.low_level,
        words=args.words,
        text_tower=args.text_tower,
        best_of=1 if args.best_of is None else args.best_of,
        controlnet=args.controlnet,
        control=args.control,
        control_scale=args.control_scale,
        library=args.library,
        guide=Guidance.parse(args.guide),
    )
    return conditioning, sampling, Runtime(precision, args.device, args.attention, args.compile, args.offload)
