"""Votes as the page saves them, joined with the tables that are their key.

A file of votes has the columns table (hash), voter, trial (number), choice (left or right) and seconds.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from align.errors import UserError
from align.files.table import cell
from recon.voting.trials import Table, Trial, read_csv

COLUMNS = ("table", "voter", "trial", "choice", "seconds")
JOINED = (
    *("voter", "run", "study", "subject", "table", "seed", "trial", "condition"),
    *("stimulus_id", "left_id", "right_id", "chosen_id", "true_id", "correct", "seconds"),
)


@dataclass(frozen=True)
class Vote:
    """One answer to one trial. ``seconds`` from the question to the choice."""

    voter: str
    table: Table
    trial: Trial
    choice: str
    seconds: float

    @property
    def correct(self) -> bool:
        """Whether the seen picture was chosen."""
        return self.choice == self.trial.true_side

    @property
    def question(self) -> tuple[str, int]:
        """The same for all voters who answered this trial."""
        return self.table.hash, self.trial.number


def read_votes(paths: Sequence[Path], tables: Iterable[Table]) -> list[Vote]:
    """All votes of several files, joined.

    Raises `UserError` for a file that holds no votes, votes of another table than these, a trial that the table does
    not have, and a voter who answers one trial twice.
    """
    known = {table.hash: table for table in tables}
    votes: list[Vote] = []
    for path in paths:
        rows = read_csv(path, COLUMNS, "file of votes; the page of recon gallery --vote saves one")
        if not rows:
            raise UserError(f"{str(path)!r} holds no vote")
        votes += [_vote(f"{str(path)!r}, vote {k}", row, known) for k, row in enumerate(rows, 1)]
    seen = set()
    for vote in votes:
        answer = (vote.voter, *vote.question)
        if answer in seen:
            raise UserError(f"voter {vote.voter!r} answers trial {vote.trial.number} twice; pass every file once")
        seen.add(answer)
    return votes


def _vote(where: str, row: dict[str, str], tables: dict[str, Table]) -> Vote:
    table, voter = tables.get(row["table"]), row["voter"].strip()
    if table is None:
        found = ", ".join(tables) or "none"
        raise UserError(f"{where} belongs to table {row['table']!r}, which is not here (found: {found}); pass --table")
    if not voter:
        raise UserError(f"{where} names no voter")
    numbers = {str(trial.number): trial for trial in table.trials}
    if row["trial"] not in numbers:
        raise UserError(f"{where} is of trial {row['trial']!r}; its table has 1 to {len(numbers)}")
    if row["choice"] not in ("left", "right"):
        raise UserError(f"{where} chooses {row['choice']!r}; left or right is needed")
    try:
        seconds = float(row["seconds"])
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e6:
        raise UserError(f"{where} took {row['seconds']!r} seconds; a number of 0 or more is needed")
    return Vote(voter, table, numbers[row["trial"]], row["choice"], seconds)


def joined_text(votes: Iterable[Vote]) -> str:
    """CSV with the columns `JOINED`, one row per vote; ``correct`` is 1 or 0."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(JOINED)
    for vote in votes:
        table, trial = vote.table, vote.trial
        chosen = trial.left_id if vote.choice == "left" else trial.right_id
        start = (vote.voter, table.run, table.study, table.subject, table.hash, table.seed, trial.number)
        pair = (trial.condition, trial.stimulus_id, trial.left_id, trial.right_id, chosen, trial.stimulus_id)
        writer.writerow([*map(cell, (*start, *pair)), int(vote.correct), vote.seconds])
    return buffer.getvalue()
