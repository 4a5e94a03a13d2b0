"""`recon evidence`: maps of what the brain decided in every picture, and what the generator added."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon.generation.named import spelled

if TYPE_CHECKING:
    from align.checkpoint import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon evidence``, beside ``--subject`` and ``--run``."""
    add = parser.add_argument
    add(
        "--generator",
        type=spelled,
        default="mini",
        help="mini, a folder in diffusers layout, or a hub id (default: %(default)s)",
    )
    add("--limit", type=int, help="only the first pictures of the test split")
    add("--seed", type=int, default=0, help="of the starting noise, as in recon generate (default: %(default)s)")
    add("--steps", type=int, help="sampling steps (default: what the generator is meant for)")
    add("--strength", type=float, help="as with recon generate (default: what the generator is meant for)")
    add("--library", type=Path, metavar="FOLDER|ZIP", help="as with recon generate")
    text = "pairs of null brains; half set the threshold, half check it (default: %(default)s)"
    add("--nulls", type=int, default=32, metavar="N", help=text)


def run(args: argparse.Namespace, run: Run) -> dict[str, Any]:
    """The content of evidence.json with ``folder``; ``text`` is for the terminal. Raises `UserError` on bad input."""
    from recon.decoding.bridges.choose import Conditioning
    from recon.decoding.plan import Sampling
    from recon.drawing.evidence import evidence

    sampling = Sampling(seeds=(args.seed,), steps=args.steps, strength=args.strength)
    result = evidence(run, args.generator, sampling, args.limit, args.nulls, Conditioning(library=args.library))
    return {**result, "text": _text(result)}


def _text(result: dict[str, Any]) -> str:
    null, median = result["null"], result["median"]
    low, high = (100 * value for value in null["interval"])
    lines = [
        f"lit under a null brain: {100 * null['lit']:.1f} % of the area "
        f"(95 % interval {low:.1f} to {high:.1f}, {null['n']} pairs, {null['kind']})",
        f"lit, median of {len(result['rows'])} pictures: {100 * median['lit']:.1f} % "
        f"(shuffled {100 * median['shuffled']:.1f} %, oracle {100 * median['oracle']:.1f} %)",
        f"written: {result['folder']}",
    ]
    return "\n".join(lines)
