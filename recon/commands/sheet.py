"""`recon sheet`: what drives the units of a study, on one page each."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from align.config import add_config_option
from align.errors import UserError
from recon.commands.comparing import word_list
from recon.commands.texts import add_tower

LEAST = 20  # natural pictures


def add_unit_arguments(parser: argparse.ArgumentParser) -> None:
    """What `recon sheet` and `recon maximize` share: which units of whom, and the results."""
    add_config_option(parser)
    parser.add_argument("--subject", nargs="+", metavar="LABEL", help="who (default: subjects of the configuration)")
    text = "channels or voxels by name, or all; where signals have time, each with a moment: Oz@0.12"
    parser.add_argument("--units", metavar="A[,B]", help=text)
    text = "means of these regions of the study; where signals have time, each with a moment"
    parser.add_argument("--roi", metavar="NAME[,NAME]", help=text)
    parser.add_argument("--width", type=float, help="of a window of signals over time, in s (default: 0.05)")
    parser.add_argument("--layer", metavar="LAYER", help="whose tokens predict; a+b joins two (default: target.layer)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results go (default: under runs)")
    parser.add_argument("--overwrite", action="store_true", help="replace results of another configuration there")


def add_frame(parser: argparse.ArgumentParser) -> None:
    """``--frame`` alone."""
    text = "show pictures of other sources as the study shows its own: in grey and behind its aperture, where it does"
    parser.add_argument("--frame", action=argparse.BooleanOptionalAction, default=True, help=text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon sheet``."""
    add_unit_arguments(parser)
    text = "ridge, banded, pls, spatial_feature or attention (default: %(default)s)"
    parser.add_argument("--method", default="ridge", metavar="NAME", help=text)
    text = "score and show test pictures, predicted by a fit to all training pictures"
    parser.add_argument("--test", action="store_true", help=text)
    parser.add_argument("--folds", type=int, default=5, help="of cross-validation (default: %(default)s)")
    parser.add_argument("--pictures", type=Path, metavar="PLACE", help="natural pictures as well: a folder or zip")
    parser.add_argument("--most", type=int, default=2000, help="of these, at most (default: %(default)s)")
    add_frame(parser)
    text = "texts: one a line, or a CSV with the columns id,caption (default: captions of the study, else concepts)"
    parser.add_argument("--bank", type=Path, metavar="FILE", help=text)
    add_tower(parser)
    text = "clusters of units, how many or auto; with the pictures that set each one apart"
    parser.add_argument("--clusters", metavar="K|auto", help=text)
    parser.add_argument("--captioner", metavar="DIR|HUB_ID", help="GIT or BLIP: captions of the best pictures")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The content of the JSON file with ``folder``; ``text`` is for the terminal. Raises `UserError` on bad input."""
    config, units, regions = wanted(args)
    if args.folds < 2:
        raise UserError(f"--folds {args.folds} should be 2 or more")
    if args.most < LEAST:
        raise UserError(f"--most {args.most} should be {LEAST} or more")
    from align.train import use_all_cores
    from recon.commands.encode import default_folder
    from recon.driving.sheet import SheetSettings, told
    from recon.driving.sheet import run as make

    settings = SheetSettings(
        units=units,
        regions=regions,
        method=args.method,
        folds=args.folds,
        test=args.test,
        width=args.width,
        pictures=args.pictures,
        most=args.most,
        bank=args.bank,
        tower=args.text_tower or "mini",
        captioner=args.captioner,
        frame=args.frame,
        clusters=_clusters(args.clusters),
    )
    use_all_cores()
    folder = args.out or default_folder("sheet", config, [config.backbone.name], args.test)
    result = make(config, config.backbone.name, args.layer or config.target.layer, settings, folder, args.overwrite)
    return {**result, "text": f"{told(result)}\nfolder: {folder}"}


def _clusters(text: str | None) -> int | str | None:
    from recon.driving.clusters import AUTO

    if text is None or text == AUTO:
        return text
    if not text.isdecimal() or int(text) < 2:
        raise UserError(f"--clusters {text} should be 2 or more, or {AUTO}")
    return int(text)


def wanted(args: argparse.Namespace) -> tuple[Any, tuple[str, ...], tuple[str, ...]]:
    """The configuration, the units and the regions. Raises `UserError` where neither units nor regions are named."""
    from align.config import Config, load_config

    config = load_config(Config, args.config, args.overrides)
    if args.subject:
        config.subjects = list(dict.fromkeys(args.subject))
    if args.units is None and args.roi is None:
        raise UserError("name what is looked at: --units A,B or --units all, or --roi NAME")
    if args.width is not None and not args.width > 0:
        raise UserError(f"--width {args.width:g} should be above 0 s")
    units = word_list(args.units, "--units") if args.units is not None else []
    regions = word_list(args.roi, "--roi") if args.roi is not None else []
    return config, tuple(units), tuple(regions)
