"""`recon caption`: a text for every test picture of a run, and the scores of these texts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import UserError
from recon.commands import texts

if TYPE_CHECKING:
    from align.checkpoint import Run
    from recon.evaluation.settings import EvaluateConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options beside those of every command that starts from a run."""
    texts.add_arguments(parser)
    add = parser.add_argument
    text = "tower of the similarity of sentences, e.g. sentence-transformers/all-MiniLM-L6-v2 (default: --text-tower)"
    add("--sentence-tower", metavar="DIR|HUB_ID", help=text)
    text = "GIT or BLIP: captions of the reconstructions as well. COCO captioners have seen the pictures of NSD"
    add("--captioner", metavar="DIR|HUB_ID", help=text)
    add("--images", type=Path, help="for --captioner: the folder of recon generate --out (default: the run folder)")
    add("--generator", help="for --captioner: whose pictures, where the run holds those of several")
    add("--seed", type=int, help="for --captioner: which sample of each stimulus (default: the lowest)")


def run(args: argparse.Namespace, run: Run, settings: EvaluateConfig) -> dict[str, Any]:
    """The command's function: the report for --json; else its lines, and its place."""
    from recon.evaluation.captions import Drawn, caption_run, captions_path, format_captions

    drawn = None
    if args.captioner is not None:
        drawn = Drawn(args.captioner, args.images, args.generator, args.seed)
    elif given := next((name for name in ("images", "generator", "seed") if getattr(args, name) is not None), None):
        raise UserError(f"--{given} is about reconstructions that a captioner reads; pass --captioner too")
    report = caption_run(run, texts.text_settings(args), args.sentence_tower, drawn, settings)
    path = captions_path(run)
    lines = [format_captions(report), f"report: {path}", f"table: {path.with_suffix('.csv')}"]
    return {**report, "text": "\n".join(lines)}
