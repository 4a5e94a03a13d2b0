"""The trials of a voting page and the table that is their key: a picture, two candidates, which of them was seen.

The table lies beside the page as CSV, one row per trial. The page holds no key: it knows pictures, numbers of trials
and the hash of the table. Votes carry that hash, so they can be joined with no other table.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.errors import UserError
from align.seeding import derive

if TYPE_CHECKING:
    from recon.gallery.content import Content

OWN = "reconstructed"  # the condition of the pictures that are judged; the other conditions are names of controls
COUNT = 40
_STARTS = ("run", "study", "subject", "seed", "image_seed")
COLUMNS = (*_STARTS, "trial", "condition", "stimulus_id", "left_id", "right_id", "picture")


@dataclass(frozen=True)
class Trial:
    """One question. ``picture``: start of the SHA-256 of the picture shown; ``stimulus_id``: what was seen."""

    number: int
    condition: str
    stimulus_id: str
    left_id: str
    right_id: str
    picture: str

    @property
    def true_side(self) -> str:
        """ "left" or "right"."""
        return "left" if self.left_id == self.stimulus_id else "right"


@dataclass(frozen=True)
class Table:
    """All trials of one page. ``run``: see `recon.decoding.predict.run_id`; ``seed``: of foils, sides and order."""

    run: str
    study: str
    subject: str
    seed: int
    image_seed: int
    trials: tuple[Trial, ...]

    @property
    def rows(self) -> list[dict[str, str]]:
        """One dict of text per trial, with the keys of `COLUMNS`."""
        start = {name: str(getattr(self, name)) for name in _STARTS}
        return [
            {**start, "trial": str(t.number)} | {name: str(getattr(t, name)) for name in COLUMNS[len(_STARTS) + 1 :]}
            for t in self.trials
        ]

    @property
    def hash(self) -> str:
        """12 hexadecimal digits that change with every entry, but not with quotes or ends of lines in the file."""
        rows = [[row[name] for name in COLUMNS] for row in self.rows]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:12]

    def text(self) -> str:
        """The content of the file."""
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return buffer.getvalue()


def draw_trials(
    content: Content,
    count: int | None = None,
    seed: int = 0,
    controls: Sequence[str] = (),
    sources: Mapping[str, Mapping[str, str]] | None = None,
) -> Table:
    """``count`` trials (default: `COUNT`, or as many as there can be), shared out evenly among the conditions.

    The same stimuli, drawn at random, stand in every condition; foil, side and order are drawn for each trial, all
    from ``seed``. ``sources``: control to stimulus id to the stimulus whose tokens were drawn; that one is never the
    foil, for it would be a right answer, too.

    Raises `UserError` when there are fewer than three stimuli, or fewer stimuli than the count asks for.
    """
    conditions, n = (OWN, *controls), len(content.items)
    if n < 3:
        raise UserError(f"{n} reconstructed stimuli are too few to vote on; 3 are needed")
    most = n * len(conditions)
    total = min(COUNT, most) if count is None else count
    if not len(conditions) <= total <= most:
        raise UserError(
            f"--count {total} should be {len(conditions)} to {most}: {n} stimuli, each once as {', '.join(conditions)}"
        )
    rng = np.random.default_rng(derive(seed, "votes"))
    order, drawn = rng.permutation(n), []
    for k, condition in enumerate(conditions):
        for place in order[: (total + len(conditions) - 1 - k) // len(conditions)]:
            true = content.items[place].stimulus_id
            taken = (true, (sources or {}).get(condition, {}).get(true))
            foils = [item.stimulus_id for item in content.items if item.stimulus_id not in taken]
            pair = [true, foils[rng.integers(len(foils))]]
            left, right = pair[:: -1 if rng.integers(2) else 1]
            drawn.append((condition, true, left, right, picture_hash(shown(content, int(place), condition))))
    trials = tuple(Trial(number, *drawn[k]) for number, k in enumerate(rng.permutation(total), 1))
    report = content.report
    return Table(report["run"], report["study"], report["subject"], seed, content.image_seed, trials)


def shown(content: Content, place: int, condition: str) -> np.ndarray:
    """The picture uint8 (H, W, 3) of item ``place`` under a condition."""
    item = content.items[place]
    return item.reconstructed if condition == OWN else item.controls[condition]


def picture_hash(pixels: np.ndarray) -> str:
    """12 hexadecimal digits of the SHA-256 of shape and pixels."""
    return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()[:12]


def read_table(path: Path) -> Table:
    """Read a table; raises `UserError` when it is none, or its rows are of different runs or number no trials."""
    rows = read_csv(path, COLUMNS, "table of trials; recon gallery --vote writes one beside its page")
    if not rows or len({tuple(row[name] for name in _STARTS) for row in rows}) != 1:
        raise UserError(f"table {str(path)!r} should hold the trials of one run and one seed")
    first = rows[0]
    try:
        numbers = [int(row["trial"]) for row in rows]
        seeds = int(first["seed"]), int(first["image_seed"])
    except ValueError as error:
        raise UserError(f"table {str(path)!r} holds a trial or seed that is no whole number: {error}") from error
    names = COLUMNS[len(_STARTS) + 1 :]
    trials = tuple(Trial(number, *(row[name] for name in names)) for number, row in zip(numbers, rows, strict=True))
    for k, trial in enumerate(trials, 1):
        if trial.number != k or (trial.left_id == trial.stimulus_id) == (trial.right_id == trial.stimulus_id):
            raise UserError(f"table {str(path)!r}, row {k}: its number or its pictures are not those of a trial")
    return Table(first["run"], first["study"], first["subject"], *seeds, trials)


def read_csv(path: Path, columns: Sequence[str], what: str) -> list[dict[str, Any]]:
    """Rows of a CSV file with at least these columns; raises `UserError` saying that it is no ``what``."""
    if not path.is_file():
        raise UserError(f"{str(path)!r} does not exist or is no file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows, header = list(reader), reader.fieldnames or ()
    except (ValueError, csv.Error) as error:
        raise UserError(f"{str(path)!r} is no readable CSV: {error}") from error
    lacking = [name for name in columns if name not in header]
    if lacking or any(row[name] is None for row in rows for name in columns):
        missing = f"lacks {', '.join(lacking)}" if lacking else "has a row that is too short"
        raise UserError(f"{str(path)!r} {missing}: it is no {what}")
    return rows
