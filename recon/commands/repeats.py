"""`recon repeats`: how accuracy grows with the repetitions that are averaged, beside the noise ceiling."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align.checkpoint import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon repeats``, beside ``--subject`` and ``--run``."""
    parser.add_argument("--draws", type=int, default=10, help="random choices of repetitions (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of these choices")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the results (default: the run folder)")


def run(args: argparse.Namespace, run: Run) -> dict[str, Any]:
    """The content of repeats_sub-XX.json; ``text`` is for the terminal. Raises `UserError` on bad input."""
    from align.data.names import file_name
    from recon.analysis.repeats import format_repeats, repeat_curves

    folder, name = args.out or run.path, file_name(run.subject)
    result = repeat_curves(run, folder, n_draws=args.draws, seed=args.seed)
    where = f"written: {folder / f'repeats_sub-{name}.json'}, .csv, .png, reliability_sub-{name}.csv"
    return {**result, "text": f"{format_repeats(result)}\n{where}"}
