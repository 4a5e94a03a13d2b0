"""`recon tune-pictures`: how the pictures of a run are drawn, chosen on held-out training pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon.commands.generate import add_drawing_arguments, settings_of

if TYPE_CHECKING:
    from align.checkpoint import Run
    from recon.evaluation.settings import EvaluateConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon tune-pictures``, beside ``--subject`` and ``--run``."""
    add = parser.add_argument
    text = "a candidate, as 'strength=1 guidance_scale=2'; may be repeated (default: a table of candidates)"
    add("--try", dest="tried", action="append", default=[], metavar="'NAME=VALUE ...'", help=text)
    text = "training pictures that are held out, in whole scenes or concepts (default: %(default)s)"
    add("--held-out", type=int, default=60, metavar="N", help=text)
    text = "which pictures are held out, and their starting noise (default: %(default)s)"
    add("--seed", type=int, default=0, help=text)
    add_drawing_arguments(parser)


def run(args: argparse.Namespace, run: Run, settings: EvaluateConfig) -> dict[str, Any]:
    """The content of the file that is written into the run; ``text`` is for the terminal."""
    from recon.drawing.generate import check_sampling
    from recon.tuning.candidates import TUNED
    from recon.tuning.chosen import choice_path
    from recon.tuning.tune import Means, tune

    if args.library is not None:
        args.library = Path(args.library).expanduser().resolve()
    conditioning, sampling, runtime = settings_of(args, (args.seed,))
    check_sampling(sampling, None)
    given = {name: str(getattr(args, name)) for name in TUNED if getattr(args, name) is not None}
    means = Means(args.generator, conditioning, sampling, runtime, given)
    result = tune(run, means, args.tried, args.held_out, args.seed, settings)
    return {**result, "text": _text(result, choice_path(run))}


def _text(result: dict[str, Any], path: Path) -> str:
    judges = list(result["judges"])
    width = max(len(name) for name in result["candidates"])
    heads = [f"two_way {name.rpartition('/')[2]}" for name in judges]
    lines = ["  ".join([" " * (width + 2), *heads, "PixCorr", "fine_power"])]
    for name, found in result["candidates"].items():
        cells = [(head, found["two_way"][judge]) for head, judge in zip(heads, judges, strict=True)]
        cells += [("PixCorr", found["PixCorr"]), ("fine_power", found["fine_power"])]
        numbers = (f"{part['value']:.3f}".rjust(len(head)) for head, part in cells)
        lines.append("  ".join([f"{'*' if name == result['choice'] else ' '} {name:{width}}", *numbers]))
    lines += [f"left out: {name}: {reason}" for name, reason in result["skipped"].items()]
    lines += [f"no judge {name}: {reason}" for name, reason in result["judges_missing"].items()]
    settings = " ".join(f"{name}={value}" for name, value in result["settings"].items()) or "as usual"
    lines += [f"chosen: {result['choice']} ({settings}), on {result['held_out']['n']} held-out training pictures"]
    lines += [f"written: {path}; recon generate draws so from now on"]
    return "\n".join(lines)
