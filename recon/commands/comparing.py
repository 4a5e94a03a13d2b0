"""What `recon universality`, `recon rsa` and `recon rosetta` share: networks, pictures or a study, a default folder."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from align.config import add_config_option
from align.errors import UserError


def add_comparison_arguments(parser: argparse.ArgumentParser) -> None:
    """What `recon universality` and `recon rsa` share."""
    add_network_arguments(parser)
    parser.add_argument("--study", metavar="NAME", help="whose brains are compared, with key=value pairs as elsewhere")
    parser.add_argument("--test", action="store_true", help="look at the test pictures of the study, not the others")


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Networks and the results: what `recon rosetta` shares with these."""
    add_config_option(parser)
    text = "networks: NAME, NAME@WEIGHTS_FILE or NAME@untrained[:SEED]"
    parser.add_argument("--backbones", required=True, metavar="A,B,C", help=text)
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results go (default: under runs)")
    parser.add_argument("--overwrite", action="store_true", help="replace results of another configuration there")


def settings_of(args: argparse.Namespace) -> tuple[Any, bool]:
    """The configuration, and whether a study is named in it: by ``--study``, a file or a pair."""
    from align.config import Config, load_config

    pairs = [*args.overrides, *([f"study.name={args.study}"] if args.study else [])]
    named = bool(args.study or args.config or any(pair.startswith("study.name=") for pair in args.overrides))
    if getattr(args, "test", False) and not named:
        raise UserError("--test means the test pictures of a study; name one (--study NAME), or leave --test out")
    return load_config(Config, args.config, pairs), named


def default_folder(command: str, config: Any, named: bool, backbones: list[str], images: Path | None) -> Path:
    """``runs/COMMAND/...``, by pictures or study and networks."""
    from align.checkpoint import home
    from align.data.names import file_name, joined_name
    from align.data.places import part_labels, study_labels

    names = [file_name(images.name)] if images else []
    if named:
        names += [*study_labels(config), *map(file_name, config.subjects), *part_labels(config)[0]]
    told = [backbones, str(images), part_labels(config)[1]]
    return home() / "runs" / command / joined_name([*names, f"{len(backbones)}-networks"], told)


def word_list(text: str, option: str) -> list[str]:
    """Words joined by commas, each once; raises `UserError` where there is none."""
    words = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not words:
        raise UserError(f"{option} names nothing; write for example A,B")
    return words


def number_list(text: str, option: str) -> list[float]:
    """Finite numbers joined by commas."""
    found = []
    for word in word_list(text, option):
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UserError(f"{option} {word!r} is no number; write for example 0,1,10")
        found.append(value)
    return found
