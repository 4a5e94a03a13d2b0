"""fMRI in bdpy's HDF5 (Generic Object Decoding, Deeprecon and others of one laboratory) to the `folder` layout.

    recon data import --bdpy Subject1.h5 --images FOLDER --out god                                    GOD: one file
    recon data import --bdpy train.h5 --test test.h5 --stimulus-column stimulus_name --images FOLDER --out deeprecon

A file holds ``dataset`` (samples, columns), ``metadata/key`` (names) and ``metadata/value`` (names, columns): the
columns whose value under a name is 1 belong to it. Voxels are ``VoxelData`` or an area such as ``ROI_VC``; other
columns say which stimulus was shown, in which split, session and run. Older files say ``dataSet`` and ``metaData``.

The pictures are not in the file; they are looked up by name in a folder. The name is the label that ``vmap`` gives for
the number of the stimulus or, as in GOD, the number itself: 1518878.005958 is picture n01518878_5958.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from align.data.importing.layout import Shown, write_layout
from align.data.importing.people import names_a_person, people_of, refuse_several
from align.data.importing.pictures import find_pictures, short_names
from align.data.reading.safe_load import inside_hdf5, require_finite
from align.data.studies.nsd_files import open_hdf5
from align.errors import UserError

if TYPE_CHECKING:
    import h5py

_ROWS = 256  # samples read at once


@dataclass(frozen=True)
class Columns:
    """Names of columns. ``split`` tells training from test by number where one file holds both.

    GOD: 1 and 2; its 3, imagery, is left out.
    """

    voxels: str = "VoxelData"
    stimulus: str = "stimulus_id"
    split: str = "DataType"
    train: float = 1.0
    test: float = 2.0
    session: str = "Session"


@dataclass(frozen=True)
class _Samples:
    """What a file says: voxels float32 (n, V), picture name and session of every sample, split value or None."""

    x: np.ndarray
    stimulus: list[str]
    session: list[str]
    split: np.ndarray | None


def import_bdpy(
    path: str | Path,
    images: str | Path,
    out: str | Path,
    test: str | Path | None = None,
    subject: str = "01",
    columns: Columns | None = None,
    link: bool = False,
) -> Path:
    """Write folder ``out`` and return it; one row per sample, repetitions kept apart, voxels as stored.

    ``test``: the file of the test samples; without it ``columns.split`` tells them apart. Samples of another split
    are left out. ``link`` leaves the pictures where they are. Raises `UserError` for an unknown column, a stimulus
    without picture, values that are not finite.
    """
    columns = columns or Columns()
    parts = [_read(Path(path), columns, whole=test is None)]
    if test is None:
        if parts[0].split is None:
            raise UserError(f"{str(path)!r} has no column {columns.split!r}; give the test samples as a second file")
        splits = [{columns.train: "train", columns.test: "test"}.get(value, "") for value in parts[0].split]
    else:
        parts.append(_read(Path(test), columns, whole=False))
        splits = ["train"] * len(parts[0].stimulus) + ["test"] * len(parts[1].stimulus)
        if parts[0].x.shape[1] != parts[1].x.shape[1]:
            widths = " and ".join(str(part.x.shape[1]) for part in parts)
            raise UserError(f"training and test have {widths} voxels under {columns.voxels!r}; take the same area")
    stimulus = [name for part in parts for name in part.stimulus]
    session = [name for part in parts for name in part.session]
    kept = [i for i, split in enumerate(splits) if split]
    pictures = find_pictures(Path(images), [stimulus[i] for i in kept])
    names = short_names(pictures.values(), Path(images))
    trials = [
        Shown(names[pictures[stimulus[i]]], splits[i], subject, _concept(stimulus[i]), session=session[i]) for i in kept
    ]
    x = np.concatenate([part.x for part in parts])[kept]
    return write_layout(Path(out), x, trials, {name: file for file, name in names.items()}, link=link)


def _read(path: Path, columns: Columns, whole: bool) -> _Samples:
    """``whole``: the file holds both splits; values of samples of neither (imagery) may be anything."""
    with open_hdf5(path) as file:
        table = _Table(file, path)
        x = table.block(columns.voxels)
        number = table.column(columns.stimulus)
        if x.shape[1] == 0 or number is None:
            missing = columns.voxels if x.shape[1] == 0 else columns.stimulus
            raise UserError(f"{str(path)!r} has no column {missing!r}; it has: {', '.join(table.keys)}")
        session, split = table.column(columns.session), table.column(columns.split)
        _refuse_several_people(table, columns, number, repr(str(path)))
        labels = _labels(file, columns.stimulus)
    used = np.ones(len(x), bool) if split is None or not whole else np.isin(split, (columns.train, columns.test))
    require_finite(x[used], f"{str(path)!r}, {columns.voxels}")
    require_finite(number[used], f"{str(path)!r}, {columns.stimulus}")
    names = [
        (labels.get(value) or _name_of_number(value)) if wanted else ""
        for value, wanted in zip(number.tolist(), used, strict=True)
    ]
    sessions = [""] * len(names) if session is None else [f"{value:g}" for value in session.tolist()]
    return _Samples(x, names, sessions, split)


def _refuse_several_people(table: _Table, columns: Columns, number: np.ndarray, source: str) -> None:
    named = {key: table.column(key) for key in table.keys if names_a_person(key)}
    texts = {key: [f"{value:g}" for value in values.tolist()] for key, values in named.items() if values is not None}
    for name, found in people_of(texts, [str(value) for value in number.tolist()], (columns.stimulus,)).items():
        refuse_several(source, name, found, "write a file for each of them")


class _Table:
    """``dataset`` and the names of its columns; raises `UserError` where they do not fit together."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        self.dataset = inside_hdf5(file, "dataset" if "dataset" in file else "dataSet")
        metadata = "metadata" if "metadata" in file else "metaData"
        self.values = np.asarray(inside_hdf5(file, f"{metadata}/value")[()])
        self.keys = [_text(key) for key in inside_hdf5(file, f"{metadata}/key")[()].tolist()]
        shape = self.dataset.shape
        numbers = self.dataset.dtype.kind in "iuf" and self.values.dtype.kind in "iuf"
        if len(shape) != 2 or shape[0] == 0 or not numbers or self.values.shape != (len(self.keys), shape[1]):
            found = f"dataset {self.dataset.dtype} {shape}, metadata {self.values.shape} for {len(self.keys)} names"
            raise UserError(f"{str(path)!r} is no bdpy file ({found})")

    def places(self, name: str) -> np.ndarray:
        """Columns that belong to a name, rising; empty for an unknown one."""
        return np.flatnonzero(self.values[self.keys.index(name)] == 1) if name in self.keys else np.empty(0, np.int64)

    def column(self, name: str) -> np.ndarray | None:
        """The one column of a name, float64 (n,); None where it has none or several."""
        places = self.places(name)
        return np.asarray(self.dataset[:, int(places[0])], dtype=np.float64) if len(places) == 1 else None

    def block(self, name: str) -> np.ndarray:
        """All columns of a name, float32 (n, columns), some rows at a time."""
        places = self.places(name)
        x = np.empty((len(self.dataset), len(places)), dtype=np.float32)
        for start in range(0, len(x), _ROWS):
            with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite and is named
                x[start : start + _ROWS] = self.dataset[start : start + _ROWS][:, places]
        return x


def _labels(file: h5py.File, key: str) -> dict[float, str]:
    """The texts that ``vmap`` gives for the numbers of a column; empty where it has none."""
    import h5py

    for group in ("vmap", f"vmap/{key}"):
        if not isinstance(file.get(group, getlink=True), h5py.HardLink):
            return {}
    return {float(name): _text(inside_hdf5(file, f"vmap/{key}/{name}")[()]) for name in file[f"vmap/{key}"]}


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _name_of_number(value: float) -> str:
    """1518878.005958 is n01518878_5958 (WordNet number and picture); a whole number is itself."""
    whole = int(value)
    picture = round((value - whole) * 1e6)
    return f"n{whole:08d}_{picture}" if picture else str(whole)


def _concept(name: str) -> str:
    """The WordNet number that a name begins with, "" for other names."""
    found = re.match(r"n\d{8}(?=_)", name)
    return found.group() if found else ""
