"""`recon rosetta`: channels that match across networks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from align.errors import UserError
from recon.commands.comparing import add_network_arguments, default_folder, word_list


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon rosetta``."""
    add_network_arguments(parser)
    text = "folder or zip of pictures: one half finds the matches, the other half checks and shows them"
    parser.add_argument("--images", type=Path, required=True, metavar="PLACE", help=text)
    text = "layers that every network knows, all, or spread:K for K of them over depth (default: %(default)s)"
    parser.add_argument("--layers", nargs="+", default=["all"], metavar="LAYER", help=text)
    text = "cells along either side of the grid that all maps are brought to (default: %(default)s)"
    parser.add_argument("--grid", type=int, default=7, metavar="N", help=text)
    text = "orders of the pictures, for the chance level (default: %(default)s)"
    parser.add_argument("--shuffles", type=int, default=100, metavar="N", help=text)
    text = "pictures at most, drawn by the seed (default: %(default)s)"
    parser.add_argument("--pictures", type=int, default=500, metavar="N", help=text)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The content of rosetta.json with ``folder``; ``text`` is for the terminal. Raises `UserError`."""
    from align.config import Config, load_config
    from align.train import use_all_cores
    from recon.comparison.rosetta import RosettaSettings, told
    from recon.comparison.rosetta import run as compare

    config = load_config(Config, args.config, args.overrides)
    backbones = word_list(args.backbones, "--backbones")
    for name, least in (("grid", 2), ("shuffles", 2), ("pictures", 40)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} {getattr(args, name)} should be {least} or more")
    settings = RosettaSettings(tuple(args.layers), args.grid, args.shuffles, args.pictures, config.seed)
    use_all_cores()
    folder = args.out or default_folder("rosetta", config, False, backbones, args.images)
    result = compare(config, backbones, args.images, settings, folder, args.overwrite)
    return {**result, "text": told(result)}
