"""Regions of interest out of label images, as lists of voxels: ``roi`` of info.json, which ``study.roi`` names.

Voxels are counted from 0 in the order of the stored signals: those of the mask in numpy's order, x slowest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from align.data.importing.nifti import AFFINE_TOLERANCE, open_image
from align.data.importing.people import few
from align.errors import UserError

_NAMED = re.compile(r"([^=/\\]+)=(.+)")
_LOST = 0.05  # of the voxels of a region outside the mask, from which that is said
_MOST = 400  # codes of one label image; an atlas of the cortex has 180 in a hemisphere


def read_regions(
    sources: Sequence[str], names: Sequence[str], inside: np.ndarray, affine: np.ndarray
) -> dict[str, dict[str, list[int]]]:
    """``{"roi": {name: [voxel, ...]}}`` of images on the grid of ``inside`` (X, Y, Z), bool.

    ``sources``: "V1=mask.nii.gz" (what is not 0; one code), or a label image, whose codes are regions: "label-3", or
    as ``names`` calls them ("3=V3"). Raises `UserError` for another grid, codes that are no whole numbers, several
    codes in a named mask, a name that stands twice, an unknown code in ``names``, a region without a voxel inside.
    """
    called = _called(names)
    found: dict[str, list[int]] = {}
    for name, values, _ in _all_of(sources, inside, affine, called):
        if name in found:
            raise UserError(f"--roi: the region {name!r} stands twice; give another name")
        found[name] = np.flatnonzero(values).tolist()
        if not found[name]:
            raise UserError(f"--roi: region {name!r} has no voxel inside the mask; leave it out")
    if called:
        raise UserError(f"--roi-names: no label image has the code {next(iter(called))}; leave it out")
    return {"roi": found}


def lost_regions(sources: Sequence[str], names: Sequence[str], inside: np.ndarray, affine: np.ndarray) -> Iterator[str]:
    """A sentence on regions of `read_regions` more than a small part of which lies outside ``inside``, with counts."""
    counts = [(name, n, int(values.sum())) for name, values, n in _all_of(sources, inside, affine, _called(names))]
    lost = [f"{kept} of {n} voxels of {name}" for name, n, kept in counts if kept < (1 - _LOST) * n]
    if lost:
        yield (f"--roi: only {few(lost)} lie inside the mask: are images and mask of one person and orientation?")


def _all_of(
    sources: Sequence[str], inside: np.ndarray, affine: np.ndarray, called: dict[int, str]
) -> Iterator[tuple[str, np.ndarray, int]]:
    """Name, bool (V,) of the voxels inside, and how many voxels the image names everywhere, of each region."""
    for source in sources:
        named = None if Path(source).is_file() else _NAMED.fullmatch(source)
        path = Path(named[2] if named else source)
        values, everywhere = _values(path, inside, affine)
        if named:
            _require_mask(named[1], path, np.unique(everywhere))
            yield named[1], values != 0, int((everywhere != 0).sum())
            continue
        codes = [int(code) for code in np.unique(values) if code > 0]
        if len(codes) > _MOST:
            raise UserError(
                f"--roi: {str(path)!r} has {len(codes)} codes and is no label image (at most {_MOST} codes); give one, "
                "or V1=FILE with a mask of 0 and 1"
            )
        for code in codes:
            yield called.pop(code, f"label-{code}"), values == code, int((everywhere == code).sum())


def _require_mask(name: str, path: Path, codes: np.ndarray) -> None:
    """Raise `UserError` for more than one code beside 0: all regions of a label image are no region."""
    codes = codes[codes != 0]
    if len(codes) > 1:
        some = few([f"{code:g}" for code in codes])
        raise UserError(
            f"--roi {name}={path}: a named mask is 0 and 1, and this file has the codes {some}; for a label image "
            f"give --roi {path} --roi-names {next((f'{code:g}' for code in codes if code > 0), '1')}={name} ..."
        )


def _values(path: Path, inside: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(V,): whole numbers of the voxels inside; (X, Y, Z): all values of the image."""
    image: Any = open_image(path)
    if tuple(image.shape[:3]) != inside.shape or image.shape[3:] not in ((), (1,)):
        raise UserError(f"--roi: {str(path)!r} has shape {tuple(image.shape)}, the betas {inside.shape}; resample it")
    if not np.allclose(image.affine, affine, atol=AFFINE_TOLERANCE):
        raise UserError(f"--roi: {str(path)!r} and the betas have different affines; resample it onto the betas")
    everywhere = np.nan_to_num(np.asarray(image.dataobj).reshape(inside.shape).astype(np.float64))
    values = everywhere[inside]
    if not (values == np.round(values)).all():
        raise UserError(f"--roi: {str(path)!r} holds fractions; a region is whole numbers (0 = outside)")
    return values, everywhere


def _called(names: Sequence[str]) -> dict[int, str]:
    found: dict[int, str] = {}
    for text in names:
        code, _, name = text.partition("=")
        if not code.isdecimal() or not name:
            raise UserError(f"--roi-names {text!r} is not CODE=NAME, such as 3=V3")
        found[int(code)] = name
    return found
