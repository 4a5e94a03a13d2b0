"""Single-trial betas in NIfTI (as GLMsingle users export them) and a mask, to the `folder` layout.

``betas`` (X, Y, Z, n): volume i belongs to line i of the events. ``mask`` (X, Y, Z) on the same grid. Voxels come in
the order of ``betas[mask == 1]`` in numpy (x slowest). Masks such as NSD's nsdgeneral are coded -1, 0, 1 (-1 = outside
the field of view): there "not -1" and "1" differ by a factor of six, so the value has to be said.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from align.data.importing.layout import PIECE, Pieces
from align.data.importing.nifti import AFFINE_TOLERANCE, open_image, unreadable
from align.data.importing.parts import Part
from align.data.importing.regions import read_regions
from align.data.importing.trials import TrialChoice, choose, person_of, read_table
from align.errors import UserError

logger = logging.getLogger(__name__)


def read_betas(
    betas: str | Path,
    mask: str | Path,
    events: str | Path,
    images: str | Path,
    choice: TrialChoice,
    mask_value: float | None = None,
    regions: Sequence[str] = (),
    region_names: Sequence[str] = (),
    drop_empty: bool = False,
) -> Part:
    """The trials of one file: x (n, V) in the units of the betas, volumes without picture left out.

    Raises `UserError` as `choose` does, for shapes or affines that differ, another number of events
    than volumes, and a mask of other values than 0 and 1 when ``mask_value`` is not given. ``regions``: see
    `align.data.importing.regions.read_regions`; they become ``roi`` of info.json. ``drop_empty``: leave out voxels that
    are NaN, or 0, in every trial; otherwise those of NaN are refused.
    """
    paths = Path(betas), Path(mask)
    volumes, region = (open_image(path) for path in paths)
    if len(volumes.shape) != 4 or 0 in volumes.shape:
        raise UserError(f"{str(betas)!r} has shape {volumes.shape}; expected (X, Y, Z, trials)")
    if not np.allclose(volumes.affine, region.affine, atol=AFFINE_TOLERANCE):
        raise UserError(
            f"{str(betas)!r} and {str(mask)!r} have different affines; resample the mask onto the betas, or import a "
            "person on another grid with an own mask into a folder of its own"
        )
    inside = _inside(region, paths[1], volumes.shape[:3], mask_value)
    table = read_table(Path(events))
    if len(table) != volumes.shape[3]:
        raise UserError(f"{str(betas)!r} holds {volumes.shape[3]} volumes, {table.source} {len(table)} trials")
    rows, trials, files = choose(table, choice, Path(images))
    if drop_empty:
        empty = _empty(paths[0], volumes, inside, rows, zeros=True)
        logger.info("left out %d of %d voxels that are empty in every trial", empty.sum(), inside.sum())
        inside[inside] = ~empty
        if not inside.any():
            raise UserError(f"{str(betas)!r} has no voxel with values inside {str(mask)!r}; check the mask")
    info = read_regions(regions, region_names, inside, volumes.affine) if regions else {}
    shape = (len(rows), int(inside.sum()))
    pieces = Pieces(shape, _read(paths[0], volumes, inside, rows))
    return Part(repr(str(betas)), pieces, trials, files, info, person=person_of(table, choice, rows))


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


def _read(path: Path, volumes: Any, inside: np.ndarray, rows: list[int]) -> Iterator[np.ndarray]:
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
    if blank.any():
        told = "%s: %d of %d voxels of the mask are 0 in every trial; leave them out with --drop-empty"
        logger.warning(told, path, blank.sum(), len(blank))


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
