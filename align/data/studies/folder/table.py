"""``stimuli.csv`` of a folder of recordings: what was shown in each trial."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from align.errors import UserError
from align.files import no_file
from align.files.labels import is_missing, present, refuse_alike, tidy, whole
from align.files.table import refuse_separator

SPLITS = ("train", "test", "unused")


@dataclass(frozen=True)
class Row:
    """One line of ``stimuli.csv``; ``line`` is its line number in the file."""

    line: int
    row: int
    image: str
    split: str
    subject: str
    concept: str
    caption: str
    repetition: int | None
    session: str


def read_stimuli(path: Path) -> list[Row]:
    if not path.is_file():
        raise UserError(f"{str(path)!r} {no_file(path)}; list the trials there (row, image, split, subject)")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            header = [_column(name or "") for name in reader.fieldnames or []]
            reader.fieldnames = header
            refuse_separator(header, path.name)
            twice = [name for i, name in enumerate(header) if name and name in header[:i]]
            if twice:
                raise UserError(f"{path.name} has two columns called {twice[0]!r}; rename one")
            missing = [name for name in ("row", "image", "split", "subject") if name not in header]
            if missing:
                raise UserError(f"{path.name} lacks the column {missing[0]!r}; it has: {', '.join(header) or 'none'}")
            rows = [_row(cells, reader.line_num) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path.name} is not a UTF-8 table with commas ({error})") from error
    if not rows:
        raise UserError(f"{path.name} lists no trials")
    refuse_alike((row.subject for row in rows if row.subject), "subjects", path.name)
    for subject in dict.fromkeys(row.subject for row in rows):
        sessions = (row.session for row in rows if row.subject == subject and row.session)
        refuse_alike(sessions, f"subject {subject}, sessions", path.name)
    return rows


def _column(name: str) -> str:
    name = tidy(name).lower().replace(" ", "_")
    return "image" if name == "image_file" else name


def _row(cells: dict[str, str | None], line: int) -> Row:
    if None in cells:  # where the reader puts what the header has no column for
        raise UserError(f"stimuli.csv line {line}: more cells than columns; put texts with commas in double quotes")
    text = {name: tidy(value) for name, value in cells.items()}
    unused = text["split"].lower() == "unused"
    for name in ("row", "split", "image", "subject"):
        if is_missing(text[name]) and not (unused and name in ("image", "subject")):
            said = f"{text[name]!r}" if text[name] else "empty"
            raise UserError(f"stimuli.csv line {line}: {name} is {said}; say what it is, or set split to unused")
    if text["split"].lower() not in SPLITS:
        raise UserError(f"stimuli.csv line {line}: split {text['split']!r} is not one of {', '.join(SPLITS)}")
    known = {name: present(text.get(name)) for name in ("concept", "caption", "repetition", "session")}
    return Row(
        line=line,
        row=_whole(text["row"], "row", line),
        image=present(text["image"]),
        split=text["split"].lower(),
        subject=present(text["subject"]),
        concept=known["concept"],
        caption=known["caption"],
        repetition=_whole(known["repetition"], "repetition", line) if known["repetition"] else None,
        session=whole(known["session"]),
    )


def _whole(text: str, name: str, line: int) -> int:
    plain = whole(text)
    if not (plain.isascii() and plain.isdigit()):
        raise UserError(f"stimuli.csv line {line}: {name} {text!r} is not a whole number from 0 up")
    return int(plain)


def require_each_row_once(table: Sequence[Row]) -> None:
    first: dict[int, int] = {}
    for row in table:
        if row.row >= len(table):
            raise UserError(
                f"stimuli.csv line {row.line}: row {row.row} is beyond the last row {len(table) - 1} (from 0)"
            )
        if row.row in first:
            raise UserError(f"stimuli.csv line {row.line}: row {row.row} stands in line {first[row.row]} already")
        first[row.row] = row.line


def require_sessions_or_none(lines: Sequence[Row]) -> None:
    named = [row for row in lines if row.session]
    for row in lines:
        if named and not row.session:
            raise UserError(f"stimuli.csv line {row.line}: session is empty, line {named[0].line} names one; name all")
