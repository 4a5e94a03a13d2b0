"""`recon brain-score`: how well networks predict recorded units, computed and normalised as Brain-Score does."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from align.config import add_config_option
from recon.commands.comparing import word_list


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon brain-score``."""
    add_config_option(parser)
    parser.add_argument("--subject", nargs="+", metavar="LABEL", help="who (default: subjects of the configuration)")
    text = "networks: NAME, NAME@WEIGHTS_FILE or NAME@untrained[:SEED] (default: backbone.name)"
    parser.add_argument("--backbones", metavar="A[,B]", help=text)
    text = "layers to choose from on the other subjects: names, all or spread:K (default: spread:8)"
    parser.add_argument("--layers", nargs="+", default=["spread:8"], metavar="LAYER", help=text)
    text = "pls (25 components, as Brain-Score) or ridge (default: %(default)s)"
    parser.add_argument("--method", choices=["pls", "ridge"], default="pls", help=text)
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results go (default: under runs/brain-score)")
    parser.add_argument("--overwrite", action="store_true", help="replace results of another configuration there")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The rows with ``folder``; ``text`` is for the terminal. Raises `UserError` on bad input."""
    from align.config import Config, load_config

    config = load_config(Config, args.config, args.overrides)
    if args.subject:
        config.subjects = list(dict.fromkeys(args.subject))
    from align.train import use_all_cores
    from recon.commands.encode import default_folder
    from recon.encoding.brain_score import brain_score, brain_score_text

    backbones = word_list(args.backbones, "--backbones") if args.backbones else [config.backbone.name]
    use_all_cores()
    folder = args.out or default_folder("brain-score", config, backbones, test=False)
    rows = brain_score(config, backbones, args.method, args.layers, folder, args.overwrite)
    return {"rows": rows, "folder": str(folder), "text": f"{brain_score_text(rows)}\nfolder: {folder}"}
