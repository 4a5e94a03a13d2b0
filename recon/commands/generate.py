"""`recon generate`: pictures from predicted tokens and control tokens, by any generator, adapter and bridge."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align.checkpoint import Run

LIBRARY = "further pictures for the library; twins of test pictures are left out (encoding models)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options beside those of every command that starts from a run."""
    add = parser.add_argument
    add("--generator", default="mini", help="mini, a folder in diffusers layout, or a hub id (default: %(default)s)")
    add("--adapter", metavar="FILE|DIR|HUB_ID", help="IP-Adapter or -Plus (default: the own conditioner that fits)")
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
    add("--words", choices=["none", "retrieved"], default="none", help="prompt: the caption nearest to the response")
    text = "the response pulls at the picture while it is drawn, SCALE per gradient step (default: none)"
    add("--guide", metavar="encoding[:SCALE]", help=text)
    add("--best-of", type=int, default=1, metavar="N", help="samples among which the brain chooses")
    add("--choose-by", default="agreement", help="with the brain; anything that needs the seen picture is refused")
    add("--scale", type=float, default=1.0, help="of the adapter; 0 = the generator without it")
    add("--out", type=Path, help="folder for the pictures (default: the run folder)")
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seeds", type=int, nargs="+", metavar="N", help="of the starting noise: one picture each")
    seeds.add_argument("--seed", type=int, default=0, help="the same for one picture (default: %(default)s)")
    add("--steps", type=int, help="sampling steps (default: what the generator is meant for)")
    add("--guidance-scale", type=float, help="(default: what the generator is meant for; 1 = none)")
    add("--limit", type=int, help="only the first pictures of the test split")
    add("--batch-size", type=int, default=32, help="never changes a picture (default: %(default)s)")
    add("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    add("--attention", choices=["sdpa", "xformers"], default="sdpa")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--compile", action="store_true", help="torch.compile the denoiser: minutes at first, then faster")
    add("--offload", action="store_true", help="parts of the generator wait in main memory (GPU only)")


def run(args: argparse.Namespace, run: Run) -> dict[str, Any]:
    """The command's function."""
    from recon.decoding.bridges.choose import Conditioning
    from recon.decoding.guidance import Guidance
    from recon.decoding.plan import Sampling
    from recon.drawing.best_of import require_agreement
    from recon.drawing.generate import generate
    from recon.generation.runtime import Runtime

    require_agreement(args.choose_by)
    sampling = Sampling(
        seeds=tuple(args.seeds or [args.seed]),
        steps=args.steps,
        guidance_scale=args.guidance_scale,
        batch_size=args.batch_size,
        scale=args.scale,
        strength=args.strength,
    )
    conditioning = Conditioning(
        args.adapter,
        args.bridge,
        args.image_encoder,
        args.match,
        tokens=args.tokens,
        low_level=args.low_level,
        words=args.words,
        best_of=args.best_of,
        controlnet=args.controlnet,
        control=args.control,
        control_scale=args.control_scale,
        library=args.library,
        guide=Guidance.parse(args.guide),
    )
    runtime = Runtime(args.precision, args.device, args.attention, args.compile, args.offload)
    return generate(
        run, args.generator, args.out, sampling, limit=args.limit, conditioning=conditioning, runtime=runtime
    )
