"""THINGS-MEG as its authors publish it: MNE epochs, where an event's number is the number of a picture.

``preprocessed_P1-epo.fif`` (with its continuations ``-epo-1.fif``, ...) holds every trial of a person. Event k is line
k, from 1, of ``image_paths.csv``; ``image_concept_index.csv`` has the number of its concept in the same line; both
tables have no header. 999999 = a catch trial. Pictures shown `TEST_REPETITIONS` times are the test; training trials
of their concepts are removed. Trials are copied once, a piece at a time, into ``.npy`` files in the cache, since epochs
on disk need scaling by channel and cannot be mapped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.data.studies.things.block import Block
from align.data.studies.things.images import ThingsPictures
from align.errors import UserError
from align.files import atomic_path, read_json, write_sealed
from align.files.checksums import append_checksum, map_npy
from align.files.made_once import made_once

CATCH = 999999
TEST_REPETITIONS = 12
TABLES = ("image_paths.csv", "image_concept_index.csv")
_PIECE = 256  # trials copied at once


@dataclass(frozen=True)
class Table:
    """THINGS' list of pictures: ``paths`` "images/aardvark/aardvark_01b.jpg" and concept ``numbers``, line by line."""

    folder: Path
    paths: tuple[str, ...]
    numbers: np.ndarray

    def name(self, event: int) -> str:
        """ "00001_aardvark/aardvark_01b.jpg" of an event."""
        folder, _, file = self.paths[event - 1].rpartition("/")
        return f"{self.numbers[event - 1]:05d}_{folder.rpartition('/')[2]}/{file}"


def find_epochs(root: Path) -> dict[str, Path]:
    """Epochs files at or up to three folders below root, by subject label: "01" for P1."""
    found: dict[str, Path] = {}
    for path in sorted(_at_depths(root, "preprocessed_P*-epo.fif")):
        number = path.name.removeprefix("preprocessed_P").removesuffix("-epo.fif")
        if number.isdigit():
            label = f"{int(number):02d}"
            if label in found:
                raise UserError(f"{str(root)!r} holds two files of P{number}: {found[label]}, {path}; keep one of them")
            found[label] = path
    return found


def read_table(root: Path, images: str | None) -> Table:
    """The two tables, from ``root`` or ``study.images`` or up to three folders below them."""
    places = [root] if images is None else [root, Path(images).expanduser()]
    files = []
    for name in TABLES:
        path = next((path for place in places for path in sorted(_at_depths(place, name))), None)
        if path is None:
            raise UserError(
                f"study.root={str(root)!r} holds no {name}; it is among the metadata of THINGS, osf.io/jum2f"
            )
        files.append(path)
    paths = _lines(files[0])
    try:
        numbers = np.array([int(line) for line in _lines(files[1])])
    except ValueError as error:
        raise UserError(f"{str(files[1])!r} should hold one whole number per line ({error})") from error
    if len(paths) != len(numbers):
        raise UserError(f"{TABLES[0]} has {len(paths)} lines, {TABLES[1]} {len(numbers)}; they belong line to line")
    _require_one_name_per_number(paths, numbers)
    return Table(files[0].parent, tuple(paths), numbers)


