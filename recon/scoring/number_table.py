"""A CSV of numbers that somebody else wrote: which line holds names, which columns are no features.

`pandas.DataFrame.to_csv` adds an index and a header of numbers, spreadsheets add ids. Taken for values, the one becomes
a feature as large as the table is long, the other a picture of its own. An index that can be nothing else is left out,
which the log says; whatever could be either is refused.
"""

from __future__ import annotations

import csv
import io
import logging
import re
from collections import Counter
from pathlib import Path

import numpy as np

from align.errors import UserError
from align.files import text_of

logger = logging.getLogger(__name__)

_INDEX = re.compile(r"|index|unnamed: ?\d+|level_\d+", re.IGNORECASE)  # what pandas calls an index in a CSV
_IDS = re.compile(
    r"(image|stimulus|picture|stim|img|trial|row|subject|session|sub|file)?[ _.-]?(ids?|names?|nr|no|number)|"
    r"image|stimulus|picture|trial|row|subject|session|label|concept|category|split|repetition|onset|time|nr",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"(.*?)(\d+)(\.0)?")
_FOREIGN = 0.2  # of the columns: more that are named otherwise are no accident
_FEWEST = 3  # rows or columns from which an even spacing is no accident


def read_numbers(path: Path) -> np.ndarray:
    """The values (n, width) float64 of a comma-separated table with or without a line of names; blank lines and lines
    that begin with ``#`` are passed over.

    Raises
    ------
    UserError
        Text among the values, lines of different length, a column that names or counts the rows, a first line of
        numbers that could be names.
    """
    lines = _lines(path)
    if not lines:
        return np.zeros((0, 0))
    first = [_number(cell) for cell in lines[0]]
    names = lines[0] if None in first or _is_count(lines) else None
    rows = lines if names is None else lines[1:]
    x = _values(path, rows, names, start=1 if names is None else 2)
    if names is None:
        _refuse_names(path, x)
    return _features(path, x, names)


def _lines(path: Path) -> list[list[str]]:
    text = text_of(path)
    try:
        found = [[cell.strip() for cell in line] for line in csv.reader(io.StringIO(text, newline=""))]
    except csv.Error as error:
        raise UserError(f"{str(path)!r} is no table of numbers ({error})") from error
    lines = [line for line in found if any(line) and not line[0].startswith("#")]
    for sign, name in ((";", "semicolons"), ("\t", "tabs")):
        if lines and all(len(line) == 1 and sign in line[0] for line in lines):
            raise UserError(f"{str(path)!r} is no table of numbers: its columns are apart by {name}; save with commas")
    return lines


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _is_whole(text: str) -> bool:
    """As pandas and numpy write a count: 3, also 3.0."""
    return re.fullmatch(r"\d+(\.0+)?", text) is not None


def _is_count(lines: list[list[str]]) -> bool:
    """Whether the first line counts 0, 1, 2 ... (or from 1) and the values below are not all whole: it is names."""
    head = lines[0]
    if len(lines) < 2 or not all(map(_is_whole, head)):
        return False
    counted = [int(float(cell)) for cell in head]
    return counted in _counts(len(head)) and not all(_is_whole(cell) for line in lines[1:] for cell in line)


def _counts(n: int) -> list[list[int]]:
    return [list(range(n)), list(range(1, n + 1))]


def _values(path: Path, rows: list[list[str]], names: list[str] | None, start: int) -> np.ndarray:
    width = len(rows[0]) if names is None and rows else len(names or ())
    x = np.empty((len(rows), width))
    for i, line in enumerate(rows):
        if len(line) != width:
            raise UserError(
                f"{str(path)!r} is no table of numbers: row {i + start} has {len(line)} cells, others {width}"
            )
        for k, cell in enumerate(line):
            value = _number(cell)
            if value is None:
                where = f"column {names[k]!r}" if names is not None else f"column {k + 1}"
                raise UserError(
                    f"{str(path)!r} is no table of numbers: {where} holds {cell[:40]!r} in row {i + start}; leave "
                    "columns of text out (ids go into --ids)"
                )
            x[i, k] = value
    return x


