"""`recon maximize`: pictures that drive units more than natural ones, judged by another encoder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from align.errors import UserError
from recon.commands.sheet import LEAST, add_frame, add_unit_arguments, wanted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon maximize``."""
    add_unit_arguments(parser)
    text = "natural pictures to start from and to compare with: a folder or zip"
    parser.add_argument("--pictures", type=Path, required=True, metavar="PLACE", help=text)
    parser.add_argument("--most", type=int, default=2000, help="of these, at most (default: %(default)s)")
    text = "the network that judges, another than backbone.name: NAME or NAME@WEIGHTS_FILE"
    parser.add_argument("--judge", required=True, metavar="NAME", help=text)
    parser.add_argument("--judge-layer", required=True, metavar="LAYER", help="whose tokens the judge reads")
    add_frame(parser)
    text = "rounds of laying patches of other natural pictures on the best one (default: %(default)s)"
    parser.add_argument("--patched", type=int, default=80, metavar="N", help=text)
    text = "of drawing, keeping the best and varying it (default: %(default)s)"
    parser.add_argument("--rounds", type=int, default=1, help=text)
    parser.add_argument("--drawn", type=int, default=4, help="pictures of a unit in a round (default: %(default)s)")
    text = "then so many up the gradient of the encoder, through the decoder of the generator (default: %(default)s)"
    parser.add_argument("--steps", type=int, default=32, help=text)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The content of the JSON file with ``folder``; ``text`` is for the terminal. Raises `UserError` on bad input."""
    config, units, regions = wanted(args)
    for name, least in (("most", LEAST), ("patched", 0), ("rounds", 0), ("drawn", 1), ("steps", 0)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} {getattr(args, name)} should be {least} or more")
    from align.train import use_all_cores
    from recon.commands.encode import default_folder
    from recon.driving.maximize import MaximizeSettings, require_other, told
    from recon.driving.maximize import run as make
    from recon.driving.search import Search

    network = config.backbone.name
    require_other(network, args.judge)
    settings = MaximizeSettings(
        units=units,
        regions=regions,
        judge=(args.judge, args.judge_layer),
        pictures=args.pictures,
        most=args.most,
        width=args.width,
        frame=args.frame,
        search=Search(args.patched, args.rounds, args.drawn, steps=args.steps, seed=config.seed),
    )
    use_all_cores()
    folder = args.out or default_folder("maximize", config, [network], False)
    result = make(config, network, args.layer or config.target.layer, settings, folder, args.overwrite)
    return {**result, "text": f"{told(result)}\nfolder: {folder}"}