def split_events(events: np.ndarray, table: Table) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Indices of the training and of the test trials, sorted by event, and a sentence about those removed.

    Raises
    ------
    UserError
        An event beyond the table, or no picture that was shown `TEST_REPETITIONS` times.
    """
    shown = np.flatnonzero(events != CATCH)
    wrong = events[shown][(events[shown] < 1) | (events[shown] > len(table.paths))]
    if len(wrong):
        raise UserError(f"event {wrong[0]} is no line of {TABLES[0]} (1 to {len(table.paths)}); take THINGS' own table")
    names, counts = np.unique(events[shown], return_counts=True)
    tests = names[counts == TEST_REPETITIONS]
    if len(tests) == 0:
        raise UserError(f"no picture was shown {TEST_REPETITIONS} times, so there are no test pictures")
    number = table.numbers[events[shown] - 1]
    is_test = np.isin(events[shown], tests)
    of_test = np.isin(number, table.numbers[tests - 1]) & ~is_test
    log = (
        f"removed {int(of_test.sum())} training trials of the {len(np.unique(table.numbers[tests - 1]))} test concepts "
        f"and {len(events) - len(shown)} catch trials"
    )
    train, test = shown[~is_test & ~of_test], shown[is_test]
    order = [rows[np.argsort(events[rows], kind="stable")] for rows in (train, test)]
    return order[0], order[1], [log]


def read_epochs(path: Path, table: Table, cache: Path) -> tuple[Block, Block, tuple[np.ndarray, np.ndarray]]:
    """Training and test of one person, mapped from ``cache``, and the events (picture numbers) of their rows.

    ``x`` (n, 271, 281) float32 in T, -0.1 to 1.3 s at 200 Hz, in the file's own units and window.
    """
    folder = cache / "things_meg" / f"{path.stem}-{_key(path, table)}"
    stored, facts = made_once(
        folder / "facts.json",
        lambda: ({s: map_npy(folder / f"{s}.npy") for s in ("train", "test")}, read_json(folder / "facts.json")),
        lambda: _copy(path, table, folder),
        f"a copy of the trials in {path.name} that are used",
    )
    blocks, events = [], []
    for split in ("train", "test"):
        event = np.array(facts[split])
        names, row = np.unique(event, return_inverse=True)
        first = np.searchsorted(event, names)
        blocks.append(
            Block(
                path=path,
                x=stored[split],
                row=row,
                repetition=np.arange(len(row)) - first[row],
                n_images=len(names),
                ch_names=tuple(facts["ch_names"]),
                times=np.array(facts["times"]),
                notes=tuple(facts["log"]),
            )
        )
        events.append(names)
    return blocks[0], blocks[1], (events[0], events[1])


def pictures_of(split: str, events: np.ndarray, table: Table, root: Path, images: str | None) -> ThingsPictures:
    """The pictures of the events; raises `UserError` naming the first that is in none of the usual places."""
    bases = [Path(images).expanduser()] if images is not None else [root, *_folders(root)]
    names, paths = [], []
    for event in events:
        name, listed = table.name(int(event)), table.paths[int(event) - 1]
        short = "/".join(listed.split("/")[-2:])
        tails = [listed, short, *(f"{f}/{name}" for f in ("training_images", "train_images", "test_images"))]
        path = next((base / tail for base in bases for tail in tails if (base / tail).is_file()), None)
        if path is None:
            raise UserError(f"picture {listed!r}, line {event} of {TABLES[0]}, is missing; give study.images=FOLDER")
        names.append(name)
        paths.append(path)
    return ThingsPictures(split, tuple(names), tuple(paths))


def _copy(path: Path, table: Table, folder: Path) -> None:
    """Copy the trials that are used into ``train.npy`` and ``test.npy``; ``facts.json`` last."""
    epochs = _open(path)
    try:
        events = np.asarray(epochs.events[:, 2], dtype=np.int64)
        train, test, log = split_events(events, table)
        if len(train) == 0:
            raise UserError(f"{str(path)!r} has no training trial outside the test concepts")
        picks = [i for i, kind in enumerate(epochs.get_channel_types()) if kind in ("mag", "grad")]
        if not picks:
            raise UserError(f"{str(path)!r} has no MEG channel")
        for split, rows in (("train", train), ("test", test)):
            with atomic_path(folder / f"{split}.npy") as temporary:
                _copy_rows(path, epochs, rows, picks, temporary)
                append_checksum(temporary)
        facts: dict[str, Any] = {
            "ch_names": [epochs.ch_names[i] for i in picks],
            "times": [float(t) for t in epochs.times],
            "train": events[train].tolist(),
            "test": events[test].tolist(),
            "log": log,
        }
    finally:
        for part in getattr(epochs, "_raw", None) or ():  # MNE leaves the files open as long as the object lives
            part.fid.close()
    write_sealed(folder / "facts.json", facts)


def _copy_rows(path: Path, epochs: Any, rows: np.ndarray, picks: list[int], target: Path) -> None:
    """Trials ``rows`` of the epochs, float32 (n, C, T), in that order; read in the order of the file."""
    shape = (len(rows), len(picks), len(epochs.times))
    out = np.lib.format.open_memmap(target, mode="w+", dtype=np.float32, shape=shape)
    order = np.argsort(rows)
    for start in range(0, len(rows), _PIECE):
        piece = order[start : start + _PIECE]
        try:
            out[piece] = epochs.get_data(picks=picks, item=rows[piece], verbose="error")
        except Exception as error:  # MNE raises whatever it likes on broken files
            raise _unreadable(path, error) from error
    out.flush()


def _open(path: Path) -> Any:
    import mne

    from align.data.importing.mne_files import require_tags

    require_tags([path])
    try:
        return mne.read_epochs(path, preload=False, verbose="error")
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    text = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{str(path)!r} is truncated or no epochs file ({text}); fetch it again")


def _key(path: Path, table: Table) -> str:
    """Changes with the files and with the tables."""
    stats = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(path.parent.glob(f"{path.stem}*.fif"))]
    text = json.dumps([stats, table.paths, table.numbers.tolist()])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{str(path)!r} is no text") from error
    return [line.strip().strip('"').replace("\\", "/") for line in lines if line.strip()]


def _require_one_name_per_number(paths: list[str], numbers: np.ndarray) -> None:
    """The two tables are of one order: pictures of one folder have one concept number, and the reverse."""
    name_of: dict[int, str] = {}
    number_of: dict[str, int] = {}
    for line, (path, number) in enumerate(zip(paths, numbers.tolist(), strict=True), 1):
        name = path.rpartition("/")[0]
        if not name:
            raise UserError(f"{TABLES[0]} line {line}: {path!r} is no folder/file")
        if name_of.setdefault(number, name) != name or number_of.setdefault(name, number) != number:
            raise UserError(f"{TABLES[0]} line {line} is {path!r}, {TABLES[1]} says concept {number}: they do not fit")


def _at_depths(root: Path, pattern: str) -> Iterator[Path]:
    for folder in ("", "*/", "*/*/", "*/*/*/"):
        yield from root.glob(folder + pattern)


def _folders(root: Path) -> list[Path]:
    return sorted(child for child in root.iterdir() if child.is_dir())
