"""A clean copy of a pickled file: one mappable ``.npy`` per array and ``content.json`` for the rest.

    sub-01/preprocessed_eeg_training.npy            as it circulates (a pickle); it has to stay
    sub-01/preprocessed_eeg_training.npy.clean/     content.json, 0_preprocessed_eeg_data.npy, 1_times.npy

`open_container` takes the clean copy of a file where there is one, so a study reads either without knowing which. A
copy counts only for the file it was made from (its size and time of change): a file that was replaced is read itself.

With another folder to write to, that folder becomes a second root: symbolic links to everything in the first, and the
clean copies beside the links.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from align.data.download.part import human
from align.data.reading.containers import read_container, stored_npy
from align.data.reading.stored_array import StoredArray
from align.errors import Damaged, UserError
from align.files import atomic_folder, beside, locked, read_json, remove_unheld, write_sealed
from align.files.checksums import require_npy

SUFFIX = ".clean"
SUFFIXES = (".npy", ".pkl", ".pickle", ".pt", ".pth")
_CONTENT = "content.json"
_ARRAY = r"[0-9]+_[A-Za-z0-9_-]+\.npy"
_LOG = logging.getLogger(__name__)


def open_container(path: str | Path) -> Any:
    """What `read_container` gives, from the clean copy beside ``path`` where there is one of this very file.

    Raises `UserError` as `read_container` does. A clean copy that is damaged is told of in the log and left alone.
    """
    path = Path(path)
    clean = _clean_of(path)
    if not (path.is_file() and clean.is_dir()):
        return read_container(path)
    try:
        content = _read_content(clean)
        if content["source"] == _source(path):
            return _joined_content(clean, content)
    except Damaged as error:
        _LOG.warning("%s; %s is read itself: run recon data convert again", error, path)
        return read_container(path)
    _LOG.warning("%s changed since it was converted; it is read itself: run recon data convert again", path)
    return read_container(path)


def convert_file(path: str | Path, out: str | Path) -> Path:
    """Write the clean copy of one file as folder ``out``; returns it.

    The folder appears only when it is complete; an older clean copy makes way for it, nothing else does. Memory: a few
    pieces of `stored_array.PIECE`, whatever the size of the file. Raises `UserError` for content that is neither arrays
    nor plain values, and where the disk is too full.
    """
    path, out = Path(path), Path(out)
    if os.path.lexists(out) and not _is_ours(out):
        raise UserError(f"{str(out)!r} is no clean copy of recon data convert and stays as it is; move it away")
    arrays: dict[str, StoredArray] = {}
    plain = _split(read_container(path), "", arrays)
    names = {key: f"{number}_{re.sub(r'[^A-Za-z0-9_-]+', '_', key)[:80]}.npy" for number, key in enumerate(arrays)}
    content = {"source": _source(path), "arrays": names, "content": plain}
    needed = sum(array.nbytes for array in arrays.values()) + len(json.dumps(content))
    free = shutil.disk_usage(out.parent).free
    if needed > free:
        raise UserError(
            f"the clean copy of {str(path)!r} needs {human(needed)}, and the disk of {str(out.parent)!r} has "
            f"{human(free)} left; make room or write it elsewhere with --out FOLDER"
        )
    try:
        with atomic_folder(out, _is_ours) as temporary:
            for key, array in arrays.items():
                array.save(temporary / names[key], _of(content, names[key]))
            write_sealed(temporary / _CONTENT, content)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {str(out)!r}: {reason}; make room or write elsewhere with --out") from error
    return out


def convert_folder(root: str | Path, out: str | Path | None = None) -> tuple[list[Path], list[Path]]:
    """Clean copies of every numpy, pickle and torch file under ``root``: (written now, there already).

    They lie beside the files, or under ``out``, which becomes a second root (see the module). Plain ``.npy`` files
    need none. A file that cannot be converted does not keep the others from it.

    Raises `UserError` naming the first file that cannot be converted, when the others are done.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{str(root)!r} is not a folder; give the folder that holds the recordings")
    base, files = root, list(_files(root))
    if out is not None:
        base = Path(out)
        _link(root.resolve(), base, {path.relative_to(root) for path in files})
    written, kept, faults = [], [], []
    for path in (base / path.relative_to(root) for path in files):
        try:
            if _is_numpy(path) and stored_npy(path) is not None:  # plain
                continue
            clean = _clean_of(path)
            lock = beside(clean, "lock")
            if _is_current(path):
                remove_unheld(lock)
                kept.append(clean)
                continue
            with locked(lock, f"converting {str(path)!r}", wait=None, keep=False):
                if _is_current(path):  # another process was quicker
                    kept.append(clean)
                else:
                    written.append(convert_file(path, clean))
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError(f"{len(faults)} of {len(files)} files cannot be converted, the others are: {faults[0]}")
    return written, kept


def _files(root: Path) -> Iterator[Path]:
    """Files that may be pickled, in order; neither clean copies nor hidden ones. Linked folders are entered once."""
    seen = {root.resolve()}
    for at, folders, names in os.walk(root, followlinks=True):
        places = [Path(at, name) for name in sorted(folders) if not name.startswith(".") and not _is_copy(name)]
        fresh = [place for place in places if place.resolve() not in seen]
        seen |= {place.resolve() for place in fresh}
        folders[:] = [place.name for place in fresh]
        for name in sorted(names):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".") and Path(at, name).is_file():
                yield Path(at, name)


