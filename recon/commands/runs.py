"""Opening the run that a command is about, and the settings its pairs carry."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from recon.config import places_in, require_places

if TYPE_CHECKING:
    from align.checkpoint import Run
    from recon.evaluation.settings import EvaluateConfig


def open_run(args: argparse.Namespace) -> Run:
    """The run given by --run, or the newest of the subject; see `opened`."""
    return opened(args.run, args)


def opened(path: Path | None, args: argparse.Namespace) -> Run:
    """The run at ``path``, or the newest of the subject; says on stderr which one it is.

    Raises `UserError` when there is none, when it is another subject's, or when an override is not a place.
    """
    from align.config import set_key

    require_places(args.overrides)
    from align.checkpoint import find_run, home, load_run
    from align.data.names import labelled

    if path is None:
        path = find_run(args.subject, home())
    elif not (path / "model.safetensors").is_file() and args.subject is not None:
        own = labelled(path, "sub-{}", args.subject)
        path = own if own.is_dir() else _only_run_of(path, args.subject)
    run = load_run(path, args.subject)
    for pair in args.overrides:
        key, _, value = pair.partition("=")
        set_key(run.config, key, value)
    said = places_in(run.config, args.overrides)
    print(
        f"study {run.study}, subject {run.subject}, layer {run.config.target.layer} of {run.config.backbone.name}, "
        f"run {run.path}{f'; {said}' if said else ''}",
        file=sys.stderr,
    )
    return run


def _only_run_of(path: Path, subject: str) -> Path:
    """``path``; raises `UserError` where it is a folder of runs, naming whose they are and the one of ``subject``."""
    from align.checkpoint import MODEL, stored_facts
    from align.errors import UserError

    people: dict[Path, list[str]] = {}
    for file in sorted(path.expanduser().glob(f"*/{MODEL}")):
        stored = stored_facts(file.parent)
        if stored is not None:
            meta = stored[1]
            people[file.parent] = meta.get("subjects", [meta["subject"]])
    if not people:
        return path
    own = [str(folder) for folder, subjects in people.items() if subject in subjects]
    if own:
        raise UserError(f"{str(path)!r} is a folder of runs; of subject {subject!r}: --run {' or --run '.join(own)}")
    told = "; ".join(f"{folder.name} is of {', '.join(subjects)}" for folder, subjects in people.items())
    raise UserError(f"{str(path)!r} holds no run of subject {subject!r} ({told}); pass another --subject or --run")


def evaluate_settings(args: argparse.Namespace) -> EvaluateConfig:
    """Takes the evaluate.* pairs out of ``args.overrides``."""
    from align.config import load_config
    from recon.evaluation.settings import EvaluatePairs

    own = [pair for pair in args.overrides if pair.startswith("evaluate.")]
    args.overrides = [pair for pair in args.overrides if pair not in own]
    return load_config(EvaluatePairs, None, own).evaluate
