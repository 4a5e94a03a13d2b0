"""THINGS-MEG as its authors publish it: MNE epochs, where an event's number is the number of a picture.

``preprocessed_P1-epo.fif`` (with its continuations ``-epo-1.fif``, ...) holds every trial of a person. The epochs carry
a table of their trials (``sample_attributes_P1.csv`` of the publication): ``trial_type`` exp, test or catch,
``image_path`` (``images_meg/aardvark/aardvark_01b.jpg``; ``images_test_meg/tuxedo_16s.jpg`` for the test) and
``things_category_nr``. Without it event k is line k, from 1, of THINGS' list ``image-paths.csv`` (earlier called
``image_paths.csv``, beside ``image_concept_index.csv`` with the number of the concept in the same line; no headers),
999999 is a catch trial and pictures shown more than once are the test. Training trials of the test concepts are
removed. Trials are copied once, a piece at a time, into ``.npy`` files in the cache, since epochs on disk need scaling
by channel and cannot be mapped.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.data.studies.things.block import Block
from align.data.studies.things.images import ThingsPictures, find_picture, picture_bases
from align.errors import UserError
from align.files import atomic_path, read_json, write_sealed
from align.files.checksums import MADE_FOR, append_checksum, map_npy, of_folder, require_made_for
from align.files.made_once import made_once

CATCH = 999999
LISTS = ("image-paths.csv", "image_paths.csv")
NUMBERS = "image_concept_index.csv"
METADATA = "the epochs' own table of trials"
EXP, TEST = "exp", "test"  # trial_type of training and test; all else is left out
_PIECE = 256  # trials copied at once


@dataclass(frozen=True)
class Table:
    """A list of pictures: ``paths`` "images/aardvark/aardvark_01b.jpg" and concept ``numbers``, by event.

    ``source``: the file, or `METADATA`.
    """

    source: str
    paths: dict[int, str]
    numbers: dict[int, int]

    def name(self, event: int) -> str:
        """ "00001_aardvark/aardvark_01b.jpg" of an event."""
        folder, _, file = self.paths[event].rpartition("/")
        return f"{self.numbers[event]:05d}_{folder.rpartition('/')[2]}/{file}"


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


def read_list(root: Path, images: str | None) -> Table | None:
    """THINGS' list, from ``root`` or ``study.images`` or up to three folders below them; None where there is none.

    Concepts have the numbers of ``image_concept_index.csv`` where that is there too, else those of their order in the
    list, which is that of THINGS. Raises `UserError` for tables that do not fit together.
    """
    places = [root] if images is None else [root, Path(images).expanduser()]

    def find(name: str) -> Path | None:
        return next((path for place in places for path in sorted(_at_depths(place, name))), None)

    listed = next((path for name in LISTS if (path := find(name)) is not None), None)
    if listed is None:
        return None
    paths, second = _lines(listed), find(NUMBERS)
    if second is None:
        order = {name: number for number, name in enumerate(dict.fromkeys(p.rpartition("/")[0] for p in paths), 1)}
        numbers = [order[path.rpartition("/")[0]] for path in paths]
    else:
        numbers = _numbers(second)
        if len(paths) != len(numbers):
            raise UserError(f"{listed.name} has {len(paths)} lines, {NUMBERS} {len(numbers)}; they belong line to line")
    _require_one_name_per_number(listed.name, paths, numbers)
    return Table(listed.name, dict(enumerate(paths, 1)), dict(enumerate(numbers, 1)))


def table_of(metadata: Any, events: np.ndarray) -> Table | None:
    """The list that the epochs carry, None where they carry none (or one without ``image_path``).

    Raises `UserError` where trials of one event name two pictures.
    """
    if metadata is None or "image_path" not in metadata:
        return None
    paths: dict[int, str] = {}
    concepts: dict[str, int] = {}
    category = metadata["things_category_nr"] if "things_category_nr" in metadata else [None] * len(events)
    for event, path, number in zip(events.tolist(), metadata["image_path"], category, strict=True):
        if event == CATCH or not isinstance(path, str) or "_catch_" in path:
            continue
        path = _in_concept_folder(path.replace("\\", "/"))
        if paths.setdefault(event, path) != path:
            raise UserError(f"event {event} is {paths[event]!r} and {path!r} in {METADATA}; fetch the epochs again")
        if number is not None and number == number:  # no NaN
            concepts.setdefault(path.split("/")[-2], int(number))
    rest = sorted({path.split("/")[-2] for path in paths.values()} - set(concepts))
    start = max(concepts.values(), default=0) + 1
    concepts |= {name: start + k for k, name in enumerate(rest)}
    return Table(METADATA, paths, {event: concepts[path.split("/")[-2]] for event, path in paths.items()})


def split_events(
    events: np.ndarray, table: Table, kinds: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Indices of the training and of the test trials, sorted by event, and a sentence about those removed.

    ``kinds``: ``trial_type`` of every trial; None: pictures shown more than once are the test.

    Raises
    ------
    UserError
        An event beyond the table, or no test picture.
    """
    shown = np.flatnonzero(events != CATCH if kinds is None else np.isin(kinds, (EXP, TEST)))
    wrong = [event for event in np.unique(events[shown]).tolist() if event not in table.paths]
    if wrong:
        told = f"(1 to {len(table.paths)})" if table.source != METADATA else ""
        raise UserError(
            f"event {wrong[0]} is no line of {table.source} {told}; take THINGS' own table".replace(" ;", ";")
        )
    names, counts = np.unique(events[shown], return_counts=True)
    tests = names[counts > 1] if kinds is None else np.unique(events[kinds == TEST])
    if len(tests) == 0:
        raise UserError("no picture was shown more than once, so there are no test pictures")
    number = np.array([table.numbers[event] for event in events[shown].tolist()])
    test_numbers = {table.numbers[event] for event in tests.tolist()}
    is_test = np.isin(events[shown], tests)
    of_test = np.isin(number, sorted(test_numbers)) & ~is_test
    log = (
        f"removed {int(of_test.sum())} training trials of the {len(test_numbers)} test concepts "
        f"and {len(events) - len(shown)} catch trials"
    )
    train, test = shown[~is_test & ~of_test], shown[is_test]
    order = [rows[np.argsort(events[rows], kind="stable")] for rows in (train, test)]
    return order[0], order[1], [log]


