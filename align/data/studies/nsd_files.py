"""The files of NSD in MindEye2's layout: trial tables in tars, betas and pictures in HDF5, labels in ``.npy``.

Nothing here holds a whole file: betas are read by ranges of rows, pictures one at a time.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.data.reading.archives import Limits, members
from align.data.reading.convert import open_container
from align.data.reading.safe_load import inside_hdf5, require_finite
from align.data.reading.stored_array import StoredArray
from align.data.signals import save_rows
from align.errors import UserError
from align.files import no_file
from align.files.checksums import map_npy
from align.files.made_once import made_once

if TYPE_CHECKING:
    import h5py

COLUMNS = 17  # of behav.npy; -1 stands for NaN
PICTURE_SHAPE = (3, 224, 224)
IN_MEMORY = 512 << 20  # bytes of betas above which they are mapped from a copy in the cache
_PIECE = 32 << 20  # bytes of betas read at once
_GAP = 32  # rows: reading through a smaller hole is cheaper than another request
_LIMITS = Limits(member=1 << 20)  # a table of one trial has some hundred bytes
_PICTURE, _SUBJECT, _SESSION, _ROW, _SHARED = 0, 1, 2, 5, 16  # columns of behav.npy


@dataclass(frozen=True)
class Behaviour:
    """Trials of one or more tars, each (n,): COCO-73k index, row of the betas, recording session from 1, shared1000."""

    picture: np.ndarray
    row: np.ndarray
    session: np.ndarray
    shared: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def take(self, keep: np.ndarray) -> Behaviour:
        """The trials at the given places (or where a mask is true)."""
        return Behaviour(self.picture[keep], self.row[keep], self.session[keep], self.shared[keep])


def read_behaviour(paths: list[Path], subject: int) -> Behaviour:
    """The trials of the tars in rising order of their row in the betas.

    Members ``*.behav.npy`` are (n, 17) float64; rows of nothing but -1 are padding. Raises `UserError` for another
    shape, a trial without picture, session or row, one that appears twice, and a tar of another subject.
    """
    tables = [table for path in paths for table in _tables(path)]
    values = np.concatenate(tables) if tables else np.empty((0, COLUMNS))
    values = values[~(values == -1).all(axis=1)]
    where = str(paths[0].parent) if paths else "nowhere"
    if len(values) == 0:
        raise UserError(f"{where!r} holds no trials (members called *.behav.npy); fetch the tars again")
    needed = values[:, [_PICTURE, _SUBJECT, _SESSION, _ROW]]
    if not (needed == np.floor(needed)).all() or (needed < 0).any():
        raise UserError(f"{where!r}: a trial has no whole picture index, subject, session or row; fetch the tars again")
    other = values[:, _SUBJECT] != subject
    if other.any():
        found = int(values[other][0, _SUBJECT])
        raise UserError(f"{where!r} holds trials of subject {found:02d}, not {subject:02d}; the folders are mixed up")
    values = values[np.argsort(values[:, _ROW], kind="stable")]
    row = values[:, _ROW].astype(np.int64)
    twice = row[1:][row[1:] == row[:-1]]
    if len(twice):
        raise UserError(f"{where!r}: trial {twice[0]} stands there twice; fetch the tars again")
    index, session = (values[:, column].astype(np.int64) for column in (_PICTURE, _SESSION))
    return Behaviour(index, row, session, values[:, _SHARED] == 1)


def _tables(path: Path) -> Iterator[np.ndarray]:
    for name, data in members(path, _is_trial, _LIMITS):
        try:
            table = np.lib.format.read_array(io.BytesIO(data))
        except Exception as error:  # numpy's parser raises whatever it likes
            text = " ".join(str(error).split())
            raise UserError(f"{name!r} in {str(path)!r} is no plain .npy ({text}); fetch the tar again") from error
        if table.dtype.kind not in "iuf" or table.ndim < 1 or table.shape[-1] != COLUMNS:
            raise UserError(f"{name!r} in {str(path)!r} is {table.dtype} {table.shape}, expected (n, {COLUMNS})")
        yield table.reshape(-1, COLUMNS).astype(np.float64)


def _is_trial(name: str) -> bool:
    """sample000000000.behav.npy; past_behav.npy, future_behav.npy and olds_behav.npy tell of other trials."""
    return name.rpartition("/")[2].partition(".")[2] == "behav.npy"


@contextmanager
def open_dataset(path: Path, key: str) -> Iterator[h5py.Dataset]:
    """The dataset ``key`` of an HDF5 file; raises `UserError` as `open_hdf5` and `inside_hdf5` do."""
    with open_hdf5(path) as file:
        yield inside_hdf5(file, key)


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file; raises `UserError` where it is missing, truncated or foreign, also while it is read."""
    import h5py

    if not path.is_file():
        raise UserError(f"{str(path)!r} {no_file(path)}; fetch it, or point to the folder that holds it")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except UserError:
        raise
    except Exception as error:  # the library raises whatever it likes on broken bytes
        text = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{str(path)!r} is truncated or not HDF5 ({text}); fetch it again") from error


def betas_shape(path: Path) -> tuple[int, int]:
    """(trials, voxels) of a betas file; raises `UserError` when it holds anything but numbers of two axes."""
    with open_dataset(path, "betas") as betas:
        if betas.ndim != 2 or betas.dtype.kind != "f":
            raise UserError(f"{str(path)!r}: betas are {betas.dtype} {betas.shape}, expected floats (trials, voxels)")
        return int(betas.shape[0]), int(betas.shape[1])


