"""`recon train`: the encoders of a study, as ``align/train.py`` trains them, in one process."""

from __future__ import annotations

import argparse
from typing import Any

from align.config import add_config_option
from align.errors import UserError

ALL = "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon train``."""
    add_config_option(parser)
    text = f"labels, or {ALL} (default: subjects of the configuration, else all)"
    parser.add_argument("--subject", nargs="+", metavar="LABEL", help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace weights of another configuration")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """``runs``: folder, subjects, hash of the weights, rows, seconds of each encoder; ``text`` is for the terminal.

    Raises `UserError` as `align.train.train` does.
    """
    from dataclasses import replace

    from align.config import Config, load_config

    config = load_config(Config, args.config, args.overrides)
    if args.subject:
        if any(pair.startswith("subjects=") for pair in args.overrides):
            raise UserError("--subject and subjects=[...] both say whose rows are trained on; give one of them")
        if ALL in args.subject and len(args.subject) > 1:
            raise UserError(f"--subject {ALL} means every subject; leave the other labels out")
        config = replace(config, subjects=[] if args.subject == [ALL] else list(args.subject))
    from align.train import train, use_all_cores

    use_all_cores()
    finished = train(config, overwrite=args.overwrite)
    runs = [
        {
            "folder": str(one.path),
            "study": one.study,
            "subjects": list(one.subjects),
            "weights_hash": one.weights_hash,
            "training_rows": one.n_trials,
            "seconds": round(one.seconds, 1),
        }
        for one in finished
    ]
    label, folder = finished[0].subjects[0], finished[0].path
    after = f"next: recon retrieve --subject {label} --run {folder}"
    return {"runs": runs, "text": "\n".join([*map(str, finished), after])}
