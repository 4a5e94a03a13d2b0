"""`recon encode`: how well pictures predict responses, by features, method, unit and number of pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.config import add_config_option
from align.errors import UserError
from recon.commands.comparing import word_list

if TYPE_CHECKING:
    from align.config import Config

ALL = "all"
LEAST = 20  # pictures to fit with


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon encode``."""
    add_config_option(parser)
    parser.add_argument("--subject", nargs="+", metavar="LABEL", help="who (default: subjects of the configuration)")
    text = "ridge, banded, pls, spatial_feature, attention, joint, in_context (default: %(default)s)"
    parser.add_argument("--method", default="ridge", metavar="NAME[,NAME]", help=text)
    text = f"layers, {ALL}, or spread:K for K of them over depth; a+b joins two (default: target.layer)"
    parser.add_argument("--layers", nargs="+", metavar="LAYER", help=text)
    text = "networks: NAME, NAME@WEIGHTS_FILE or NAME@untrained[:SEED] (default: backbone.name)"
    parser.add_argument("--backbones", metavar="A[,B]", help=text)
    text = "the captions of the pictures as features: mini, DIR or a hub id of a text tower"
    parser.add_argument("--captions", metavar="TOWER", help=text)
    parser.add_argument("--together", action="store_true", help="one more set of features: all of them")
    text = "with --together: what each of its parts explains alone, and what only it explains"
    parser.add_argument("--partition", action="store_true", help=text)
    text = f"numbers of pictures to fit with, joined by commas (default: {ALL})"
    parser.add_argument("--pictures", default=ALL, metavar="N[,N]", help=text)
    text = "score the test pictures (once); the features are chosen on training pictures by the first method"
    parser.add_argument("--test", action="store_true", help=text)
    parser.add_argument("--folds", type=int, default=5, help="of cross-validation (default: %(default)s)")
    parser.add_argument("--width", type=float, help="of a window of signals over time, in s (default: 0.05)")
    parser.add_argument("--permutations", type=int, default=1000, help="for p of a unit (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results go (default: under runs/encode)")
    parser.add_argument("--overwrite", action="store_true", help="replace results of another configuration there")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The content of the JSON file with ``folder``; ``text`` is for the terminal. Raises `UserError` on bad input."""
    from align.config import Config, load_config

    config = load_config(Config, args.config, args.overrides)
    if args.subject:
        config.subjects = list(dict.fromkeys(args.subject))
    for name, least in (("folds", 2), ("permutations", 1)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} {getattr(args, name)} should be {least} or more")
    if args.width is not None and not args.width > 0:
        raise UserError(f"--width {args.width:g} should be above 0 s")
    from align.train import use_all_cores
    from recon.encoding.run import Settings
    from recon.encoding.run import run as encode
    from recon.encoding.text import encoding_text

    backbones = word_list(args.backbones, "--backbones") if args.backbones else [config.backbone.name]
    settings = Settings(
        methods=tuple(word_list(args.method, "--method")),
        layers=tuple(args.layers or [config.target.layer]),
        pictures=tuple(picture_counts(args.pictures)),
        folds=args.folds,
        test=args.test,
        width=args.width,
        captions=args.captions,
        together=args.together,
        partition=args.partition,
        n_perm=args.permutations,
    )
    use_all_cores()
    folder = args.out or default_folder("encode", config, backbones, args.test)
    result = encode(config, backbones, settings, folder, args.overwrite)
    return {**result, "text": f"{encoding_text(result)}\nfolder: {folder}"}


def picture_counts(text: str) -> list[int | None]:
    """Numbers joined by commas, ``all`` = None, in rising order. Raises `UserError` for others."""
    found: list[int | None] = []
    for word in word_list(text, "--pictures"):
        if word != ALL and not word.isdecimal():
            raise UserError(f"--pictures {word!r} is no number; write for example 50,100,{ALL}")
        if word != ALL and int(word) < LEAST:
            raise UserError(f"--pictures {word}: {LEAST} or more are needed")
        found.append(None if word == ALL else int(word))
    return sorted(dict.fromkeys(found), key=lambda count: (count is None, count or 0))


def default_folder(command: str, config: Config, backbones: list[str], test: bool) -> Path:
    """``runs/COMMAND/...``, by study, subjects, networks and split."""
    from align.checkpoint import home
    from align.data.names import file_name, joined_name
    from align.data.places import part_labels, study_labels

    part, told = part_labels(config)
    names = [*study_labels(config), *map(file_name, config.subjects), *part, *(["test"] if test else [])]
    plain = backbones == [config.backbone.name] and told is None
    return home() / "runs" / command / joined_name(names, None if plain else [backbones, told])
