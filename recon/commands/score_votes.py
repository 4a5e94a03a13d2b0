"""`recon score-votes`: what people's votes on a page of `recon gallery --vote` say."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import UserError

if TYPE_CHECKING:
    from align.checkpoint import Run
    from recon.evaluation.settings import EvaluateConfig
    from recon.voting.ballots import Vote
    from recon.voting.trials import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon score-votes``."""
    parser.add_argument("votes", nargs="+", type=Path, metavar="VOTES.csv", help="what the page saved, of any voters")
    text = "label of the run's subject; its newest run under runs/ is taken, unless --run names one"
    parser.add_argument("--subject", help=text)
    parser.add_argument("--run", type=Path, metavar="RUN", help="run folder, for the tables and the picture metrics")
    text = "tables that lie beside the pages (default: vote_sub-XX_*.csv in the run folder); alone: without metrics"
    parser.add_argument("--table", nargs="+", type=Path, default=[], metavar="TABLE.csv", help=text)
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="also write the votes joined with their trials")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Accuracies, differences, agreement of voters, ``metrics`` and ``skipped``; ``text`` is for the terminal.

    Raises `UserError` for files that are no votes or tables, and for votes, tables and run that do not belong together.
    """
    from align.data.names import file_name
    from align.files import write_atomic
    from recon.commands.runs import evaluate_settings, open_run
    from recon.voting.ballots import joined_text, read_votes
    from recon.voting.score import score_votes
    from recon.voting.text import format_votes
    from recon.voting.trials import read_table

    settings = evaluate_settings(args)
    settings.check("evaluate.")
    found = open_run(args) if args.run or args.subject else None
    if found is None and (not args.table or args.overrides):
        raise UserError("say where the tables are: pass --subject 01, --run RUN or --table TABLE.csv")
    paths = args.table
    if found and not paths:
        paths = sorted(found.path.glob(f"vote_sub-{file_name(found.subject)}_{12 * '?'}.csv"))  # 12: those of the hash
    tables = [read_table(path) for path in paths]
    votes = read_votes(args.votes, tables)
    used = list({vote.table.hash: vote.table for vote in votes}.values())
    if len({table.run for table in used}) > 1:
        raise UserError(f"these votes are about different runs: {', '.join(sorted({table.run for table in used}))}")
    result: dict[str, Any] = {"schema": 1, "kind": "votes"}
    result |= {name: getattr(used[0], name) for name in ("run", "study", "subject")}
    result |= {"tables": [table.hash for table in used], "votes": len(votes)}
    result |= {"voters": sorted({vote.voter for vote in votes}), **score_votes(votes, settings)}
    result |= _metrics(found, votes, used, settings) if found else {"metrics": {}, "skipped": {}}
    if args.out:
        write_atomic(args.out, joined_text(votes))
    return {**result, "text": format_votes(result)}


def _metrics(run: Run, votes: list[Vote], tables: list[Table], settings: EvaluateConfig) -> dict[str, Any]:
    """``metrics`` and ``skipped``; raises `UserError` when the tables are of another training of the run."""
    from recon.decoding.predict import run_id
    from recon.gallery.content import read_content
    from recon.voting.metric_choices import metric_choices
    from recon.voting.score import metric_agreement

    if tables[0].run != run_id(run):
        raise UserError(f"these votes are about {tables[0].run}, but the run {str(run.path)!r} is {run_id(run)}")
    choices, skipped = metric_choices(read_content(run), tables, run.config.backbone.name, settings)
    return {"metrics": metric_agreement(votes, choices, settings), "skipped": skipped}
