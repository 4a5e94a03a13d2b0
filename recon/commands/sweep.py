"""`recon sweep`: compare layers by cross-validation on training rows; table, figures, best.yaml."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.config import add_config_option
from align.errors import UserError

if TYPE_CHECKING:
    from align.config import Config
    from align.sweep.report import SweepResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon sweep``."""
    add_config_option(parser)
    parser.add_argument(
        "--layers", nargs="+", metavar="LAYER", help="index, name, relative depth such as 0.5, joined as 2+5 (all)"
    )
    parser.add_argument("--encoders", nargs="+", metavar="ENCODER", help="default: encoder.name")
    parser.add_argument(
        "--backbones", nargs="+", metavar="BACKBONE", help="NAME or NAME@WEIGHTS_FILE (default: backbone.name)"
    )
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="that share the cells (default: 1)")
    parser.add_argument("--no-test", action="store_true", help="choose the layer now, read the test rows another time")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the results (default: under runs/sweep)")
    parser.add_argument("--overwrite", action="store_true", help="replace the sweep of another configuration there")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--list", action="store_true", help="print one command per cell, and do nothing")
    one.add_argument(
        "--cell", nargs="+", type=int, metavar="NUMBER", help="compute these cells only; a later sweep finds them"
    )
    text = "cells as an array of jobs, of SLURM or of this machine (pip install 'shallow-recon[slurm]')"
    one.add_argument("--submit", choices=["slurm", "local"], help=text)
    text = "of --submit: how many jobs share the cells (default: one per cell on SLURM, one per core here)"
    parser.add_argument("--jobs", type=int, metavar="N", help=text)
    text = "of --submit, repeatable: what submitit is told, as slurm_partition=gpu, timeout_min=240, gpus_per_node=1"
    parser.add_argument("--slurm", action="append", default=[], metavar="KEY=VALUE", help=text)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The summary (sweep.json) with its folder, and the table as ``text``; for --list the ``commands``."""
    from align.config import Config, load_config

    config = load_config(Config, args.config, [*args.overrides, *_as_pairs(args)])
    config.of_each_encoder()  # a mistake is told before anything heavy is imported
    for name in ("processes", "jobs"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)} should be 1 or more")
    from align.sweep.run import compute_cells, list_cells, run

    if args.list:
        commands = [f"{_command(args)} --cell {number}  # {cell}" for number, cell in enumerate(list_cells(config))]
        return {"commands": commands, "text": "\n".join(commands)}
    if args.cell:
        if args.processes != 1:
            raise UserError("--cell computes in one process; leave out --processes")
        return compute_cells(config, args.cell, args.out)
    result = _submitted(args, config) or run(
        config, out=args.out, processes=args.processes, test=not args.no_test, overwrite=args.overwrite
    )
    best = result.folder / "best.yaml"
    after = shlex.join(["recon", "train", "--config", str(best)])
    text = f"{result.table()}\nfolder: {result.folder}\nbest: {best}\nnext: {after}"
    return {**result.summary, "folder": str(result.folder), "text": text}


def _submitted(args: argparse.Namespace, config: Config) -> SweepResult | None:
    """The sweep by jobs, None where none are asked for."""
    if not args.submit:
        if args.jobs is not None or args.slurm:
            raise UserError("--jobs and --slurm belong to --submit slurm or --submit local")
        return None
    if args.processes != 1:
        raise UserError("--submit divides the cells into jobs (--jobs N); leave out --processes")
    if odd := [word for word in args.slurm if not word.partition("=")[1]]:
        raise UserError(f"--slurm {odd[0]!r} should be KEY=VALUE, as slurm_partition=gpu")
    from align.sweep.submit import submit

    options = {
        name: int(value) if value.isdigit() else value for name, _, value in (w.partition("=") for w in args.slurm)
    }
    how = {"test": not args.no_test, "overwrite": args.overwrite}
    return submit(config, args.submit, out=args.out, jobs=args.jobs, options=options, **how)


def _command(args: argparse.Namespace) -> str:
    """The same call for a shell, without what is said once."""
    words = ["recon", "sweep", *(word for path in args.config or [] for word in ("--config", str(path)))]
    words += args.overrides
    for name in ("layers", "encoders", "backbones"):
        words += [f"--{name}", *getattr(args, name)] if getattr(args, name) else []
    words += ["--out", str(args.out)] if args.out else []
    return shlex.join(words)


def _as_pairs(args: argparse.Namespace) -> list[str]:
    """``--layers 2 4`` as ``sweep.layers=["2", "4"]``, and the like."""
    given = {name: _items(getattr(args, name)) for name in ("layers", "encoders", "backbones")}
    return [f"sweep.{name}={json.dumps(items)}" for name, items in given.items() if items]


def _items(words: list[str] | None) -> list[str] | None:
    """``--layers 2 4`` and ``--layers 2,4`` mean the same."""
    return [item for word in words for item in word.split(",") if item] if words else None
