"""Embeddings and score matrices of strangers, and which brain row belongs to which picture row.

Nothing here runs code of a file: ``.pt`` is read with ``weights_only=True``, arrays without pickle.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.data.reading.safe_load import load_array
from align.errors import UserError
from align.files import no_file, require_openable
from align.files.labels import present, whole
from align.files.table import text_rows
from recon.scoring.number_table import read_numbers

SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".mat", ".safetensors", ".pt", ".pth", ".csv")
ID_COLUMNS = ("id", "image_id", "stimulus_id")
_USUAL = "embeds"  # what this project calls them in its own files


@dataclass
class Listing:
    """What a CSV says of the rows of an array: ids (n,), and a label (n,) where the column is there."""

    ids: list[str]
    labels: list[str] | None


@dataclass
class Pairing:
    """``rows`` (n_rows,): which of the n pictures with a recording each brain row shows; ``index`` (n,): where those
    pictures stand among the candidates; ``ids`` (n,): their names."""

    rows: np.ndarray
    index: np.ndarray
    ids: list[str]


def read_matrix(spec: str | Path) -> np.ndarray:
    """The numbers of ``FILE`` or ``FILE:KEY`` as (n, width), in the type they are stored in; later axes are flattened.

    ``KEY`` names the array of a .npz, .mat, .h5, .safetensors or .pt that holds several (``embeds`` needs no naming).
    A .csv may start with a line of names, see `read_numbers`. Raises `UserError` for a missing, foreign, unsafe or
    empty file.
    """
    path, key = _split(spec)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{str(path)!r} is no file of embeddings or scores; known endings: {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"{str(path)!r} {no_file(path)}; pass FILE or FILE:KEY")
    readers = {".safetensors": _safetensors, ".pt": _torch, ".pth": _torch, ".csv": _csv, ".npz": _npz}
    array = readers.get(suffix, load_array)(path, key)
    if array.ndim < 2 or array.size == 0:
        raise UserError(
            f"{str(spec)!r} has shape {array.shape}; one row per recording or picture is needed, (n, width)"
        )
    if array.dtype.kind not in "biuf":
        raise UserError(f"{str(spec)!r} holds {array.dtype}; plain real numbers are needed")
    flat: np.ndarray = array.reshape(len(array), -1)
    return flat


def read_listing(path: str | Path, label: str | None = None) -> Listing:
    """A CSV with a column ``id`` (or image_id, stimulus_id), ``row`` if not in order, and labels in column ``label``.

    ``label`` None takes the column called ``label`` where there is one. Raises `UserError` when a column is missing,
    an id or label is empty, or ``row`` is not each of 0 .. n - 1 once.
    """
    lines, names = text_rows(path)
    id_column = next((name for name in ID_COLUMNS if name in names), None)
    if id_column is None:
        raise UserError(f"{str(path)!r} has no column {' or '.join(ID_COLUMNS)}; it has: {', '.join(names)}")
    if label is not None and label not in names:
        raise UserError(f"{str(path)!r} has no column {label!r} of labels; it has: {', '.join(names)}")
    if "row" in names:
        lines = _in_order(lines, path)
    ids = [present(line[id_column]) for line in lines]
    if "" in ids:
        raise UserError(f"{str(path)!r}: row {ids.index('')} has no {id_column}")
    column = label or "label"
    if column not in names:
        return Listing(ids, None)
    labels = [present(line[column]) for line in lines]
    if "" in labels:
        raise UserError(f"{str(path)!r}: row {labels.index('')} has no {column}; label every row or drop the column")
    return Listing(ids, labels)


def pair(n_rows: int, candidates: int, ids: list[str] | None, image_ids: list[str] | None) -> Pairing:
    """Which picture each of ``n_rows`` brain rows shows, out of ``candidates``.

    Without ids row i shows picture i. ``ids`` (n_rows,) alone name the rows of both arrays, which are in one order;
    where pictures repeat or lack, they are row numbers of the pictures or their names in sorted order.
    With ``image_ids`` (candidates,) the two are matched by name; pictures without a recording are further candidates.

    Raises
    ------
    UserError
        Lengths that differ, a picture listed twice, a brain row whose picture is not among the candidates, ids alone
        that do not say which candidate is which picture.
    """
    for given, size, what in ((ids, n_rows, "brain rows"), (image_ids, candidates, "pictures")):
        if given is not None and len(given) != size:
            raise UserError(f"{len(given)} ids are given for {size} {what}; there must be one for each row")
    if image_ids is None:
        if ids is not None and (n_rows != candidates or len(set(ids)) < len(ids)):
            return pair(n_rows, candidates, ids, _order_of(ids, candidates))
        if ids is not None and _are_other_rows(ids):
            raise UserError(
                "the ids are 0 to n - 1 in another order: row numbers of the pictures, or names in the order of both "
                "arrays? Give --image-ids (a CSV with an id for each candidate)"
            )
        if n_rows != candidates:
            raise UserError(f"{n_rows} brain rows but {candidates} pictures; give the ids of both to pair them")
        names = [str(i) for i in range(n_rows)] if ids is None else ids
        return Pairing(np.arange(n_rows), np.arange(candidates), names)
    if len(set(image_ids)) != len(image_ids):
        raise UserError(f"picture {_twice(image_ids)!r} stands twice among the candidates; keep one")
    if ids is None:
        raise UserError("ids of the pictures need ids of the brain rows to be paired with")
    place = {name: i for i, name in enumerate(image_ids)}
    strange = [name for name in ids if name not in place]
    if strange:
        raise UserError(f"{len(strange)} brain rows show no candidate picture, first id {strange[0]!r}; check the ids")
    seen = sorted(set(ids), key=place.__getitem__)
    number = {name: i for i, name in enumerate(seen)}
    return Pairing(np.array([number[name] for name in ids]), np.array([place[name] for name in seen]), seen)


def _are_other_rows(ids: list[str]) -> bool:
    """Whether they are the rows 0 ... n - 1 in another order, as a table of shuffled trials has them."""
    rows = [str(row) for row in range(len(ids))]
    return ids != rows and sorted(ids) == sorted(rows)


def _order_of(ids: list[str], candidates: int) -> list[str]:
    """Which picture each of the candidates is, where the ids of the recordings leave no doubt.

    They do for whole numbers 0 ... candidates - 1 (the row of the picture), and where the ids as they first appear and
    the sorted ids are one order. Raises `UserError` for all else.
    """
    seen = list(dict.fromkeys(ids))
    rows = [str(row) for row in range(candidates)]
    if set(seen) <= set(rows):
        return rows
    if len(seen) == candidates and seen == sorted(seen):
        return seen
    raise UserError(
        f"{len(ids)} brain rows of {len(seen)} pictures, {candidates} candidates: the ids do not say which candidate "
        "is which picture; give --image-ids (a CSV with an id for each candidate), or row numbers from 0 as ids"
    )


def average_rows(x: np.ndarray, pairing: Pairing) -> np.ndarray:
    """Brain rows (n_rows, width) to one row per picture (n, width): the mean of its repetitions as stored."""
    if np.array_equal(pairing.rows, np.arange(len(x))):
        return x
    total = np.zeros((len(pairing.ids), x.shape[1]))
    np.add.at(total, pairing.rows, x)
    mean: np.ndarray = total / np.bincount(pairing.rows)[:, None]
    return mean


def as_numpy(tensor: Any) -> np.ndarray:
    """A torch tensor as numpy; bfloat16 and float8, which numpy lacks, become float32. `UserError` if sparse."""
    import torch

    tensor = tensor.detach().cpu()
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise UserError(f"a tensor of layout {tensor.layout}, {tensor.dtype} is no plain array; save it dense")
    if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.float()
    array: np.ndarray = tensor.resolve_conj().resolve_neg().numpy()
    return array


def _split(spec: str | Path) -> tuple[Path, str | None]:
    text = str(spec)
    if ":" not in text or Path(text).exists():
        return Path(text), None
    path, _, key = text.rpartition(":")
    return (Path(path), key) if Path(path).suffix else (Path(text), None)


def _twice(names: list[str]) -> str:
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]


def _choose(path: Path, names: list[str], key: str | None) -> str:
    if key is None and len(names) == 1:
        return names[0]
    wanted = _USUAL if key is None else key
    if wanted not in names:
        what = "holds several arrays" if key is None else f"has no array {key!r}"
        raise UserError(f"{str(path)!r} {what}; pass {path.name}:KEY with one of: {', '.join(names) or '(none)'}")
    return wanted


def _npz(path: Path, key: str | None) -> np.ndarray:
    import zipfile

    if not zipfile.is_zipfile(path):
        return load_array(path, key)  # says what is wrong with it
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    return load_array(path, _choose(path, names, key))


def _safetensors(path: Path, key: str | None) -> np.ndarray:
    from safetensors import SafetensorError, safe_open

    require_openable(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            return as_numpy(file.get_tensor(_choose(path, sorted(file.keys()), key)))
    except SafetensorError as error:
        raise UserError(f"{str(path)!r} is not a whole safetensors file: {error}") from error


def _torch(path: Path, key: str | None) -> np.ndarray:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on foreign or malicious files
        raise UserError(
            f"{str(path)!r} is no file of plain tensors: broken, or it needs code to be run, which is refused; "
            "save the tensor alone, or as .npy or .safetensors"
        ) from error
    if isinstance(content, torch.Tensor):
        if key is not None:
            raise UserError(f"{str(path)!r} holds one tensor without a name; leave out :{key}")
        return as_numpy(content)
    if not isinstance(content, dict):
        raise UserError(f"{str(path)!r} holds a {type(content).__name__}; a tensor or a dict of tensors is needed")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    return as_numpy(tensors[_choose(path, list(tensors), key)])


def _csv(path: Path, key: str | None) -> np.ndarray:
    if key is not None:
        raise UserError(f"{str(path)!r} holds one table; leave out :{key}")
    return read_numbers(path)


def _in_order(lines: list[dict[str, str]], path: str | Path) -> list[dict[str, str]]:
    rows = [whole(line["row"]) for line in lines]
    wrong = [row for row in rows if not row.isdecimal() or int(row) >= len(rows)]
    if wrong or len({int(row) for row in rows}) != len(rows):
        told = f"{wrong[0]!r}" if wrong else f"{_twice(rows)!r} twice"
        raise UserError(f"{str(path)!r}: column row must hold 0 to {len(rows) - 1} once each, it holds {told}")
    return sorted(lines, key=lambda line: int(whole(line["row"])))
