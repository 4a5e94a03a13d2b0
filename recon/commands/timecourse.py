"""`recon timecourse`: when a recording tells which picture was seen, in sliding windows."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.config import add_config_option

if TYPE_CHECKING:
    from align.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon timecourse``."""
    add_config_option(parser)
    parser.add_argument("--subject", help="label, e.g. 01 (default: subjects of the configuration)")
    parser.add_argument("--layers", nargs="+", metavar="LAYER", help="layers to compare (default: target.layer)")
    parser.add_argument("--width", type=float, default=0.1, help="of a window, in s (default: %(default)s)")
    parser.add_argument("--step", type=float, default=0.02, help="between windows, in s (default: %(default)s)")
    parser.add_argument("--test", action="store_true", help="score the test rows (once) instead of cross-validation")
    parser.add_argument("--permutations", type=int, default=2000, help="permuted pairings (default: %(default)s)")
    text = "score the decoder of each window in all windows"
    parser.add_argument("--generalise", action="store_true", help=text)
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the time course of another configuration there"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results go (default: under runs/timecourse)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The content of timecourse.json with ``folder``; ``text`` is for the terminal. Raises `UserError` on bad input."""
    from align.config import Config, load_config

    config = load_config(Config, args.config, args.overrides)
    if args.subject:
        config.subjects = [args.subject]
    from recon.analysis.timecourse import Settings, time_course
    from recon.analysis.timecourse_text import format_time_course

    layers = [item for word in args.layers for item in word.split(",") if item] if args.layers else []
    settings = Settings(args.width, args.step, args.test, args.permutations, args.generalise)
    folder = args.out or _default_folder(config, args.test)
    result = time_course(config, layers or [config.target.layer], settings, folder, overwrite=args.overwrite)
    text = f"{format_time_course(result)}\nwritten: {folder / 'timecourse.json'}, .csv, .png"
    text += "; generalisation.csv, .png" if args.generalise else ""
    return {**result, "text": text}


def _default_folder(config: Config, test: bool) -> Path:
    from align.checkpoint import home
    from align.data.names import file_name, joined_name
    from align.data.places import part_labels, study_labels

    code = [config.simulated.code] if config.study.name == "simulated" else []
    part, told = part_labels(config)
    names = [*study_labels(config), *map(file_name, (*code, *config.subjects)), *part, *(["test"] if test else [])]
    plain = not part and all(subject.isalnum() and subject != "test" for subject in config.subjects)
    return home() / "runs" / "timecourse" / joined_name(names, None if plain else [config.subjects, told, test])
