"""CSV that somebody else may have written: rows of text under a header whose columns are known."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.files import no_file, text_of
from align.files.labels import tidy

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # the wide forms count for some spreadsheets
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_BREAKS = ("\t", "\r", "\n")


def read_rows(path: str | Path, columns: Sequence[str], remedy: str = "make it again") -> list[dict[str, str]]:
    """Rows of a UTF-8 CSV file with at least these columns, all of them text.

    Raises `UserError` naming the file, and the row and column where there is one; ``remedy`` ends the sentence.
    """
    path = Path(path)
    reader = csv.DictReader(io.StringIO(text_of(path), newline=""))
    rows: list[dict[str, str]] = []
    try:
        header = list(reader.fieldnames or ())
        refuse_separator(header, path)
        lacking = [name for name in columns if name not in header]
        if lacking:
            raise UserError(f"{str(path)!r} lacks a column among {', '.join(columns)} ({lacking[0]}); {remedy}")
        for number, row in enumerate(reader, 1):
            short = [name for name in columns if row[name] is None]
            if short or None in row:
                what = f"has no {short[0]}" if short else "has more cells than the header"
                raise UserError(f"{str(path)!r}, row {number}: it {what}; {remedy}")
            rows.append(row)
    except csv.Error as error:
        raise UserError(f"{str(path)!r}, row {len(rows) + 1}: {error}; {remedy}") from error
    return rows


def text_rows(path: str | Path, what: str = "table") -> tuple[list[dict[str, str]], list[str]]:
    """Rows and header of a UTF-8 CSV file of somebody else's, names and values `tidy`; cells beyond a short row are "".

    Raises `UserError` when it is missing or no CSV text, when two columns have one name, and for a row with more cells
    than the header.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{what} {str(path)!r} {no_file(path)}")
    try:
        lines = list(csv.reader(io.StringIO(text_of(path), newline="")))
    except csv.Error as error:
        raise UserError(f"{what} {str(path)!r} is no CSV text ({error})") from error
    lines = [[tidy(cell) for cell in line] for line in lines if line]
    header = lines[0] if lines else []
    refuse_separator(header, path)
    twice = [name for i, name in enumerate(header) if name and name in header[:i]]
    if twice:
        raise UserError(f"{what} {str(path)!r} has two columns called {twice[0]!r}; rename one")
    for number, line in enumerate(lines[1:], 1):
        if any(line[len(header) :]):
            raise UserError(f"{what} {str(path)!r}: row {number} has {len(line)} cells, the header {len(header)}")
    cells = ([*line, *[""] * (len(header) - len(line))] for line in lines[1:])
    return [dict(zip(header, line, strict=False)) for line in cells], header


def refuse_separator(header: Sequence[str], path: str | Path, wanted: str = ",") -> None:
    """Raise `UserError` where a header is one cell, because its columns are apart by another sign than ``wanted``."""
    other = next((sign for sign in _SEPARATORS if sign != wanted and len(header) == 1 and sign in header[0]), None)
    if other is not None:
        raise UserError(
            f"{str(path)!r} has columns apart by {_SEPARATORS[other]}; save it with {_SEPARATORS[wanted]} between them"
        )


def harmless(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for a CSV that people open in a spreadsheet: text that would begin a formula there gets a ' in front."""
    return {name: cell(value) for name, value in row.items()}


def cell(value: Any) -> Any:
    """One cell of such a row; numbers stay numbers."""
    if not isinstance(value, str) or (not value.lstrip().startswith(_FORMULA) and not value.startswith(_BREAKS)):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def finite(text: str, path: str | Path) -> float:
    """The number that a cell holds; raises `UserError` naming the file where it is none, or not finite."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{str(path)!r} holds {text[:40]!r}, which is no finite number; make it again")
    return value