def read_epochs(
    path: Path, table: Table | None, cache: Path
) -> tuple[Block, Block, tuple[np.ndarray, np.ndarray], Table]:
    """Training and test of one person, mapped from ``cache``, the events (picture numbers) of their rows, their list.

    ``table``: THINGS' list, for epochs that carry none. ``x`` (n, 271, 281) float32 in T, -0.1 to 1.3 s at 200 Hz, in
    the file's own units and window.
    """
    folder = cache / "things_meg" / f"{path.stem}-{_key(path, table)}"
    stored, facts = made_once(
        folder / "facts.json",
        lambda: _stored(folder),
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
    pictures = {int(event): entry for event, entry in facts["pictures"].items()}
    used = Table(facts["source"], {e: p for e, (p, _) in pictures.items()}, {e: n for e, (_, n) in pictures.items()})
    return blocks[0], blocks[1], (events[0], events[1]), used


def pictures_of(split: str, events: np.ndarray, table: Table, root: Path, images: str | None) -> ThingsPictures:
    """The pictures of the events; raises `UserError` naming the first that is in none of the usual places."""
    bases = picture_bases(root if images is None else Path(images).expanduser())
    names, paths = [], []
    for event in events.tolist():
        name, listed = table.name(event), table.paths[event]
        path = find_picture(name, bases, [listed])
        if path is None:
            where = f"line {event} of {table.source}" if table.source != METADATA else f"of event {event}"
            raise UserError(f"picture {listed!r}, {where}, is missing; give study.images=FOLDER")
        names.append(name)
        paths.append(path)
    return ThingsPictures(split, tuple(names), tuple(paths))


def _copy(path: Path, table: Table | None, folder: Path) -> None:
    """Copy the trials that are used into ``train.npy`` and ``test.npy``; ``facts.json`` last."""
    epochs = _open(path)
    try:
        events = np.asarray(epochs.events[:, 2], dtype=np.int64)
        own = table_of(epochs.metadata, events)
        used = own or table
        if used is None:
            raise UserError(
                f"{str(path)!r} carries no table of its trials, and there is no {LISTS[0]} of THINGS (osf.io/jum2f, "
                "01_image-level); put it into study.root"
            )
        typed = own is not None and "trial_type" in epochs.metadata
        kinds = np.asarray(epochs.metadata["trial_type"], dtype=str) if typed else None
        train, test, log = split_events(events, used, kinds)
        if len(train) == 0:
            raise UserError(f"{str(path)!r} has no training trial outside the test concepts")
        picks = [i for i, kind in enumerate(epochs.get_channel_types()) if kind in ("mag", "grad")]
        if not picks:
            raise UserError(f"{str(path)!r} has no MEG channel")
        for split, rows in (("train", train), ("test", test)):
            target = folder / f"{split}.npy"
            with atomic_path(target) as temporary:
                _copy_rows(path, epochs, rows, picks, temporary)
                append_checksum(temporary, of_folder(target))
        facts: dict[str, Any] = {
            MADE_FOR: folder.name,
            "ch_names": [epochs.ch_names[i] for i in picks],
            "times": [float(t) for t in epochs.times],
            "train": events[train].tolist(),
            "test": events[test].tolist(),
            "log": log,
            "source": used.source,
            "pictures": {
                str(event): [used.paths[event], used.numbers[event]]
                for event in np.unique(events[np.concatenate([train, test])]).tolist()
            },
        }
    finally:
        for part in getattr(epochs, "_raw", None) or ():  # MNE leaves the files open as long as the object lives
            part.fid.close()
    write_sealed(folder / "facts.json", facts)


def _stored(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Signals by split and the facts of a copy; raises `Damaged` for those of another folder, too."""
    facts = read_json(folder / "facts.json")
    require_made_for(folder / "facts.json", facts, folder.name)
    paths = {split: folder / f"{split}.npy" for split in ("train", "test")}
    return {split: map_npy(path, of_folder(path)) for split, path in paths.items()}, facts


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
        with warnings.catch_warnings():  # of MNE about the way it makes its table of trials
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            return mne.read_epochs(path, preload=False, verbose="error")
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    text = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{str(path)!r} is truncated or no epochs file ({text}); fetch it again")


def _key(path: Path, table: Table | None) -> str:
    """Changes with the files and with the list."""
    stats = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(path.parent.glob(f"{path.stem}*.fif"))]
    text = json.dumps([stats, None if table is None else [table.source, table.paths, table.numbers]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{str(path)!r} is no text") from error
    return [line.strip().strip('"').replace("\\", "/") for line in lines if line.strip()]


def _numbers(path: Path) -> list[int]:
    try:
        return [int(line) for line in _lines(path)]
    except ValueError as error:
        raise UserError(f"{str(path)!r} should hold one whole number per line ({error})") from error


def _in_concept_folder(path: str) -> str:
    """images_test_meg/tuxedo_16s.jpg as images_test_meg/tuxedo/tuxedo_16s.jpg, in the folder of its concept."""
    folder, _, file = path.rpartition("/")
    if folder.rpartition("/")[2].startswith("images"):
        folder = f"{folder}/{file.rpartition('_')[0]}"
    return f"{folder}/{file}"


def _require_one_name_per_number(listed: str, paths: list[str], numbers: list[int]) -> None:
    """The two tables are of one order: pictures of one folder have one concept number, and the reverse."""
    name_of: dict[int, str] = {}
    number_of: dict[str, int] = {}
    for line, (path, number) in enumerate(zip(paths, numbers, strict=True), 1):
        name = path.rpartition("/")[0]
        if not name:
            raise UserError(f"{listed} line {line}: {path!r} is no folder/file")
        if name_of.setdefault(number, name) != name or number_of.setdefault(name, number) != number:
            raise UserError(f"{listed} line {line} is {path!r}, {NUMBERS} says concept {number}: they do not fit")


def _at_depths(root: Path, pattern: str) -> Iterator[Path]:
    for folder in ("", "*/", "*/*/", "*/*/*/"):
        yield from root.glob(folder + pattern)