def _is_copy(name: str) -> bool:
    """Whether a folder is called as clean copies are."""
    return name.lower().endswith(tuple(suffix + SUFFIX for suffix in SUFFIXES))


def _link(root: Path, out: Path, files: set[Path]) -> None:
    """Make ``out`` a second root: folders on the way to ``files`` are folders, all else is linked."""
    if out.resolve().is_relative_to(root) or root.is_relative_to(out.resolve()):
        raise UserError(f"--out {str(out)!r} and {str(root)!r} lie in one another; take a folder apart from it")
    deep = {folder for path in files for folder in path.parents}
    for folder in sorted(deep | {Path()}):
        (out / folder).mkdir(parents=True, exist_ok=True)
        for child in (root / folder).iterdir():
            target = out / folder / child.name
            if child.relative_to(root) in deep or _is_copy(child.name) or target.is_symlink():
                continue
            if target.exists():
                raise UserError(f"{str(target)!r} is there already and no link; take a new folder for --out")
            try:
                target.symlink_to(child)
            except FileExistsError:  # another process was quicker
                if not target.is_symlink():
                    raise
            except OSError as error:
                raise UserError(
                    f"cannot link {str(target)!r} to {str(child)!r} ({error.strerror or error}); allow links "
                    "(Windows: in its developer mode) or leave --out away"
                ) from error


def _clean_of(path: Path) -> Path:
    return path.with_name(path.name + SUFFIX)


def _source(path: Path) -> list[int]:
    """What tells a file from another of its name: bytes and time of change."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _of(content: dict[str, Any], name: str) -> str:
    """What an array of a clean copy is of: files of several people hold arrays of the same names."""
    return f"{content['source']} {name}"


def _is_current(path: Path) -> bool:
    """Whether a readable clean copy of this very file is there."""
    try:
        content = _read_content(_clean_of(path))
        return bool(content["source"] == _source(path)) and _joined_content(_clean_of(path), content) is not None
    except UserError:
        return False


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds what a clean copy does, and nothing else."""
    if not folder.is_dir() or folder.is_symlink():
        return False
    return all(path.name == _CONTENT or re.fullmatch(_ARRAY, path.name) for path in folder.iterdir())


def _is_numpy(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6) == b"\x93NUMPY"


def _split(value: Any, key: str, arrays: dict[str, StoredArray]) -> Any:
    """The value with each array moved to ``arrays`` and a reference in its place."""
    if isinstance(value, StoredArray):
        if isinstance(value.payload, list):
            items = [_split(item, key, arrays) for item in value.payload]
            return {"objects": items, "shape": value.shape}
        name = key or "data"
        while name in arrays:
            name += "_"
        arrays[name] = value
        return {"array": name}
    if isinstance(value, dict):
        if not all(isinstance(name, str) for name in value):
            raise UserError(f"{key or 'the file'} has keys that are no texts; it cannot be written as JSON")
        return {"dict": {name: _split(item, f"{key}.{name}" if key else name, arrays) for name, item in value.items()}}
    if isinstance(value, list | tuple):
        return {"list": [_split(item, f"{key}.{i}" if key else str(i), arrays) for i, item in enumerate(value)]}
    if isinstance(value, str | int | float | bool | None):
        return {"value": value}
    raise UserError(f"{key or 'the file'} is a {type(value).__name__}, which a clean copy cannot hold")


def _read_content(folder: Path) -> dict[str, Any]:
    """The checked outer form of ``content.json``."""
    try:
        content = read_json(folder / _CONTENT)
    except UserError as error:
        raise _damaged(folder) from error
    names = content.get("arrays") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not {"source", "content"} <= set(content):
        raise _damaged(folder)
    if not all(isinstance(name, str) and re.fullmatch(r"[\w-]+\.npy", name) for name in names.values()):
        raise _damaged(folder)  # a name with a folder in it would lead elsewhere
    return dict(content)


def _joined_content(folder: Path, content: dict[str, Any]) -> Any:
    for name in content["arrays"].values():
        require_npy(folder / name, _of(content, name))
    arrays = {key: read_container(folder / name) for key, name in content["arrays"].items()}
    try:
        return _joined(content["content"], arrays)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise _damaged(folder) from error


def _joined(entry: dict[str, Any], arrays: dict[str, Any]) -> Any:
    if "array" in entry:
        return arrays[entry["array"]]
    if "dict" in entry:
        return {name: _joined(item, arrays) for name, item in entry["dict"].items()}
    if "list" in entry:
        return [_joined(item, arrays) for item in entry["list"]]
    if "objects" in entry:
        items = [_joined(item, arrays) for item in entry["objects"]]
        return StoredArray.of(tuple(entry["shape"]), np.dtype(object), False, items)
    return entry["value"]


def _damaged(folder: Path) -> Damaged:
    return Damaged(f"{str(folder)!r} is not a whole clean copy")
