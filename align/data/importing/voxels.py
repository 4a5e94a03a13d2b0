"""Which voxels the columns of a folder are: ``voxels`` of info.json, so that later files can be compared with it.

A list with an entry for each set of voxels: ``subjects`` (labels), ``grid`` (X, Y, Z), ``affine`` (4 x 4, mm), ``kept``
and ``empty`` (what ``--drop-empty`` left out), both as pairs of first voxel and number of voxels. Voxels are counted
from 0 in numpy's order of the grid, x slowest. Folders of older imports lack it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from align.data.importing.nifti import AFFINE_TOLERANCE
from align.errors import UserError
from align.files.json_text import reading, require

logger = logging.getLogger(__name__)
Entry = Mapping[str, Any]
_ENTRY = {"subjects": [str], "grid": [int], "affine": [[float]], "kept": [[int]], "empty": [[int]]}
_SHAPE = {"voxels?": [_ENTRY], "notes?": [str], "roi?": {str: [(int, str)]}}


def entry_of(subjects: Iterable[str], kept: np.ndarray, empty: np.ndarray, affine: np.ndarray) -> dict[str, Any]:
    """The entry of one file; ``kept`` and ``empty``: bool (X, Y, Z)."""
    return {
        "subjects": list(dict.fromkeys(subjects)),
        "grid": list(kept.shape),
        "affine": np.asarray(affine, dtype=np.float64).tolist(),
        "kept": _pairs(kept),
        "empty": _pairs(empty),
    }


def _pairs(chosen: np.ndarray) -> list[list[int]]:
    edges = np.diff(np.concatenate([[0], chosen.ravel().astype(np.int8), [0]]))
    first, end = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return np.stack([first, end - first], axis=1).tolist()


def checked_info(source: str, info: Any, people: Collection[str]) -> dict[str, Any]:
    """``info`` of a folder that holds trials of ``people``; others, of whom an append was killed, lose their entry.

    Raises `UserError` for entries that no import writes.
    """
    require(info, _SHAPE, source)
    if "voxels" not in info:
        return dict(info)
    with reading(source):
        for entry in info["voxels"]:
            _voxels(entry["kept"])
            np.reshape(entry["affine"], (4, 4))
    there = [[one for one in entry["subjects"] if one in people] for entry in info["voxels"]]
    entries = [{**entry, "subjects": left} for entry, left in zip(info["voxels"], there, strict=True)]
    return {**info, "voxels": entries}


def require_same(source: str, old: Sequence[Entry], other: str, new: Sequence[Entry]) -> None:
    """Raise `UserError` where ``other`` has other voxels of a person than ``source``."""
    known = _by_subject(old)
    for subject, entry in _by_subject(new).items():
        if subject in known and (said := _difference(known[subject], entry)):
            raise UserError(
                f"subject {subject}: {other} keeps other voxels than {source} ({said}), and a column must be one voxel "
                "in all trials of a person; import all sessions of this person at once, with one --mask, into a new "
                "folder"
            )


def merged(
    source: str, old: Sequence[Entry], people: Collection[str], other: str, new: Sequence[Entry]
) -> list[dict[str, Any]]:
    """The entries of both; ``people``: those of whom ``source`` holds trials. The log says what is not the same.

    A person of an older import, whose voxels are not known, stays without an entry.
    """
    known = _by_subject(old)
    for subject, entry in _by_subject(new).items():
        if subject in people and subject not in known:
            text = "subject %s: %s does not say which voxels it holds; make sure that %s was cut with the same mask"
            logger.warning(text, subject, source, other)
            continue
        first = next(iter(known), subject)
        if subject not in known and (said := _difference(known.get(first, entry), entry)):
            text = "subjects %s and %s have other voxels (%s): a column is not one place in both; train them one by one"
            logger.warning(text, first, subject, said)
        known.setdefault(subject, entry)
    found: list[dict[str, Any]] = []
    for subject, entry in known.items():
        same = next((one for one in found if not _difference(one, entry) and one["empty"] == entry["empty"]), None)
        if same is None:
            found.append({**entry, "subjects": [subject]})
        else:
            same["subjects"].append(subject)
    return found


def _by_subject(entries: Iterable[Entry]) -> dict[str, Entry]:
    return {subject: entry for entry in entries for subject in entry["subjects"]}


def _voxels(pairs: Sequence[Sequence[int]]) -> np.ndarray:
    """Numbers of the voxels, rising."""
    return np.concatenate([np.arange(0), *(np.arange(first, first + n) for first, n in pairs)])


def _difference(one: Entry, two: Entry) -> str:
    """In words; "" where the voxels are the same."""
    if list(one["grid"]) != list(two["grid"]):
        return f"grids {' x '.join(map(str, one['grid']))} and {' x '.join(map(str, two['grid']))}"
    if not np.allclose(one["affine"], two["affine"], atol=AFFINE_TOLERANCE):
        return "the affines differ"
    first, second = _voxels(one["kept"]), _voxels(two["kept"])
    lost, added = len(np.setdiff1d(first, second)), len(np.setdiff1d(second, first))
    return f"{lost} of {len(first)} are missing, {added} are new" if lost or added else ""
