"""`recon targets`: the tokens that a study's pictures have in a backbone, cached; or what backbones cost."""

from __future__ import annotations

import argparse
from typing import Any

from align.config import add_config_option
from align.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon targets``."""
    add_config_option(parser)
    parser.add_argument(
        "--costs", action="store_true", help="only a table: layers, tokens, parameters, GFLOP, cache bytes per layer"
    )
    parser.add_argument(
        "--backbones", nargs="+", metavar="BACKBONE", help="of --costs (default: backbone.name, else all known ones)"
    )
    parser.add_argument(
        "--pictures", nargs="+", type=int, metavar="N", help="of --costs (default: 16740 of THINGS-EEG2, 73000 of NSD)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """What was cached (`align.vision.targets.run`), or with ``--costs`` ``backbones`` and the table as ``text``.

    Raises `UserError` for a bad configuration, study or backbone, and for options that belong to ``--costs``.
    """
    from align.config import Config, load_config

    config = load_config(Config, args.config, args.overrides)
    if args.costs:
        return _costs(args, config.backbone.name)
    if args.backbones or args.pictures:
        raise UserError("--backbones and --pictures belong to --costs; the backbone to extract is backbone.name=NAME")
    from align.vision.targets import run as extract

    return extract(config)


def _costs(args: argparse.Namespace, configured: str) -> dict[str, Any]:
    from align.vision.costs import PICTURES, markdown, measure
    from align.vision.known import KNOWN

    pictures = args.pictures or list(PICTURES)
    if min(pictures) < 1:
        raise UserError(f"--pictures {min(pictures)}: a number of pictures is 1 or more")
    names = args.backbones or (list(KNOWN) if configured == "mini" else [configured])
    rows = [measure(name, pictures) for name in names]
    notes = (
        "One layer in the cache (float16; of a convnet the largest) for each number of pictures; GFLOP per picture, a "
        "multiply-add counts 2; weights take 4 bytes per parameter in memory."
    )
    return {"backbones": rows, "text": f"{markdown(rows)}\n\n{notes}"}