def _refuse_names(path: Path, x: np.ndarray) -> None:
    """Raise `UserError` for a first row of numbers that could be names: evenly spaced, or whole among decimals."""
    if len(x) < 2 or x.shape[1] < _FEWEST or not np.isfinite(x).all():
        return
    head, rest = x[0], x[1:]
    even, alone = _evenly_rising(head), not any(_evenly_rising(row) for row in rest)
    whole = len(set(head)) == len(head) and bool((head == np.rint(head)).all())
    decimals = bool((rest != np.rint(rest)).any(axis=0).all())
    if (even and alone) or (whole and decimals):
        shown = ", ".join(f"{value:g}" for value in head[:3])
        raise UserError(
            f"{str(path)!r}: line 1 ({shown}, ...) may be names of columns or values; delete it, or write letters "
            "into the names (f0, f1, ...)"
        )


def _evenly_rising(values: np.ndarray) -> bool:
    steps = np.diff(values)
    return len(steps) > 1 and bool(steps[0] > 0) and bool(np.allclose(steps, steps[0], rtol=1e-6, atol=0))


def _features(path: Path, x: np.ndarray, names: list[str] | None) -> np.ndarray:
    """``x`` without an index; raises `UserError` naming a column that is no feature."""
    if x.shape[1] < 2:
        return x
    counting = [k for k in range(x.shape[1]) if _counts_rows(x, k)]
    if names is None:
        for column, what in [(k, "counts") for k in counting] + [(k, "seems to name") for k in _alone_whole(x)]:
            raise UserError(
                f"{str(path)!r}: column {column + 1} {what} the rows and is no feature; delete it, or give the "
                "columns names"
            )
        return x
    index = [k for k, name in enumerate(names) if _INDEX.fullmatch(name)]
    plain = [k for k in index if k in counting or (len(x) < _FEWEST and k == 0)]
    named = [k for k, name in enumerate(names) if _IDS.fullmatch(name)]
    strange = sorted({*index, *counting, *named, *_foreign(x, names)} - set(plain))
    if strange:
        raise UserError(
            f"{str(path)!r}: column {strange[0] + 1} ({names[strange[0]]!r}) names or counts the rows and is no "
            "feature; delete it (ids go into --ids)"
        )
    if plain:
        logger.info("%s: left out column %d, which counts the rows", path, plain[0] + 1)
    return np.delete(x, plain, axis=1)


def _counts_rows(x: np.ndarray, column: int) -> bool:
    """0, 1, 2 ... or 1, 2, 3 ... down the column, whose like the others are not."""
    values = x[:, column]
    if len(x) < _FEWEST or not any(np.array_equal(values, counted) for counted in _counts(len(x))):
        return False
    others = np.delete(x, column, axis=1)
    return bool((others != np.rint(others)).any())


def _alone_whole(x: np.ndarray) -> list[int]:
    """The first or last column, where it alone holds whole numbers from 0 up, three or more of them, and no other
    column that varies does: a shuffled index or ids, of which few repeat."""
    if len(x) < _FEWEST or x.shape[1] < _FEWEST:
        return []
    varied = x.min(axis=0) != x.max(axis=0)
    whole = np.flatnonzero((x == np.rint(x)).all(axis=0) & varied)
    ends = (0, x.shape[1] - 1)
    return [int(k) for k in whole if len(whole) == 1 and k in ends and x[:, k].min() >= 0 and _names(x[:, k])]


def _names(values: np.ndarray) -> bool:
    """Whether so many different numbers stand there that they are no class and no count of spikes."""
    return len(np.unique(values)) > max(_FEWEST - 1, len(values) // 4)


def _foreign(x: np.ndarray, names: list[str]) -> list[int]:
    """Columns of whole numbers whose names are none of ``f0, f1, ...``, where nearly all are and hold decimals."""
    matches = [_NUMBERED.fullmatch(name) for name in names]
    stems = Counter(match[1] for match in matches if match)
    if not stems:
        return []
    stem, count = stems.most_common(1)[0]
    other = [k for k, match in enumerate(matches) if match is None or match[1] != stem]
    whole = (x == np.rint(x)).all(axis=0)
    same = [k for k in range(len(names)) if k not in other]
    if count < _FEWEST - 1 or len(other) > max(1, _FOREIGN * len(names)) or whole[same].all():
        return []
    return [k for k in other if whole[k]]
