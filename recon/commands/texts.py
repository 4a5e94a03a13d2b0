"""Options of every command that compares a run with texts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recon.decoding.text_space import TextSettings

TEXT_OPTIONS = ("bank", "text_tower", "alignment", "fit")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of them has a value unless it is given."""
    text = "texts: one a line, or a CSV with the columns id,caption (default: captions of the study, else concepts)"
    parser.add_argument("--bank", type=Path, metavar="FILE", help=text)
    add_tower(parser)
    text = "to text space from predicted tokens, by a map fitted to pictures alone, or from signals (default: pivot)"
    parser.add_argument("--alignment", choices=["pivot", "joint"], help=text)
    parser.add_argument("--fit", choices=["ridge", "infonce"], help="of the map (default: ridge)")


def add_tower(parser: argparse.ArgumentParser) -> None:
    """``--text-tower`` alone."""
    text = "what embeds texts: mini, or a folder or hub id of transformers or open_clip (default: mini)"
    parser.add_argument("--text-tower", metavar="DIR|HUB_ID", help=text)


def text_settings(args: argparse.Namespace) -> TextSettings:
    """What the options say."""
    from recon.decoding.text_space import TextSettings

    named = {"bank": args.bank, "tower": args.text_tower, "alignment": args.alignment, "fit": args.fit}
    return TextSettings(**{name: value for name, value in named.items() if value is not None})
