"""`recon card` and `recon push`: the model card of a run or conditioner, and its way to the Hugging Face hub."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from align.errors import UserError


def add_card_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon card``."""
    _add_shared(parser)
    parser.add_argument("--to", metavar="OWNER/NAME", help="where it will lie, for the lines that say how to load it")
    text = "print the Methods paragraph of a paper instead; nothing is written"
    parser.add_argument("--methods", action="store_true", help=text)


def add_push_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon push``."""
    _add_shared(parser)
    parser.add_argument("--to", required=True, metavar="OWNER/NAME", help="repository, made where it is not there")
    parser.add_argument("--private", action="store_true", help="make it private; refused where it exists as public")
    parser.add_argument("--dry-run", action="store_true", help="only list the files and their sizes")


def run_card(args: argparse.Namespace) -> dict[str, Any]:
    """Write README.md; returns its path and the subjects whose scores it shows. With ``--methods`` its ``text``.

    Of a folder that holds runs, the card of each of them: ``cards``.
    """
    if args.methods:
        return _methods(args.run)
    from align.checkpoint import MODEL
    from recon.publishing.card import UNNAMED, write_card, write_cards
    from recon.publishing.facts import ADAPTER, runs_in

    alone = any((args.run.expanduser() / name).is_file() for name in (MODEL, ADAPTER))
    runs = [] if alone else runs_in(args.run)
    if not runs:
        return write_card(args.run, args.to or UNNAMED, args.license)
    if args.to:
        raise UserError(f"--to names the place of one run, {str(args.run)!r} holds {len(runs)}; pass --run of one")
    cards = write_cards(runs, UNNAMED, args.license)
    return {"cards": cards, "text": "\n".join(f"card: {one['card']}" for one in cards)}


def _methods(folder: Path) -> dict[str, Any]:
    from recon.publishing.facts import RunFacts, read_facts
    from recon.publishing.methods import methods

    facts = read_facts(folder)
    if not isinstance(facts, RunFacts):
        raise UserError(f"{str(folder)!r} is a conditioner; --methods describes a run")
    text = methods(facts)
    return {"methods": text, "text": text}


def run_push(args: argparse.Namespace) -> dict[str, Any]:
    """What was uploaded, or would be; ``text`` is for the terminal."""
    from recon.publishing.push import push

    result = push(args.run, args.to, private=args.private, dry_run=args.dry_run, license_id=args.license)
    lines = [f"{item['bytes']:>12,d} bytes  {item['file']}" for item in result["files"]]
    end = f"uploaded: {result['commit']}" if result["uploaded"] else f"nothing was uploaded; would go to {args.to}"
    return {**result, "text": "\n".join([*lines, end])}


def _add_shared(parser: argparse.ArgumentParser) -> None:
    text = "folder of a run or of a conditioner; card: or of several runs"
    parser.add_argument("--run", type=Path, required=True, help=text)
    text = "of the weights, as the hub names it, such as cc-by-4.0 (default: other, the terms of the recordings)"
    parser.add_argument("--license", metavar="ID", help=text)
