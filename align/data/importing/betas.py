"""Single-trial betas in NIfTI (as GLMsingle users export them) and a mask, to the `folder` layout.

``betas`` (X, Y, Z, n): volume i belongs to line i of the events. ``mask`` (X, Y, Z) on the same grid. Voxels come in
the order of ``betas[mask == 1]`` in numpy (x slowest). Masks such as NSD's nsdgeneral are coded -1, 0, 1 (-1 = outside
the field of view): there "not -1" and "1" differ by a factor of six, so the value has to be said.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.data.importing.events import doubts, shared_session
from align.data.importing.layout import PIECE, Pieces, Shown
from align.data.importing.nifti import AFFINE_TOLERANCE, open_image, unreadable
from align.data.importing.parts import Part
from align.data.importing.people import few
from align.data.importing.regions import lost_regions, read_regions
from align.data.importing.trials import Table, TrialChoice, choose, person_of, read_table
from align.data.importing.voxels import entry_of
from align.errors import UserError

logger = logging.getLogger(__name__)
_NEARLY_ALL = 0.95  # of the voxels of a mask: from here on betas and mask do not belong together
_LARGE = 0.2  # of them: from here on that is to be feared


@dataclass(frozen=True)
class Betas:
    """One file (X, Y, Z, n) with the table that has a line per volume, and what is taken of it."""

    path: Path
    events: Path
    choice: TrialChoice


@dataclass(frozen=True)
class _Opened:
    """A file that is open, with its table; ``inside``: bool (X, Y, Z), voxels of the mask."""

    file: Betas
    volumes: Any
    inside: np.ndarray
    table: Table
    rows: list[int]
    trials: list[Shown]
    pictures: dict[str, Path]

    @property
    def people(self) -> set[str]:
        return {trial.subject for trial in self.trials}


def read_betas(
    files: Sequence[Betas],
    mask: str | Path,
    images: str | Path,
    mask_value: float | None = None,
    regions: Sequence[str] = (),
    region_names: Sequence[str] = (),
    drop_empty: bool = False,
) -> list[Part]:
    """The trials of each file: x (n, V) in the units of the betas, volumes without picture left out.

    Raises `UserError` as `choose` does, for shapes or affines that differ, another number of events
    than volumes, and a mask of other values than 0 and 1 when ``mask_value`` is not given. ``regions``: see
    `align.data.importing.regions.read_regions`; they become ``roi`` of info.json. ``drop_empty``: leave out voxels that
    are NaN, or 0, in every trial of a file, from all files of the same person; otherwise those of NaN are refused.
    """
    opened = [_open(file, Path(mask), Path(images), mask_value) for file in files]
    empty, strange = [np.zeros_like(one.inside) for one in opened], [list[str]() for _ in opened]
    if drop_empty:
        empty, strange = _empty_of_people(opened, Path(mask))
    parts, told, blank = [], set[str](), _Blank(len(opened))
    for i, (one, lost) in enumerate(zip(opened, empty, strict=True)):
        notes = _doubts(one, [other for other in opened[:i] if other.people & one.people])
        outside = list(lost_regions(regions, region_names, one.inside, one.volumes.affine))
        for text in outside:
            if text not in told:
                logger.warning("%s", text)
        told |= set(outside)
        parts.append(_part(one, lost, [*notes, *strange[i], *outside], regions, region_names, blank))
    return parts


class _Blank:
    """Voxels that are 0 in every trial of a file, of ``n`` files: told when the last one is read."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.found: list[tuple[Path, int, int]] = []  # file, voxels that are 0, all voxels

    def add(self, path: Path, blank: int, voxels: int) -> None:
        """Raises `UserError` where next to nothing is left."""
        _require_left(path, blank, voxels)
        self.found.append((path, blank, voxels))
        if len(self.found) == self.n:
            whole = [(path, zeros, voxels) for path, zeros, voxels in self.found if zeros]
            for path, zeros, voxels in whole:
                told, way = "%s: %d of %d voxels of the mask are 0 in every trial%s", "leave them out with --drop-empty"
                strange = _strange(zeros, voxels, len(whole), self.n)
                way = f"{strange}; if it is right, {way}" if strange else f"; {way}"
                logger.warning(told, path, zeros, voxels, way)


def _require_left(path: Path, blank: int, voxels: int) -> None:
    if blank >= _NEARLY_ALL * voxels:
        raise UserError(
            f"{str(path)!r}: {blank} of {voxels} voxels of the mask are empty in every trial: betas and mask do not "
            "belong together; give the mask of this person, on the grid and in the orientation of the betas"
        )


