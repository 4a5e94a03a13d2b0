"""`recon universality`: which dimensions of a network other networks have too, and which of them a brain carries."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from align.errors import UserError
from recon.commands.comparing import add_comparison_arguments, default_folder, number_list, settings_of, word_list

SHUFFLES = 100
POOLS = "max, mean, cls, grid:N or tokens"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon universality``."""
    add_comparison_arguments(parser)
    parser.add_argument("--images", type=Path, metavar="PLACE", help="folder or zip of pictures to score")
    text = "pictures to fit the dimensions on (default: one half of the others)"
    parser.add_argument("--fit-images", type=Path, metavar="PLACE", help=text)
    parser.add_argument("--pool", default="max", help=f"{POOLS} (default: %(default)s)")
    parser.add_argument("--zscore", action="store_true", help="divide channels by their deviation before components")
    text = "of a layer, at most (default: as many as its rank)"
    parser.add_argument("--components", type=int, metavar="N", help=text)
    choices = ["ridge", "ols", "one-to-one"]
    parser.add_argument("--regression", choices=choices, default="ridge", help="(default: %(default)s)")
    text = "how ridge chooses each penalty: generalised cross-validation, or leaving one out (default: %(default)s)"
    parser.add_argument("--choose", choices=["gcv", "loo"], default="gcv", help=text)
    text = "penalties of ridge (default: 0 and 1e-3 to 1e4)"
    parser.add_argument("--alphas", metavar="A[,A]", help=text)
    text = "leave the predictors as they are, instead of dividing each by its deviation"
    parser.add_argument("--raw", action="store_true", help=text)
    parser.add_argument("--folds", type=int, default=5, help="of cross-validation (default: %(default)s)")
    text = "shuffled dimensions of each network, for p (default: %(default)s)"
    parser.add_argument("--permutations", type=int, default=1000, help=text)
    text = f"of a study: orders of pictures in which brains are shuffled (default: {SHUFFLES})"
    parser.add_argument("--shuffles", type=int, help=text)
    parser.add_argument("--pictures", type=int, metavar="N", help="of a place, at most (default: all)")
    parser.add_argument("--width", type=float, default=0.1, help="of a window, in s (default: %(default)s)")
    parser.add_argument("--step", type=float, default=0.05, help="between windows, in s (default: %(default)s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The content of universality.json with ``folder``; ``text`` is for the terminal. Raises `UserError`."""
    from align.comparison.predictability import Regression
    from align.comparison.ridge import ALPHAS
    from align.fields.syntax import parse_pooling
    from recon.comparison.text import universality_text
    from recon.comparison.universality import Settings
    from recon.comparison.universality import run as compare

    config, named = settings_of(args)
    parse_pooling(args.pool)
    backbones = word_list(args.backbones, "--backbones")
    alphas = number_list(args.alphas, "--alphas") if args.alphas else ALPHAS
    if min(alphas) < 0:
        raise UserError(f"--alphas {args.alphas}: penalties are 0 or more")
    for name, least in (("folds", 2), ("permutations", 0), ("shuffles", 0), ("components", 1), ("pictures", 40)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise UserError(f"--{name} {value} should be {least} or more")
    if args.shuffles is not None and not named:
        raise UserError("--shuffles are of the brains of a study; name one (--study NAME), or leave --shuffles out")
    regression = Regression(args.regression, tuple(alphas), args.choose, not args.raw)
    settings = Settings(
        args.pool,
        regression,
        args.zscore,
        args.components,
        args.folds,
        args.permutations,
        SHUFFLES if args.shuffles is None else args.shuffles,
        args.width,
        args.step,
        args.pictures,
        args.test,
        config.seed,
    )
    folder = args.out or default_folder("universality", config, named, backbones, args.images)
    result = compare(config, backbones, args.images, args.fit_images, named, settings, folder, args.overwrite)
    return {**result, "text": universality_text(result)}
