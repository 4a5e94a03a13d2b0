"""`recon data`: look at a study's files, copy them into a mappable form, import one's own, fetch published ones."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import UserError

if TYPE_CHECKING:
    from align.config import Config

OTHERS = {  # action: (module with add_arguments and run, one line of help)
    "import": ("align.data.importing.command", "epochs, betas or embeddings of your own as a folder study"),
    "download": ("align.data.download.command", "fetch a published study: sizes, licence, checksums, resume"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon data``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def add(name: str, text: str, pairs: str | None = None) -> argparse.ArgumentParser:
        epilog = f"key=value pairs may follow: {pairs}" if pairs else None
        action = actions.add_parser(name, help=text, description=text, epilog=epilog, allow_abbrev=False)
        # Without a default of their own, which would undo the same option given before the action.
        action.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print the result as JSON")
        action.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="show the trace of an error"
        )
        action.set_defaults(takes_pairs=pairs is not None)
        return action

    pairs = "laid over the defaults (study.variant=NAME, study.images=FOLDER, subjects=[01,02])"
    check = add("check", "report on the files of a study and say whether they can be used", pairs)
    convert = add("convert", "copy pickled recordings, once, into files that are mapped instead of read", pairs)
    for action in (check, convert):
        action.add_argument("study", help="simulated, cowley2023_v4, things_eeg2, things_meg, nsd, folder")
        action.add_argument("--root", help="folder of the study's files (study.root)")
    convert.add_argument(
        "--out", type=Path, help="new root with the copies and links to all else (default: copies beside the files)"
    )
    for name, (module, text) in OTHERS.items():
        import_module(module).add_arguments(add(name, text))


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The result of one action; raises `UserError` as the action does."""
    own: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {"check": _check, "convert": _convert}
    if args.action in own:
        return own[args.action](args)
    result: dict[str, Any] = import_module(OTHERS[args.action][0]).run(args)
    return result


def _check(args: argparse.Namespace) -> dict[str, Any]:
    """The report; a verdict of "not usable" goes to stderr as well and ends with exit code 2."""
    config = _config(args)
    from align.data.check import check_study, format_report
    from align.data.studies import open_study

    report = check_study(open_study(config))
    if not report["usable"]:
        print(f"recon data check: {report['verdict']}", file=sys.stderr)
    return {**report, "text": format_report(report), "exit_code": 0 if report["usable"] else 2}


def _convert(args: argparse.Namespace) -> dict[str, Any]:
    """Folders written and kept, and the root to train from."""
    config = _config(args)
    from align.data.reading.convert import convert_folder
    from align.data.studies import open_study

    open_study(config)  # says what is wrong with the study or its root before anything is written
    root = config.study.root
    if root is None:
        raise UserError(f"study {args.study} has no files of others to convert; nothing is to be done")
    written, kept = convert_folder(Path(root).expanduser(), args.out)
    return {
        "written": [str(path) for path in written],
        "there already": [str(path) for path in kept],
        "study.root": str(args.out or root),
    }


def _config(args: argparse.Namespace) -> Config:
    from align.config import Config, load_config

    root = [f"study.root={args.root}"] if args.root else []
    return load_config(Config, None, [f"study.name={args.study}", *root, *args.overrides])