def _strange(blank: int, voxels: int, files: int, of: int) -> str:
    """Why a file with ``blank`` such voxels may be a wrong one, where ``files`` of ``of`` files have some; else ""."""
    if blank <= _LARGE * voxels and not files == 1 < of:
        return ""
    others = "the other file" if of == 2 else f"any of the {of - 1} other files"
    alone = f" (not in {others})" if files == 1 < of else ""
    return f"{alone}: this file may be of another person, mask or orientation"


def _doubts(one: _Opened, before: Sequence[_Opened]) -> list[str]:
    """Sentences about the events, also in the log; ``before``: earlier files of the same people."""
    file, session = one.file, one.file.choice.session
    found = list(doubts(file.path, file.events, one.table, session))
    for other in before:
        found += shared_session((other.file.path, other.table), (file.path, one.table), session)
    for text in found:
        logger.warning("%s", text)
    return found


def _open(file: Betas, mask: Path, images: Path, mask_value: float | None) -> _Opened:
    volumes, region = (open_image(path) for path in (file.path, mask))
    if len(volumes.shape) != 4 or 0 in volumes.shape:
        raise UserError(f"{str(file.path)!r} has shape {volumes.shape}; expected (X, Y, Z, trials)")
    if not np.allclose(volumes.affine, region.affine, atol=AFFINE_TOLERANCE):
        raise UserError(
            f"{str(file.path)!r} and {str(mask)!r} have different affines; resample the mask onto the betas, or import "
            "a person on another grid with an own mask into a folder of its own"
        )
    inside = _inside(region, mask, volumes.shape[:3], mask_value)
    table = read_table(file.events)
    if len(table) != volumes.shape[3]:
        raise UserError(f"{str(file.path)!r} holds {volumes.shape[3]} volumes, {table.source} {len(table)} trials")
    return _Opened(file, volumes, inside, table, *choose(table, file.choice, images))


def _part(
    one: _Opened,
    empty: np.ndarray,
    notes: list[str],
    regions: Sequence[str],
    region_names: Sequence[str],
    blank: _Blank,
) -> Part:
    """``empty``: bool (X, Y, Z), voxels of the mask that are left out."""
    file, kept = one.file, one.inside & ~empty
    info: dict[str, Any] = dict(read_regions(regions, region_names, kept, one.volumes.affine)) if regions else {}
    info["voxels"] = [entry_of((trial.subject for trial in one.trials), kept, empty, one.volumes.affine)]
    if notes:
        info["notes"] = notes
    pieces = Pieces((len(one.rows), int(kept.sum())), _read(file.path, one.volumes, kept, one.rows, blank))
    person = person_of(one.table, file.choice, one.rows)
    return Part(repr(str(file.path)), pieces, one.trials, one.pictures, info, person=person, file=file.path)


def _empty_of_people(opened: Sequence[_Opened], mask: Path) -> tuple[list[np.ndarray], list[list[str]]]:
    """Bool (X, Y, Z) for each file: voxels that are empty in it or in another file of the same people; and sentences on
    files that have strangely many, also in the log."""
    own = []
    for one in opened:
        lost = np.zeros_like(one.inside)
        lost[one.inside] = _empty(one.file.path, one.volumes, one.inside, one.rows, zeros=True)
        _require_left(one.file.path, int(lost.sum()), int(one.inside.sum()))
        own.append(lost)
    told = _strangely_empty(opened, own)
    groups = _of_one_person(opened)
    whole = {group: np.logical_or.reduce([own[i] for i in group]) for group in dict.fromkeys(groups)}
    for group, lost in whole.items():
        first = opened[group[0]]
        who = ", ".join(sorted(set().union(*(opened[i].people for i in group))))
        each = f" of one of {len(group)} files ({few([str(own[i].sum()) for i in group])})" if len(group) > 1 else ""
        text = "subject %s: left out %d of %d voxels that are empty in every trial%s"
        if lost.any():
            logger.info(text, who, lost.sum(), first.inside.sum(), each)
        if lost.sum() == first.inside.sum():
            raise UserError(
                f"{str(first.file.path)!r}{' and the other files' if len(group) > 1 else ''} of subject {who} have no "
                f"voxel with values inside {str(mask)!r}; check the mask"
            )
    return [whole[group] for group in groups], told


