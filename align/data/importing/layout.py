"""The layout of the `folder` study, written: signals.npy, stimuli.csv, images/ and info.json, all or nothing."""

from __future__ import annotations

import csv
import io
import logging
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from align.data.download.part import human
from align.data.reading.safe_load import decode_image
from align.data.signals import pixel_hash
from align.data.windows import equal_rows, flat_rows, repeated
from align.errors import UserError
from align.files import atomic_folder, beside, locked, write_atomic, write_json
from align.files.labels import refuse_alike

logger = logging.getLogger(__name__)
PIECE = 32 << 20  # bytes of signals held at once


@dataclass(frozen=True)
class Shown:
    """One trial of the table: picture file, split (train, test or unused) and what is known of it."""

    image: str
    split: str
    subject: str
    concept: str = ""
    caption: str = ""
    session: str = ""
    repetition: str = ""


@dataclass(frozen=True)
class Pieces:
    """Signals that are read while they are written: ``shape`` (n, ...) in all, blocks of rows in order."""

    shape: tuple[int, ...]
    blocks: Iterable[np.ndarray]


def rows_at_once(shape: Sequence[int], itemsize: int = 8) -> int:
    """How many rows (n, ...) of ``shape`` make a piece; at least one."""
    return max(1, PIECE // max(1, itemsize * math.prod(shape[1:])))


def write_layout(
    out: Path,
    signals: np.ndarray | Pieces,
    trials: Sequence[Shown],
    images: Mapping[str, np.ndarray | Path],
    info: Mapping[str, Any] | None = None,
    link: bool = False,
) -> Path:
    """Write a folder that the `folder` study reads; it appears only when it is complete.

    ``signals`` (n, ...): row i belongs to ``trials[i]``; stored as float32. ``images``: uint8 (H, W, 3) or a file, by
    name (folders allowed). Files are copied, or with ``link`` left where they are: stimuli.csv then says how to get
    there from ``out``. ``info``: what goes into info.json.

    Raises
    ------
    UserError
        ``out`` exists, rows are missing, a split is empty, training and test share a picture, a picture cannot be read
        or has two names, one recording stands there as several repetitions, a value of a trial that is used is not
        finite, the disk is too full, another process is importing there.
    """
    with locked(beside(out, "lock"), f"importing into {str(out)!r}", keep=False):
        return _write_layout(out, signals, trials, images, info, link)


def _write_layout(
    out: Path,
    signals: np.ndarray | Pieces,
    trials: Sequence[Shown],
    images: Mapping[str, np.ndarray | Path],
    info: Mapping[str, Any] | None,
    link: bool,
) -> Path:
    if out.exists():
        raise UserError(f"{str(out)!r} exists already; give another folder or remove it")
    require_trials(signals.shape, trials)
    used = {trial.image for trial in trials if trial.split != "unused"}
    _require_one_name({name: image for name, image in images.items() if name in used})
    with atomic_folder(out) as temporary:
        (temporary / "images").mkdir()
        names = place_images(temporary, out, images, link)
        write_signals(temporary / "signals.npy", signals, trials)
        refuse_repeats(temporary / "signals.npy", trials)
        tell_flat(temporary / "signals.npy", trials)
        write_atomic(
            temporary / "stimuli.csv", table_text([replace(trial, image=names[trial.image]) for trial in trials])
        )
        if info:
            write_json(temporary / "info.json", info)
    return out


def require_trials(shape: Sequence[int], trials: Sequence[Shown]) -> None:
    """Raise `UserError` for another number of rows, an empty split, a picture in both splits."""
    if shape[0] != len(trials):
        raise UserError(f"{shape[0]} rows of signals but {len(trials)} trials; there must be one trial per row")
    if len(shape) not in (2, 3) or 0 in shape:
        raise UserError(f"signals have shape {tuple(shape)}; expected (n, channels, samples) or (n, voxels)")
    refuse_alike((trial.subject for trial in trials), "subjects", "the trials")
    refuse_alike((f"{trial.subject} {trial.session}" for trial in trials), "subject and session", "the trials")
    shown = {split: {trial.image for trial in trials if trial.split == split} for split in ("train", "test")}
    for split, images in shown.items():
        if not images:
            raise UserError(f"no trial belongs to the {split} split; mark some as {split}")
    shared = sorted(shown["train"] & shown["test"])
    if shared:
        raise UserError(f"training and test share {len(shared)} pictures, first {shared[0]!r}; mend the split")


def _require_one_name(images: Mapping[str, np.ndarray | Path]) -> None:
    """Every picture can be read, and no two are the same."""
    names: dict[str, str] = {}
    for name, image in images.items():
        first = names.setdefault(pixel_hash(decode_image(image) if isinstance(image, Path) else image), name)
        if first != name:
            raise UserError(f"pictures {first!r} and {name!r} are the same pixel by pixel; give them one name")


def place_images(folder: Path, out: Path, images: Mapping[str, np.ndarray | Path], link: bool) -> dict[str, str]:
    """Copy or save the pictures into ``folder``; what stimuli.csv calls each of them."""
    home = out.parent.resolve() / out.name
    names = {}
    for name, image in images.items():
        names[name] = name
        target = folder / "images" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(image, Path):
            Image.fromarray(image).save(target)
        elif link:
            try:
                names[name] = Path(os.path.relpath(image.resolve(), home)).as_posix()
            except ValueError as error:  # two drives of Windows
                raise UserError(f"no way leads from {str(out)!r} to {str(image)!r}: leave --link away") from error
        else:
            shutil.copyfile(image, target)
    return names


def write_signals(path: Path, signals: np.ndarray | Pieces, trials: Sequence[Shown]) -> None:
    """Write an .npy of float32, a block at a time; raises `UserError` as `write_layout` does."""
    needed, free = 4 * math.prod(signals.shape), shutil.disk_usage(path.parent).free
    if needed > free:
        raise UserError(
            f"the signals need {human(needed)}, and the disk of {str(path.parent.parent)!r} has {human(free)} left; "
            "make room or give another --out"
        )
    done, used = 0, np.array([trial.split != "unused" for trial in trials])
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": tuple(signals.shape)}
        np.lib.format.write_array_header_2_0(file, header)
        for block in signals.blocks if isinstance(signals, Pieces) else _blocks(signals):
            with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite and is named
                x = np.ascontiguousarray(block, dtype="<f4")
            if x.shape[1:] != tuple(signals.shape[1:]):
                raise UserError(f"trial {done} has shape {x.shape[1:]}, expected {tuple(signals.shape[1:])}")
            bad = ~np.isfinite(x).all(axis=tuple(range(1, x.ndim))) & used[done : done + len(x)]
            if bad.any():
                row = done + int(bad.argmax())
                where = f"row {row} of the signals (picture {trials[row].image!r})"
                raise UserError(f"{where} holds NaN or infinite values; mend or remove that trial")
            file.write(x.data)
            done += len(x)
    if done != signals.shape[0]:
        raise UserError(f"{done} rows of signals were found, {signals.shape[0]} announced; the file is damaged")


def refuse_repeats(path: Path, trials: Sequence[Shown]) -> None:
    """Raise `UserError` where one recording stands there as several repetitions of a picture, or as two people's."""
    used = np.array([row for row, trial in enumerate(trials) if trial.split != "unused"])
    x = np.load(path, mmap_mode="r")
    x = x if len(used) == len(trials) else x[used]
    people = np.array([trials[row].subject for row in used])
    _refuse_one_as_two(x, people)
    for subject in dict.fromkeys(people):
        rows = np.array([i for i, row in enumerate(used) if trials[row].subject == subject])
        part = x if len(rows) == len(x) else x[rows]
        found = repeated(part, [trials[used[i]].image for i in rows])
        if found:
            pairs = found.pairs
            first = trials[used[rows[pairs[0][0]]]].image
            raise UserError(f"subject {subject}: {found.said} (the first shows {first!r})")
        if found.strangers:
            text = "subject %s: %d trials hold the very numbers of a trial of another picture"
            logger.warning(text, subject, len(found.strangers))


def tell_flat(path: Path, trials: Sequence[Shown]) -> None:
    """A line in the log where trials that are used hold one value throughout, as empty volumes do."""
    x = np.load(path, mmap_mode="r")
    found = []
    for start in range(0, len(x), rows_at_once(x.shape)):
        rows = flat_rows(np.asarray(x[start : start + rows_at_once(x.shape)])) + start
        found += [int(row) for row in rows if trials[row].split != "unused"]
    if found:
        text = "%d of %d trials hold one value throughout, as empty volumes do (first: row %d of the signals)"
        logger.warning(text, len(found), len(x), found[0])


def _refuse_one_as_two(x: np.ndarray, people: np.ndarray) -> None:
    """Raise `UserError` where all trials of a person are those of others; some of them are told in the log."""
    if len(set(people)) < 2:
        return
    shared = equal_rows(x, people)[1]
    for subject in dict.fromkeys(people[row] for row, _ in shared):
        firsts = [people[first] for row, first in shared if people[row] == subject]
        told = f"{len(firsts)} trials hold the very numbers of trials of subject {firsts[0]}"
        if len(firsts) == int((people == subject).sum()):
            raise UserError(
                f"subject {subject}: all {told}: one recording is imported as that of two people; give each file the "
                "label of its own subject"
            )
        logger.warning("subject %s: %s", subject, told)


def _blocks(signals: np.ndarray) -> Iterator[np.ndarray]:
    step = rows_at_once(signals.shape)
    return (signals[start : start + step] for start in range(0, len(signals), step))


def table_text(trials: Sequence[Shown]) -> str:
    """The lines of stimuli.csv; columns that are empty throughout are left out."""
    used = [item.name for item in fields(Shown) if any(getattr(trial, item.name) for trial in trials)]
    text = io.StringIO()
    writer = csv.DictWriter(text, ["row", *used], lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({"row": row, **asdict(trial)} for row, trial in enumerate(trials))
    return text.getvalue()
