"""Arrays with a line for each row, to the `folder` layout: trials, or embeddings of another encoder as signals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from align.data.importing.layout import Pieces, rows_at_once
from align.data.importing.parts import Part
from align.data.importing.trials import Table, TrialChoice, choose, person_of, read_table
from align.data.reading.containers import stored_npy
from align.data.reading.safe_load import load_array
from align.data.signals import release
from align.errors import UserError, counted


def read_embeddings(path: str | Path, ids: str | Path, images: str | Path, choice: TrialChoice) -> Part:
    """The rows of one file: x (n, E), or (n, C, T), as stored.

    ``path``: .npy (mapped), .npz, .h5 or .mat. ``ids``: a line per row, in order or with a column ``row`` (from 0).
    Raises `UserError` as `choose` does, and for another number of lines than rows.
    """
    path = Path(path)
    x = _open(path)
    table = read_table(Path(ids))
    if len(table) != len(x):
        raise UserError(f"{str(path)!r} has {len(x)} rows, {table.source} {len(table)} lines; one line per row")
    lines, trials, files = choose(table, choice, Path(images))
    rows = _rows(table)[lines]
    shape = (len(rows), *x.shape[1:])
    pieces = Pieces(shape, _read(x, rows, rows_at_once(shape)))
    return Part(repr(str(path)), pieces, trials, files, {}, person=person_of(table, choice, lines), file=path)


def read_arrays(
    path: str | Path,
    events: str | Path,
    images: str | Path,
    choice: TrialChoice,
    times: tuple[float | None, float | None],
    channels: Sequence[str],
) -> Part:
    """Trials of one file: x (n, C, T) with ``times`` (rate in Hz, first sample in s), or (n, V) without, as stored.

    ``events``: as ``ids`` of `read_embeddings`. ``channels``: C names, or none. Raises `UserError` as that does, and
    for times or names that do not fit.
    """
    part = read_embeddings(path, events, images, choice)
    shape, (rate, first) = part.signals.shape[1:], times
    if len(shape) == 2 and None in times:
        raise UserError(
            f"{part.source} holds {shape[0]} channels x {shape[1]} samples; give --sfreq HZ and --tmin S (first sample "
            "after the picture, such as -0.2)"
        )
    if len(shape) == 1 and times != (None, None):
        raise UserError(f"{part.source} has {shape[0]} values per trial and no time; leave out --sfreq and --tmin")
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise UserError(f"--sfreq {rate:g} is not a rate in Hz above 0")
    if first is not None and not math.isfinite(first):
        raise UserError(f"--tmin {first:g} is not a time in s")
    twice = next((name for i, name in enumerate(channels) if not name or name in channels[:i]), None)
    if twice is not None:
        raise UserError(f"--channels names {twice!r} twice" if twice else "--channels holds an empty name")
    if channels and len(channels) != shape[0]:
        raise UserError(f"--channels names {counted(len(channels), 'channel')}, {part.source} has {shape[0]}")
    told = {"sfreq": rate, "ch_names": list(channels) or None, "tmin": first}
    return replace(part, info={name: value for name, value in told.items() if value is not None})


def _open(path: Path) -> np.ndarray:
    stored = stored_npy(path) if path.suffix.lower() == ".npy" and path.is_file() else None
    x = stored.open() if stored is not None and stored.dtype is not None and stored.dtype.kind in "biuf" else None
    x = load_array(path) if x is None else x  # says what is wrong with anything else
    if x.ndim not in (2, 3) or 0 in x.shape:
        raise UserError(f"{str(path)!r} has shape {x.shape}; expected (n, width) or (n, channels, samples)")
    return x


def _rows(table: Table) -> np.ndarray:
    """Row of the array of every line (n,), each once."""
    if "row" not in table.columns:
        return np.arange(len(table))
    texts = table.columns["row"]
    last, seen = len(table) - 1, dict[str, int]()
    known = set(map(str, range(len(table))))
    for line, text in enumerate(texts, 1):
        if text not in known:
            raise UserError(
                f"{table.source}: column 'row' holds {text!r} in line {line}, which is no row: they go from 0 to {last}"
            )
        if seen.setdefault(text, line) != line:
            raise UserError(
                f"{table.source}: column 'row' holds {text!r} in lines {seen[text]} and {line}; it must hold every "
                f"number from 0 to {last} once"
            )
    return np.array([int(text) for text in texts])


def _read(x: np.ndarray, rows: np.ndarray, step: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), step):
        yield x[rows[start : start + step]]
        release(x)