def read_betas(path: Path, rows: np.ndarray, cache_dir: str | Path) -> np.ndarray:
    """The given rows, in the given order, float32 (n, voxels); only these rows are kept, `_PIECE` is read at once.

    Up to `IN_MEMORY` they are an array in memory; above (27,000 training trials of subject 01 are 1.7 GB) they are
    written once to ``cache_dir/nsd`` and mapped from there. The copy is named after the file (its place, size and time)
    and the rows. Raises `UserError` for values that are not finite.
    """
    rows = np.asarray(rows, dtype=np.int64)
    voxels = betas_shape(path)[1]
    if len(rows) * voxels * 4 <= IN_MEMORY:
        return _rows(path, rows, voxels)
    stat = path.stat()
    digest = hashlib.sha256(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode() + rows.tobytes())
    copy = Path(cache_dir) / "nsd" / f"{digest.hexdigest()}.npy"
    step = max(1, _PIECE // (4 * voxels))

    def make() -> None:
        save_rows(
            copy,
            (len(rows), voxels),
            (_rows(path, rows[start : start + step], voxels) for start in range(0, len(rows), step)),
        )

    return made_once(copy, lambda: map_npy(copy), make, f"the rows of {path.name} that are used")


def _rows(path: Path, rows: np.ndarray, voxels: int) -> np.ndarray:
    out = np.empty((len(rows), voxels), dtype=np.float32)
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    with open_dataset(path, "betas") as betas:
        most = max(1, _PIECE // (betas.shape[1] * betas.dtype.itemsize))
        for start, stop in _runs(ordered, most):
            block = betas[ordered[start] : ordered[stop - 1] + 1]
            with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite and is named below
                wanted = block[ordered[start:stop] - ordered[start]].astype(np.float32)
            require_finite(wanted, f"{str(path)!r}, rows from {ordered[start]}")
            out[order[start:stop]] = wanted
    return out


def _runs(ordered: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """Slices of rising row numbers, each over at most ``most`` rows of the file and with no hole above `_GAP`."""
    start = 0
    for i in range(1, len(ordered) + 1):
        if i == len(ordered) or ordered[i] - ordered[i - 1] > _GAP or ordered[i] - ordered[start] >= most:
            yield start, i
            start = i


@dataclass(frozen=True)
class NsdPictures:
    """``coco_images_224_float16.hdf5``: ``images`` (73000, 3, 224, 224) float16 in [0, 1].

    The file is opened for every picture (below a millisecond), so worker processes share no handle.
    """

    path: Path

    def count(self) -> int:
        """How many pictures there are; raises `UserError` for another shape or type."""
        with open_dataset(self.path, "images") as images:
            if images.shape[1:] != PICTURE_SHAPE or images.dtype != np.float16:
                found = f"{images.dtype} {images.shape}"
                raise UserError(f"{str(self.path)!r}: images are {found}, expected float16 (n, 3, 224, 224)")
            return len(images)

    def load(self, index: int) -> np.ndarray:
        """Picture ``index`` as uint8 (224, 224, 3); raises `UserError` for values outside [0, 1]."""
        with open_dataset(self.path, "images") as images:
            planes = images[index].astype(np.float32)
        if not (planes.min() >= 0 and planes.max() <= 1):  # false for NaN too
            raise UserError(f"{str(self.path)!r}: picture {index} has values outside [0, 1]; fetch the file again")
        pixels: np.ndarray = np.rint(planes * 255).astype(np.uint8).transpose(1, 2, 0)
        return np.ascontiguousarray(pixels)


def read_clusters(root: Path, count: int) -> tuple[str, ...] | None:
    """The semantic cluster of every picture, None where ``COCO_73k_semantic_cluster.npy`` is absent.

    The file holds ``count`` texts, or numbers that point into the texts of ``semantic_cluster_names.npy``.
    """
    path = root / "COCO_73k_semantic_cluster.npy"
    if not path.is_file():
        return None
    values = _one_axis(path)
    if len(values) != count:
        raise UserError(f"{str(path)!r} names {len(values)} clusters for {count} pictures; fetch it again")
    if values.dtype.kind in "iu":
        names = _one_axis(root / "semantic_cluster_names.npy")
        if len(values) and not (values.min() >= 0 and values.max() < len(names)):
            raise UserError(f"{str(path)!r} points outside the {len(names)} names of clusters; fetch both again")
        values = names[values]
    if not all(isinstance(value, str) for value in values.tolist()):
        raise UserError(f"{str(path)!r} holds {values.dtype}, expected texts or whole numbers")
    return tuple(str(value) for value in values)


def read_shared(root: Path, count: int) -> np.ndarray | None:
    """Bool (count,): which pictures all subjects saw, None where ``shared1000.npy`` (mask or indices) is absent."""
    path = root / "shared1000.npy"
    if not path.is_file():
        return None
    values = _one_axis(path)
    if values.dtype == bool and len(values) == count:
        return values
    if values.dtype.kind not in "iu" or len(values) == 0 or values.min() < 0 or values.max() >= count:
        found = f"{values.dtype} {values.shape}"
        raise UserError(f"{str(path)!r} holds {found}, expected a mask of {count} pictures or their indices")
    mask = np.zeros(count, dtype=bool)
    mask[values] = True
    return mask


def _one_axis(path: Path) -> np.ndarray:
    stored: Any = open_container(path)
    array = np.asarray(stored.open()) if isinstance(stored, StoredArray) else np.empty(0)
    if array.ndim != 1 or len(array) == 0:
        raise UserError(f"{str(path)!r} does not hold a list of values; fetch it again")
    return array
