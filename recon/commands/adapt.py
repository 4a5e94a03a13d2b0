"""`recon adapt`: decoders for a new person from little data; learning curves of every method."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from align.config import add_config_option
from align.errors import UserError

ALL = "all"
TRIALS = "50,100,200,400,all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon adapt``."""
    add_config_option(parser)
    parser.add_argument("--subject", nargs="+", metavar="LABEL", help=f"who is new, or {ALL}: each in turn")
    parser.add_argument("--known", nargs="+", metavar="LABEL", help="whom to learn from (default: all others)")
    text = f"numbers of pictures to adapt with, joined by commas (default: {TRIALS})"
    parser.add_argument("--trials", metavar="N[,N]", help=text)
    text = "the same as minutes of recording, for studies whose length of a trial is known"
    parser.add_argument("--minutes", metavar="M[,M]", help=text)
    parser.add_argument("--method", default="prior", metavar="NAME[,NAME]", help=f"or {ALL} (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the results (default: under runs/adapt)")
    text = "new subjects at a time, each in a process of its own with its share of the cores (default: %(default)s)"
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace results of another configuration there")
    text = "with --shared: rebuild the run of an adapter.safetensors"
    parser.add_argument("--adapter", type=Path, metavar="FILE", help=text)
    parser.add_argument("--shared", type=Path, metavar="FILE", help="the shared_*.safetensors that the adapter is of")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The content of adapt.json (of several subjects: adapt_all.json); ``text`` is for the terminal."""
    from align.config import Config, load_config

    if args.adapter or args.shared:
        return _rebuild(args)
    if not args.subject:
        raise UserError(f"the following arguments are required: --subject; give a label, or {ALL}")
    if args.jobs < 1:
        raise UserError(f"--jobs {args.jobs}: give 1 or more")
    trials = _trials(args.trials or ("" if args.minutes else TRIALS), bool(args.minutes))
    config = load_config(Config, args.config, args.overrides)
    from align.adaptation.amounts import pictures_in
    from align.adaptation.methods import methods_of
    from align.data.studies import open_study
    from align.train import use_all_cores

    methods = methods_of([name for name in args.method.split(",") if name])
    if not methods:
        raise UserError("--method names no method")
    if ALL in args.subject and len(args.subject) > 1:
        raise UserError(f"--subject {ALL} means every subject; leave the other labels out")
    everybody = list(config.subjects or open_study(config).default_subjects)
    new = everybody if args.subject == [ALL] else list(dict.fromkeys(args.subject))
    known = list(dict.fromkeys(args.known or everybody))
    spoken = []
    for minutes in _minutes(args.minutes or ""):
        count, text = pictures_in(minutes, open_study(config), new)
        trials.append(count)
        spoken.append(text)
    trials = sorted(dict.fromkeys(trials), key=lambda count: (count is None, count or 0))
    use_all_cores()
    from recon.adaptation.runner import adapt, table

    result = adapt(config, new, known, methods, trials, args.out, args.overwrite, jobs=args.jobs)
    text = "\n".join([*spoken, table(result), f"folder: {result['folder']}", _next(result)])
    return {**result, "text": text}


def _next(result: dict[str, Any]) -> str:
    one = result if "rows" in result else result["of_subject"][0]
    folder = Path(result["folder"])
    if one is not result:
        from align.data.names import subject_name

        folder /= subject_name(one["subject"])
    return f"next: recon retrieve --subject {one['subject']} --run {folder / one['run']}"


def _minutes(text: str) -> list[float]:
    found = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(float(word))
        except ValueError:
            raise UserError(f"--minutes {word!r} is no number; write for example 15,60") from None
        if not 0 < found[-1] < float("inf"):
            raise UserError(f"--minutes {word}: give a number above 0")
    return found


def _trials(text: str, empty: bool = False) -> list[int | None]:
    from align.adaptation.amounts import LEAST

    found: list[int | None] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        if word != ALL and not word.isdecimal():
            raise UserError(f"--trials {word!r} is no number; write for example {TRIALS}")
        if word != ALL and int(word) < LEAST:
            raise UserError(f"--trials {word}: {LEAST} pictures or more are needed")
        found.append(None if word == ALL else int(word))
    if not found and not empty:
        raise UserError(f"--trials names no number; write for example {TRIALS}")
    return found


def _rebuild(args: argparse.Namespace) -> dict[str, Any]:
    if not (args.adapter and args.shared and args.out):
        raise UserError("--adapter FILE, --shared FILE and --out DIR belong together")
    from recon.adaptation.rebuilding import rebuild

    run = rebuild(args.adapter, args.shared, args.out, args.overrides, args.overwrite)
    return {"run": str(run), "text": f"run: {run}"}
