"""What makes a table of events doubtful: rows are matched to volumes by their order alone, and nothing else says so."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from align.data.importing.trials import Table
from align.files.labels import is_missing, whole

_PART = re.compile(r"(?:^|_)(ses|run)-([a-zA-Z0-9]+)(?=[_.]|$)")  # of a file's name, as BIDS has it


def doubts(betas: Path, events: Path, table: Table, session: str | None) -> Iterator[str]:
    """Sentences about the ``events`` of one file; ``session``: the column that names it, None = "session"."""
    line = _first_descent(table, session or "session")
    if line is not None:
        yield (
            f"onsets of {table.source} do not ascend (first at trial {line}): rows must be in the order of the "
            "volumes; where runs stand one after the other, add a column run"
        )
    named = {path.name: label for path in (betas, events) if (label := dict(_PART.findall(path.name)).get("ses"))}
    labels = _labels(table, session or "session")
    wrong = [(file, name, label) for file, name in named.items() for label in labels if _plain(name) != _plain(label)]
    if wrong:
        file, name, label = wrong[0]
        yield f"{table.source} names session {label!r}, {file!r} session {name!r}: make sure that they belong together"
    elif len({_plain(name) for name in named.values()}) > 1:
        one, two = named
        yield f"{one!r} and {two!r} name two sessions: make sure that they belong together"


def shared_session(one: tuple[Path, Table], two: tuple[Path, Table], session: str | None) -> Iterator[str]:
    """A sentence where two files (betas, events) of one person name one session, and nothing names two runs of it."""
    name = session or "session"
    both = [label for label in _labels(one[1], name) if label in _labels(two[1], name)]
    runs = [_runs(path, table) for path, table in (one, two)]
    if both and (runs[0] & runs[1] or not all(runs)):
        yield (
            f"{one[1].source} and {two[1].source} both name session {both[0]!r}: if these are two sessions, mend the "
            f"column {name!r}; if they are runs of one, add a column run"
        )


def _runs(betas: Path, table: Table) -> set[str]:
    """Labels of the runs that the table names, or else the name of the file."""
    in_name = dict(_PART.findall(betas.name)).get("run")
    return {_plain(label) for label in _labels(table, "run") or ([in_name] if in_name else [])}


def _labels(table: Table, column: str) -> list[str]:
    return list(dict.fromkeys(value for value in table.columns.get(column, []) if not is_missing(value)))


def _first_descent(table: Table, session: str) -> int | None:
    """The first trial, from 1, that begins before one above it in the same run; None = there is none."""
    lacking = [""] * len(table)
    parts = [table.columns.get(name, lacking) for name in (session, "run")]
    latest: dict[Sequence[str], float] = {}
    for i, (text, *part) in enumerate(zip(table.columns.get("onset", lacking), *parts, strict=True), 1):
        try:
            onset = math.nan if is_missing(text) else float(text)
        except ValueError:
            continue
        if onset < latest.get(tuple(part), -math.inf):
            return i
        if math.isfinite(onset):
            latest[tuple(part)] = onset
    return None


def _plain(label: str) -> str:
    return whole(label.lower().removeprefix("ses-").removeprefix("run-")).lstrip("0") or "0"
