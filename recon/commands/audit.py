"""`recon audit`: leak checks of a run folder or of anybody's files; verdict in words with the evidence."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

_FILES = {
    "train_images": "pictures of the training split: a folder, or a stack (.npy, .pt, .safetensors)",
    "test_images": "pictures of the test split, likewise",
    "reconstructions": "reconstructed pictures, paired with the targets by file stem or row",
    "targets": "the pictures that were seen (default: --test-images)",
    "train_signals": "recordings of the training trials, (n, ...)",
    "test_signals": "recordings of the test trials, (n, ...)",
    "ids": "CSV with the stimulus ids of the rows of --brain",
    "image_ids": "CSV with the stimulus ids of the rows of --images",
    "labels": "CSV: label, split (train or test), stimulus_id",
    "order": "CSV, one row per trial: label, time, split, stimulus_id, session",
    "samples": "all samples of every stimulus: folder of <stem>_seed-<k> pictures, or stack (n, k, H, W, 3)",
    "chosen": "the published samples: pictures, CSV with a column sample, or array (n,) (default: --reconstructions)",
    "scores": "CSV of test scores: column seed; or validation, chosen and group for epochs and layers",
}
_EMBEDS = {
    "brain": "predicted embeds of the test rows: FILE or FILE:KEY",
    "images": "embeds of the pictures that were seen, in the order of --brain",
    "train_embeds": "embeds of the training pictures",
    "sample_embeds": "all samples of every stimulus as embeds (n, k, E); needs --images and --chosen",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options; imports nothing heavy."""
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN", help="run or sweep folder; files below add to it")
    for name, text in _FILES.items():
        parser.add_argument(_option(name), dest=name, type=Path, metavar="PATH", help=text)
    for name, text in _EMBEDS.items():
        parser.add_argument(_option(name), dest=name, metavar="FILE", help=text)
    parser.add_argument("--reported", type=float, metavar="SCORE", help="the score that was reported, as in --scores")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the findings as JSON")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a leak is found (default: 0)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Audit what is given.

    Returns ``verdict``, ``summary`` (a sentence), ``findings`` (a list, in the order of the pipeline), ``text`` (the
    table for people) and ``exit_code`` (1 for a leak with --strict, else 0). Raises `UserError` for bad input or none.
    """
    from align.errors import UserError
    from align.files import write_json
    from recon.audit.checks import Material, audit
    from recon.audit.collect import from_folder
    from recon.audit.files import Given, add_files
    from recon.audit.verdict import as_dict, as_text, overall

    given = Given(**{name: getattr(args, name) for name in (*_FILES, *_EMBEDS, "reported")})
    if args.run is None and given == Given():
        raise UserError("nothing to audit: pass a run folder, or files such as --train-images and --test-images")
    material, source = Material(), "files"
    if args.run is not None:
        material, source = from_folder(args.run, getattr(args, "overrides", ()))
    add_files(material, given)
    findings = audit(material)
    verdict, summary = overall(findings)
    result = {
        "source": source,
        "verdict": verdict,
        "summary": summary,
        "findings": [as_dict(finding) for finding in findings],
        "text": f"{source}\n\n{as_text(findings)}",
        "exit_code": int(args.strict and verdict == "leak"),
    }
    if args.out is not None:
        write_json(args.out, result)
    return result


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
