"""`recon aligned-cut`: patches of pictures in groups, in the space of a subject's units, painted on pictures."""

from __future__ import annotations

import argparse
from typing import Any

from align.errors import UserError
from recon.commands.sheet import add_unit_arguments, wanted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon aligned-cut``."""
    add_unit_arguments(parser)
    parser.add_argument("--clusters", type=int, default=8, metavar="K", help="groups of patches (default: %(default)s)")
    text = "find groups on training pictures and paint test pictures (default: two halves of training pictures)"
    parser.add_argument("--test", action="store_true", help=text)
    text = "of responses, for the chance level (default: %(default)s)"
    parser.add_argument("--shuffles", type=int, default=50, metavar="N", help=text)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The content of the JSON file with ``folder``; ``text`` is for the terminal. Raises `UserError` on bad input."""
    config, units, regions = wanted(args)
    from align.train import use_all_cores
    from recon.commands.encode import default_folder
    from recon.driving.aligned_cut import CutSettings, told
    from recon.driving.aligned_cut import run as cut
    from recon.driving.aligned_cut_picture import MOST

    if not 2 <= args.clusters <= MOST:
        raise UserError(f"--clusters {args.clusters} should be from 2 to {MOST}")
    if args.shuffles < 0:
        raise UserError(f"--shuffles {args.shuffles} should be 0 or more")
    settings = CutSettings(units, regions, args.clusters, shuffles=args.shuffles, test=args.test, width=args.width)
    use_all_cores()
    folder = args.out or default_folder("aligned-cut", config, [config.backbone.name], args.test)
    result = cut(config, config.backbone.name, args.layer or config.target.layer, settings, folder, args.overwrite)
    return {**result, "text": told(result)}
