"""`recon curves`: scores of pictures against the rank of their tokens, and against the repetitions averaged."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon.generation.named import spelled

if TYPE_CHECKING:
    from align.checkpoint import Run
    from recon.evaluation.settings import EvaluateConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon curves``, beside ``--subject`` and ``--run``."""
    add = parser.add_argument
    add(
        "--generator",
        type=spelled,
        default="mini",
        help="mini, a folder in diffusers layout, or a hub id (default: %(default)s)",
    )
    add("--limit", type=int, default=60, help="test pictures, the first of the split (default: %(default)s)")
    add("--seed", type=int, default=0, help="of noise, choice of repetitions and bootstrap (default: %(default)s)")
    add("--steps", type=int, help="sampling steps (default: what the generator is meant for)")
    text = "how far the generator may leave the coarse picture, as with recon generate (default: what it is meant for)"
    add("--strength", type=float, help=text)
    add("--library", type=Path, metavar="FOLDER|ZIP", help="as with recon generate")
    text = "components given to the generator, 0 = the mean token (default: 0 1 2 5 10 ... and all)"
    add("--ranks", type=int, nargs="+", metavar="N", help=text)


def run(args: argparse.Namespace, run: Run, settings: EvaluateConfig) -> dict[str, Any]:
    """The content of curves.json; ``text`` is for the terminal. Raises `UserError` on bad input."""
    from recon.analysis.curve_text import format_curves
    from recon.analysis.picture_curves import Options, picture_curves
    from recon.evaluation.provenance import curves_folder

    ranks = None if args.ranks is None else tuple(args.ranks)
    options = Options(args.limit, args.seed, args.steps, ranks, args.strength, args.library)
    result = picture_curves(run, args.generator, options, settings)
    folder = curves_folder(run, result["generator"])
    return {**result, "text": f"{format_curves(result)}\nwritten: {folder}/curves.json, .csv, .png"}
