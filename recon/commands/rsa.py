"""`recon rsa`: how alike pictures are in the layers of networks and in brains."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from align.errors import UserError
from recon.commands.comparing import add_comparison_arguments, default_folder, number_list, settings_of, word_list
from recon.commands.universality import POOLS

TOP = "1,5,10"  # dimensions that are kept


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon rsa``."""
    add_comparison_arguments(parser)
    parser.add_argument("--images", type=Path, metavar="PLACE", help="folder or zip of the pictures of --rdm, by name")
    text = "dissimilarities measured elsewhere, (K, K) or over subjects (S, K, K); several: --rdm A=F --rdm B=G"
    parser.add_argument("--rdm", action="append", metavar="NAME=FILE[:KEY]", help=text)
    text = "regions of the study, each compared by itself, from early to late"
    parser.add_argument("--areas", metavar="A[,B]", help=text)
    text = f"{POOLS} (default: max, or that of --universality)"
    parser.add_argument("--pool", help=text)
    text = "of pictures (default: %(default)s)"
    parser.add_argument("--distance", choices=["correlation", "euclidean", "cosine"], default="correlation", help=text)
    text = "quantiles below which distances count as 0 and above which as 1"
    parser.add_argument("--geotopological", metavar="LOW,HIGH", help=text)
    text = "folder of recon universality: keep its most universal dimensions alone"
    parser.add_argument("--universality", type=Path, metavar="DIR", help=text)
    text = f"with --universality: how many (default: {TOP})"
    parser.add_argument("--top", metavar="N[,N]", help=text)
    text = "pictures at most, drawn by the seed (default: %(default)s)"
    parser.add_argument("--pictures", type=int, default=400, metavar="N", help=text)
    text = "draws of pictures and subjects, for the intervals (default: %(default)s)"
    parser.add_argument("--boot", type=int, default=1000, metavar="N", help=text)
    text = "EEG and MEG: also in sliding windows of so many seconds, such as 0.1"
    parser.add_argument("--width", type=float, metavar="S", help=text)
    text = "with --width: between windows, in s (default: 0.02)"
    parser.add_argument("--step", type=float, metavar="S", help=text)
    text = "with --width: orders of the pictures that are chance (default: 1000)"
    parser.add_argument("--permutations", type=int, metavar="N", help=text)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The content of rsa.json with ``folder``; ``text`` is for the terminal. Raises `UserError`."""
    from align.fields.syntax import parse_pooling
    from recon.comparison.rsa import Settings
    from recon.comparison.rsa import run as compare
    from recon.comparison.text import rsa_text

    config, named = settings_of(args)
    backbones = word_list(args.backbones, "--backbones")
    if args.pool:
        parse_pooling(args.pool)
    if args.boot < 1 or args.pictures < 8:
        raise UserError(f"--boot {args.boot} should be 1 or more, and --pictures {args.pictures} 8 or more")
    if args.top and not args.universality:
        raise UserError("--top counts dimensions of --universality; pass that folder, or leave --top out")
    settings = Settings(
        args.pool,
        args.distance,
        _quantiles(args.geotopological),
        _counts(args.top or TOP) if args.universality else (),
        args.pictures,
        args.boot,
        args.test,
        config.seed,
        **_windows(args),
    )
    areas = word_list(args.areas, "--areas") if args.areas else []
    folder = args.out or default_folder("rsa", config, named, backbones, args.images)
    stored = args.universality
    result = compare(
        config, backbones, named, areas, args.images, args.rdm or [], stored, settings, folder, args.overwrite
    )
    return {**result, "text": rsa_text(result)}


def _windows(args: argparse.Namespace) -> dict[str, Any]:
    """Width and step, s, and the permutations, as far as they are given; none of the others without a width."""
    given = {"width": args.width, "step": args.step, "n_perm": args.permutations}
    found = {name: value for name, value in given.items() if value is not None}
    if found and args.width is None:
        raise UserError("--step and --permutations belong to windows; pass their width, too: --width 0.1")
    if args.permutations is not None and args.permutations < 1:
        raise UserError(f"--permutations {args.permutations} should be 1 or more")
    return found


def _quantiles(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    found = number_list(text, "--geotopological")
    if len(found) != 2 or not 0 <= found[0] < found[1] <= 1:
        raise UserError(f"--geotopological {text} should be two rising numbers from 0 to 1, such as 0.2,0.8")
    return found[0], found[1]


def _counts(text: str) -> tuple[int, ...]:
    found = number_list(text, "--top")
    if any(value < 1 or value != int(value) for value in found):
        raise UserError(f"--top {text} should be whole numbers from 1, such as 1,5,10")
    return tuple(sorted(int(value) for value in found))
