"""Tables of trials, from a .csv, a .tsv or the metadata of epochs: which picture, which split, which session."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.data.importing.layout import Shown
from align.data.importing.people import few, people_of, refuse_several
from align.data.importing.pictures import find_pictures, short_names
from align.errors import UserError
from align.files import no_file
from align.files.labels import is_missing, present, tidy, whole
from align.files.table import refuse_separator

SPLITS = {"train": "train", "training": "train", "test": "test", "unused": "unused"}
TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Table:
    """Columns of equal length ``n``, all text; ``source`` names the table in messages."""

    source: str
    columns: dict[str, list[str]]
    n: int

    def __len__(self) -> int:
        return self.n

    def column(self, name: str) -> list[str]:
        """One column; raises `UserError` with the names there are."""
        if name not in self.columns:
            raise UserError(f"{self.source} has no column {name!r}; it has: {', '.join(self.columns) or 'none'}")
        return self.columns[name]


@dataclass(frozen=True)
class People:
    """Whose trials they are: named by ``column``, of them those of ``only`` (empty: all); None = of one person."""

    column: str | None = None
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrialChoice:
    """Which columns say what. The split comes from exactly one of ``split``, ``test`` and ``test_list``.

    ``split``: a column of train, test, unused. ``test``: a column of true and false (or 1 and 0). ``test_list``: a
    text file with the name of a test picture in every line. Without any of them a column called split is taken.
    ``session``, ``concept``, ``caption``: columns; None takes the one of that name where there is one.
    """

    stimulus: str
    subject: str = ""  # "" = as a column of one subject says, else 01
    people: People = field(default_factory=lambda: People())
    split: str | None = None
    test: str | None = None
    test_list: Path | None = None
    session: str | None = None
    concept: str | None = None
    caption: str | None = None


def read_table(path: Path) -> Table:
    """A table with a header, columns apart by tabs (.tsv) or commas (anything else).

    Raises `UserError` for a missing file, no header, two columns of one name, lines of another length, no lines.
    """
    if not path.is_file():
        raise UserError(f"table {str(path)!r} {no_file(path)}")
    dialect = "excel-tab" if path.suffix.lower() == ".tsv" else "excel"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [[tidy(cell) for cell in line] for line in csv.reader(file, dialect, strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{str(path)!r} is no UTF-8 table ({error})") from error
    if len(lines) < 2:
        raise UserError(f"{str(path)!r} lists no trials; it needs a header and a line per trial")
    header = lines[0]
    refuse_separator(header, path, "\t" if dialect == "excel-tab" else ",")
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise UserError(f"{str(path)!r} has two columns called {twice[0]!r}; rename one")
    for number, line in enumerate(lines[1:], 1):
        if len(line) != len(header):
            raise UserError(f"{str(path)!r}: trial {number} has {len(line)} cells, the header {len(header)}")
    columns = {name: _whole_column([line[i] for line in lines[1:]]) for i, name in enumerate(header)}
    return Table(repr(str(path)), columns, len(lines) - 1)


def _whole_column(cells: list[str]) -> list[str]:
    """Whole numbers without their decimal point, where all are: pandas writes 3.0 for 3 in a column with gaps."""
    plain = [whole(cell) for cell in cells]
    return plain if all(cell.isdigit() or is_missing(cell) for cell in plain) else cells


def from_frame(frame: Any, source: str) -> Table:
    """The table of a pandas frame; missing values become empty, whole numbers lose their decimal point."""
    columns = {}
    for name in frame.columns:
        values = zip(frame[name].tolist(), frame[name].isna().tolist(), strict=True)
        columns[tidy(str(name))] = ["" if missing else _text(value) for value, missing in values]
    return Table(source, columns, len(frame))


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else tidy(str(value))


def choose(table: Table, choice: TrialChoice, folder: Path) -> tuple[list[int], list[Shown], dict[str, Path]]:
    """Lines of the table that show a picture (rising), a `Shown` for each, and the pictures by the name in `Shown`.

    The names are those of `short_names`. Lines without picture are left out, and so are unused ones whose picture is
    not in ``folder``, which the log says; nothing else is asked of them. Raises `UserError` for an unknown column,
    picture or split.
    """
    stimulus = table.column(choice.stimulus)
    rows = [row for row, name in enumerate(stimulus) if not is_missing(name)]
    if not rows:
        raise UserError(f"{table.source}: column {choice.stimulus!r} names no picture")
    who = _people(table, choice, rows)
    of_others = sum(who[row] is None for row in rows)
    rows = [row for row in rows if who[row] is not None]
    unused = _unused(table, choice, rows)
    files = find_pictures(folder, [stimulus[row] for row in rows if row not in unused])
    files |= find_pictures(folder, [stimulus[row] for row in unused], strict=False)
    rows = [row for row in rows if stimulus[row] in files]
    if len(rows) + of_others < len(table):
        logger.info("left out %d of %d trials without a picture", len(table) - of_others - len(rows), len(table))
    names = short_names(files.values(), folder)
    splits = _splits(table, choice, folder, rows, [files[stimulus[row]] for row in rows])
    known = {what: _optional(table, getattr(choice, what), what) for what in ("session", "concept", "caption")}
    shown = [
        Shown(
            names[files[stimulus[row]]],
            split,
            who[row] or "",
            **{what: whole(present(values[row])) for what, values in known.items()},
        )
        for row, split in zip(rows, splits, strict=True)
    ]
    used = [trial for trial in shown if trial.split != "unused"]
    if any(trial.session for trial in used) and not all(trial.session for trial in used):
        raise UserError(f"{table.source}: the session of some trials is missing; name all of them or none")
    return rows, shown, {name: path for path, name in names.items()}


def _people(table: Table, choice: TrialChoice, rows: list[int]) -> list[str | None]:
    """The subject of every line; None for a line of somebody who is not asked for.

    Raises `UserError` where lines look like those of several people and nobody has said whose they are.
    """
    if choice.people.column is None:
        own = choice.subject
        for name, found in _named(table, choice, rows).items():
            one = f"give --subject-column {name} (one of them: --subject {found[0]} beside it)"
            refuse_several(table.source, name, found, one)
            own = own or found[0]
        return [own or "01"] * len(table)
    labels = table.column(choice.people.column)
    unnamed = next((row for row in rows if is_missing(labels[row])), None)
    if unnamed is not None:
        raise UserError(f"{table.source}: column {choice.people.column!r} names nobody for trial {unnamed + 1}")
    for label in dict.fromkeys(labels[row] for row in rows):
        mine = [row for row in rows if labels[row] == label]
        for name, found in _named(table, choice, mine).items():
            whose = f" under {label!r} of column {choice.people.column!r}"
            refuse_several(table.source, name, found, f"give --subject-column {name}", whose)
    known, only = {labels[row] for row in rows}, choice.people.only
    strange = [label for label in only if label not in known]
    if strange:
        raise UserError(
            f"{table.source}: column {choice.people.column!r} has no {strange[0]!r}, but {few(sorted(known))}"
        )
    return [label if not only or label in only else None for label in labels]


def _named(table: Table, choice: TrialChoice, rows: list[int]) -> dict[str, list[str]]:
    """People that columns of the lines ``rows`` name; a column that says what was shown is none of them."""
    columns = {name: [values[row] for row in rows] for name, values in table.columns.items()}
    return people_of(columns, columns[choice.stimulus], (choice.stimulus, choice.concept, choice.caption))


def person_of(table: Table, choice: TrialChoice, rows: list[int]) -> str:
    """The one person whom a column of the lines ``rows`` names; "" where ``choice`` names the column, or none does."""
    if choice.people.column is not None:
        return ""
    return next((found[0] for found in _named(table, choice, rows).values()), "")


def _unused(table: Table, choice: TrialChoice, rows: list[int]) -> list[int]:
    """Those of the lines that a split column calls unused."""
    name = choice.split or "split"
    if choice.test is not None or choice.test_list is not None or name not in table.columns:
        return []
    column = table.columns[name]
    return [row for row in rows if column[row].lower() == "unused"]


def _optional(table: Table, name: str | None, default: str) -> list[str]:
    if name is None and default not in table.columns:
        return [""] * len(table)
    return table.column(name or default)


def _splits(table: Table, choice: TrialChoice, folder: Path, rows: list[int], images: list[Path]) -> list[str]:
    given = [value for value in (choice.split, choice.test, choice.test_list) if value is not None]
    if len(given) > 1:
        raise UserError("give one of --split-column, --test-column and --test-list, not several")
    if choice.test_list is not None:
        tests = set(find_pictures(folder, _lines(choice.test_list)).values())
        return ["test" if image in tests else "train" for image in images]
    if choice.test is not None:
        values = [whole(table.column(choice.test)[row]) for row in rows]
        _require_known(table, choice.test, values, TRUTH)
        return ["test" if TRUTH[value.lower()] else "train" for value in values]
    if choice.split is None and "split" not in table.columns:
        raise UserError(f"{table.source} has no column 'split'; give --split-column, --test-column or --test-list")
    name = choice.split or "split"
    values = [table.column(name)[row] for row in rows]
    _require_known(table, name, values, SPLITS)
    return [SPLITS[value.lower()] for value in values]


def _require_known(table: Table, column: str, values: list[str], known: dict[str, Any]) -> None:
    for value in values:
        if value.lower() not in known:
            raise UserError(f"{table.source}: column {column!r} holds {value!r}; expected {', '.join(known)}")


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"list of test pictures {str(path)!r} {no_file(path)}")
    try:
        lines = [tidy(line) for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"list of test pictures {str(path)!r} is no text") from error
    if not any(lines):
        raise UserError(f"list of test pictures {str(path)!r} is empty")
    return [line for line in lines if line]
