"""`recon reproduce`: a published recipe, scored under its own rule of choice and under the clean one."""

from __future__ import annotations

import argparse
from typing import Any

from align.config import add_config_option


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon reproduce``."""
    parser.add_argument(
        "recipe", metavar="NAME", help="nice, atm, ubp, neurobridge, samga, shallow_alignment, or a YAML file"
    )
    add_config_option(parser, "YAML file of the study (default: the simulation)")
    parser.add_argument(
        "--adapt",
        action="store_true",
        help="let encoder, kernels and batch size follow the signals; printed in the table",
    )
    text = "replace a reproduction of another configuration in the folder"
    parser.add_argument("--overwrite", action="store_true", help=text)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The dict of `recon.reproduce.run.reproduce`; ``text`` is the Markdown table.

    Raises `UserError` for a bad recipe, configuration or study, or an encoder that cannot read the signals.
    """
    from recon.reproduce.recipe import load_recipe

    load_recipe(args.recipe, args.config, args.overrides)  # a mistake is told before anything heavy is imported
    from recon.reproduce.run import reproduce

    return reproduce(args.recipe, args.config, args.overrides, adapt=args.adapt, overwrite=args.overwrite)