def _strangely_empty(opened: Sequence[_Opened], own: Sequence[np.ndarray]) -> list[list[str]]:
    """For each file a sentence, also in the log, where its empty voxels ``own`` (X, Y, Z) are strangely many."""
    told, some = [list[str]() for _ in opened], sum(bool(lost.any()) for lost in own)
    for one, lost, mine in zip(opened, own, told, strict=True):
        count, voxels = int(lost.sum()), int(one.inside.sum())
        strange = _strange(count, voxels, some, len(opened)) if count else ""
        if strange:
            mine.append(f"{one.file.path}: {count} of {voxels} voxels of the mask are empty in every trial{strange}")
            logger.warning("%s", mine[-1])
    return told


def _of_one_person(opened: Sequence[_Opened]) -> list[tuple[int, ...]]:
    """For each file the files, by number, that share a person with it, also by way of others."""
    groups = [{i} for i in range(len(opened))]
    for i, one in enumerate(opened):
        for j in range(i):
            if one.people & opened[j].people:
                both = groups[i] | groups[j]
                for k in both:
                    groups[k] = both
    return [tuple(sorted(group)) for group in groups]


def _inside(region: Any, path: Path, shape: tuple[int, ...], value: float | None) -> np.ndarray:
    """Bool (X, Y, Z) of the voxels that are kept."""
    found = tuple(region.shape[:3]) if region.shape[3:] == (1,) else tuple(region.shape)
    if found != tuple(shape):
        raise UserError(
            f"{str(path)!r} has shape {found}, the betas {tuple(shape)}; they must lie on one grid: import "
            "a person on another one with an own mask into a folder of its own"
        )
    try:
        values = np.asarray(region.dataobj).reshape(shape)
    except Exception as error:
        raise unreadable(path, error) from error
    codes = np.unique(values)
    if value is None and not np.isin(codes, (0, 1)).all():
        some = ", ".join(f"{code:g}" for code in codes[:5].tolist()) + (", ..." if len(codes) > 5 else "")
        raise UserError(f"{str(path)!r} is coded {some}, not 0 and 1; say which with --mask-value")
    inside: np.ndarray = values == (1 if value is None else value)
    if not inside.any():
        raise UserError(f"{str(path)!r} has no voxel of value {1 if value is None else value:g}")
    return inside


def _read(path: Path, volumes: Any, inside: np.ndarray, rows: list[int], known: _Blank) -> Iterator[np.ndarray]:
    """The voxels of the wanted volumes, some volumes at a time, each part of the file once and in order."""
    step, blank = max(1, PIECE // (8 * inside.size)), np.ones(int(inside.sum()), dtype=bool)
    for start in range(0, volumes.shape[3], step):
        wanted = [row - start for row in rows if start <= row < start + step]
        try:
            block = np.asarray(volumes.dataobj[..., start : start + step])
        except Exception as error:
            raise unreadable(path, error) from error
        x = block[inside].T[wanted]
        if np.isnan(x).any():
            _refuse_empty(path, volumes, inside, rows)
        blank &= (x == 0).all(axis=0)
        yield x
    known.add(path, int(blank.sum()), len(blank))


def _refuse_empty(path: Path, volumes: Any, inside: np.ndarray, rows: list[int]) -> None:
    """Name the voxels that are NaN in every trial; NaN in some trials is named where it is written."""
    empty = _empty(path, volumes, inside, rows, zeros=False)
    if empty.any():
        first = tuple(int(i) for i in np.argwhere(inside)[int(empty.argmax())])
        raise UserError(
            f"{str(path)!r}: {int(empty.sum())} of {int(inside.sum())} voxels of the mask are NaN in every trial, "
            f"first voxel {first}; leave them out with --drop-empty, or give a mask without them"
        )


def _empty(path: Path, volumes: Any, inside: np.ndarray, rows: list[int], zeros: bool) -> np.ndarray:
    """Bool (V,): voxels that are NaN in every wanted volume, with ``zeros`` also those that are 0 in every one."""
    step, empty = max(1, PIECE // (8 * inside.size)), np.ones(int(inside.sum()), dtype=bool)
    blank = empty.copy()
    for start in range(0, volumes.shape[3], step):
        wanted = [row - start for row in rows if start <= row < start + step]
        try:
            x = np.asarray(volumes.dataobj[..., start : start + step])[inside][:, wanted]
        except Exception as error:
            raise unreadable(path, error) from error
        empty &= np.isnan(x).all(axis=1)
        blank &= (x == 0).all(axis=1)
    return empty | blank if zeros else empty
