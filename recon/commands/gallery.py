"""`recon gallery`: page and sheet of one run, one page of several, contact sheets for papers, a page to vote on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from align.checkpoint import Run

PER_ROW = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon gallery``; imports nothing heavy."""
    text = "labels, e.g. 01, or 01 02 03 for one page of several"
    parser.add_argument("--subject", nargs="+", default=[], metavar="LABEL", help=text)
    text = "run folder, may be given several times (default: the newest of each subject under runs/)"
    parser.add_argument("--run", action="append", type=Path, default=[], metavar="RUN", help=text)
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: beside the runs)")
    text = "also a sheet for papers (PDF and PNG) of best, median and worst by rule, of all, or of some at random"
    parser.add_argument("--contact", choices=["chosen", "all", "random"], help=text)
    text = "instead: a page that asks people which of two seen pictures was reconstructed; recon score-votes reads it"
    parser.add_argument("--vote", action="store_true", help=text)
    text = "of --vote: whose pictures are mixed in unmarked (default: shuffled, where the run holds it)"
    parser.add_argument("--controls", nargs="*", metavar="NAME", help=text)
    text = f"stimuli per row of that sheet (default: {PER_ROW}), or questions of --vote (default: 40)"
    parser.add_argument("--count", type=int, help=text)
    parser.add_argument("--seed", type=int, default=0, help="of --contact random and of --vote (default: %(default)s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write what was asked for; returns the paths, for several runs each under the run's folder.

    Raises `UserError` for runs and subjects that do not go together, and for runs without scores.
    """
    from align.errors import UserError
    from recon.commands.runs import open_run
    from recon.gallery import Contact, galleries, gallery

    if args.seed < 0:
        raise UserError(f"--seed {args.seed} should be 0 or more")
    if args.vote:
        return _vote(args)
    if args.controls is not None:
        raise UserError("--controls belongs to --vote; the gallery shows every control")
    per_row = PER_ROW if args.count is None else args.count
    if not 1 <= per_row <= 12:
        raise UserError(f"--count {per_row} should be 1 to 12: that many stimuli stand side by side")
    wanted = pairs(args.subject, args.run)
    runs = [open_run(argparse.Namespace(subject=s, run=r, overrides=args.overrides)) for s, r in wanted]
    contact = Contact(args.contact, per_row, args.seed) if args.contact else None
    if len(runs) == 1 and args.out is None and contact is None:
        return dict(gallery(runs[0]))
    return galleries(runs, args.out or together(runs), contact)


def _vote(args: argparse.Namespace) -> dict[str, Any]:
    from align.errors import UserError
    from recon.commands.runs import open_run
    from recon.voting.page import write_vote

    wanted = pairs(args.subject, args.run)
    if len(wanted) != 1 or args.contact:
        raise UserError("--vote makes the page of one run, without --contact; call it once for each")
    subject, path = wanted[0]
    run = open_run(argparse.Namespace(subject=subject, run=path, overrides=args.overrides))
    return write_vote(run, args.out, count=args.count, seed=args.seed, controls=args.controls)


def pairs(subjects: Sequence[str], runs: Sequence[Path]) -> list[tuple[str | None, Path | None]]:
    """Which subject of which run: None = the newest run of the subject, or the run's own subject.

    A folder that holds runs as ``sub-XX/`` stands for all of them.
    """
    from align.checkpoint import MODEL
    from align.errors import UserError

    subjects = list(dict.fromkeys(subjects))
    if not runs:
        if not subjects:
            raise UserError("say whose: pass --subject 01, --subject 01 02 03, or --run A --run B")
        return [(subject, None) for subject in subjects]
    if not subjects:
        inside = [[path] if (path / MODEL).is_file() else _runs_of(path) or [path] for path in runs]
        return [(None, path) for found in inside for path in found]
    if len(runs) not in (1, len(subjects)):
        raise UserError(
            f"{len(subjects)} subjects and {len(runs)} runs: give one run for all of them, or one for each, in order"
        )
    return list(zip(subjects, runs if len(runs) > 1 else [runs[0]] * len(subjects), strict=True))


def together(runs: Sequence[Run]) -> Path:
    """The default path of a page of several runs: in their common folder, else in the first run's."""
    from align.data.names import joined_name, subject_name

    parents = {found.path.resolve().parent for found in runs}
    folder = runs[0].path.parent if len(parents) == 1 else runs[0].path
    names = list(dict.fromkeys(subject_name(found.subject) for found in runs))
    more = [f"and_{len(names) - 4}_more"] if len(names) > 4 else []
    return folder / f"{joined_name(['gallery', *names[:4], *more], names if more else None)}.html"


def _runs_of(folder: Path) -> list[Path]:
    from align.checkpoint import MODEL

    return sorted(path.parent for path in folder.glob(f"sub-*/{MODEL}"))
