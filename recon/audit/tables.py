"""CSV files of an audit: labels, trials in time, scores of epochs, layers and seeds, published samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from align.errors import UserError
from align.files.labels import present
from align.files.table import text_rows
from recon.audit.checks import Material, Order
from recon.audit.selection import Choice

TRAIN, TEST = "train", "test"
_TIME = ("time", "onset", "order", "trial")
_LABEL = ("label", "concept", "category")


def read_table(path: str | Path) -> list[dict[str, str]]:
    """Rows of a CSV with a header, missing values (n/a, NaN, ...) as "". Raises `UserError` when there are none."""
    rows = [{name: present(value) for name, value in row.items() if name} for row in text_rows(path)[0]]
    if not rows:
        raise UserError(f"table {str(path)!r} has no rows below its header")
    return rows


def add_labels(material: Material, path: str | Path) -> None:
    """Columns: label (or concept, category); split (train or test, default test); stimulus_id.

    The test rows are matched with the brain rows by stimulus_id where both have ids, else by order and number.
    """
    rows = read_table(path)
    column = _column(rows, _LABEL, path)
    split = _splits(rows, path)
    parts = {name: [row for row, part in zip(rows, split, strict=True) if part == name] for name in (TRAIN, TEST)}
    if parts[TRAIN]:
        material.train_labels = [row[column] for row in parts[TRAIN]]
    material.test_labels = [row[column] for row in parts[TEST]]
    if material.brain is None:
        return
    if material.brain_ids is not None and "stimulus_id" in rows[0]:
        known = {row["stimulus_id"]: row[column] for row in parts[TEST]}
        strange = [name for name in material.brain_ids if name not in known]
        if strange:
            raise UserError(f"table {str(path)!r} has no test row of stimulus {strange[0]!r}; list every test stimulus")
        labels = [known[name] for name in material.brain_ids]
    elif len(parts[TEST]) == len(material.brain):
        labels = list(material.test_labels)
    else:
        raise UserError(
            f"table {str(path)!r} has {len(parts[TEST])} test rows for {len(material.brain)} rows of --brain; "
            "list each test stimulus once, in the order of the rows"
        )
    if "" in labels and any(labels):
        raise UserError(f"table {str(path)!r}: {labels.count('')} test rows have no {column}; label each, or none")
    material.labels = labels if any(labels) else None


def add_order(material: Material, path: str | Path) -> None:
    """Columns: label (or concept, category, else stimulus_id); time (or onset, order, trial; else the order of the
    rows); split; stimulus_id; session. One row per trial. Sessions serve where the rows of a split are its signals."""
    rows = read_table(path)
    column = _column(rows, (*_LABEL, "stimulus_id"), path)
    timed = next((name for name in _TIME if name in rows[0]), None)
    time = np.arange(len(rows), dtype=np.float64) if timed is None else _numbers(rows, timed, path)
    split = np.array(_splits(rows, path)) if "split" in rows[0] else None
    both = split is not None and len(set(split.tolist())) == 2
    is_test = split == TEST if split is not None and both else None
    material.order = Order(tuple(row[column] for row in rows), time, is_test)
    if is_test is not None and "stimulus_id" in rows[0]:
        names = np.array([row["stimulus_id"] for row in rows])
        material.train_ids, material.test_ids = names[~is_test].tolist(), names[is_test].tolist()
    signals = (material.train_signals, material.test_signals)
    if is_test is not None and "session" in rows[0] and all(x is not None for x in signals):
        session = np.array([row["session"] for row in rows])
        sides = (session[~is_test], session[is_test])
        if [len(side) for side in sides] != [len(x) for x in signals if x is not None]:
            raise UserError(
                f"table {str(path)!r} has {len(sides[0])} training and {len(sides[1])} test trials, not those of "
                "--train-signals and --test-signals; list each trial, or leave out the column session"
            )
        material.sessions = sides


def add_scores(material: Material, path: str | Path, reported: float | None) -> None:
    """Columns: test; seed, or epoch / layer / any other name with validation; chosen (1 or 0); group (one choice each).

    With a column seed the rows are seeds, and ``reported`` (or the chosen row) is compared with them; otherwise the
    rows are alternatives of a choice, and the reported one is marked by ``chosen`` or found by its test score.
    """
    rows = read_table(path)
    if "test" not in rows[0]:
        raise UserError(f"table {str(path)!r} has no column 'test'; it has: {', '.join(rows[0])}")
    test = _numbers(rows, "test", path)
    if "seed" in rows[0] and "validation" not in rows[0]:
        marked = _marked(rows)
        material.seeds = test[np.isfinite(test)]
        material.reported = reported if reported is not None else float(test[marked[0]]) if marked else None
        if material.reported is not None and material.reported <= 1 < material.seeds.min(initial=np.inf):
            raise UserError(
                f"--reported {material.reported:g} is a fraction, the scores in {str(path)!r} are percentages"
            )
        return
    validation = _numbers(rows, "validation", path) if "validation" in rows[0] else None
    groups = [row.get("group", "") for row in rows]
    for name in dict.fromkeys(groups):
        members = np.array([i for i, group in enumerate(groups) if group == name])
        marked = _marked([rows[i] for i in members])
        chosen = marked[0] if marked else _by_score(test[members], reported, path)
        own = None if validation is None or np.isnan(validation[members]).all() else validation[members]
        material.choices.append(Choice(name or Path(path).stem, test[members], own, chosen))


def read_published(path: str | Path, ids: Sequence[str] | None, n: int) -> np.ndarray:
    """Index (n,) of the published sample of every stimulus; columns sample and, optionally, stimulus_id."""
    rows = read_table(path)
    if "sample" not in rows[0]:
        raise UserError(f"table {str(path)!r} has no column 'sample'; it has: {', '.join(rows[0])}")
    values = _numbers(rows, "sample", path)
    if ids is not None and "stimulus_id" in rows[0]:
        known = {row["stimulus_id"]: value for row, value in zip(rows, values, strict=True)}
        strange = [name for name in ids if name not in known]
        if strange:
            raise UserError(f"table {str(path)!r} has no row of stimulus {strange[0]!r}")
        return np.array([known[name] for name in ids])
    if len(rows) != n:
        raise UserError(f"table {str(path)!r} has {len(rows)} rows for {n} stimuli; one row per stimulus")
    return values


def _splits(rows: list[dict[str, str]], path: str | Path) -> list[str]:
    found = [row.get("split", "") or TEST for row in rows]
    strange = sorted(set(found) - {TRAIN, TEST})
    if strange:
        raise UserError(f"table {str(path)!r}: split {strange[0]!r} is neither {TRAIN!r} nor {TEST!r}")
    return found


def _column(rows: list[dict[str, str]], names: tuple[str, ...], path: str | Path) -> str:
    for name in names:
        if name in rows[0]:
            return name
    raise UserError(f"table {str(path)!r} has no column {' or '.join(names)}; it has: {', '.join(rows[0])}")


def _numbers(rows: list[dict[str, str]], name: str, path: str | Path) -> np.ndarray:
    """A column as float64; an empty cell is NaN."""
    values = []
    for line, row in enumerate(rows):
        try:
            values.append(float(row[name]) if row[name] else np.nan)
        except ValueError as error:
            raise UserError(f"table {str(path)!r}, row {line + 1}: {name} {row[name]!r} is not a number") from error
    return np.array(values)


def _marked(rows: list[dict[str, str]]) -> list[int]:
    return [i for i, row in enumerate(rows) if row.get("chosen", "").lower() in ("1", "true", "yes", "x")]


def _by_score(test: np.ndarray, reported: float | None, path: str | Path) -> int:
    if reported is None:
        raise UserError(f"table {str(path)!r} marks no row as chosen; add a column chosen, or pass --reported SCORE")
    if np.isnan(test).all():
        raise UserError(f"table {str(path)!r} has no test score to compare with --reported {reported:g}")
    nearest = int(np.nanargmin(np.abs(test - reported)))
    if abs(test[nearest] - reported) > 0.01 * max(abs(reported), 1e-12):
        raise UserError(
            f"no test score in {str(path)!r} is the reported {reported:g}; the nearest is {test[nearest]:g}"
        )
    return nearest
