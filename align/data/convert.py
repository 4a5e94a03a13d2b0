"""A clean copy of a pickled file: one mappable ``.npy`` per array and ``content.json`` for the rest.

    sub-01/preprocessed_eeg_training.npy            as it circulates (a pickle)
    sub-01/preprocessed_eeg_training.npy.clean/     content.json, preprocessed_eeg_data.npy, times.npy

`open_container` takes the clean copy where there is one, so a study reads either without knowing which.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from align.data.containers import read_container
from align.data.stored_array import StoredArray
from align.errors import UserError
from align.files import read_json

SUFFIX = ".clean"
SUFFIXES = (".npy", ".pkl", ".pickle", ".pt", ".pth")
_CONTENT = "content.json"


def open_container(path: str | Path) -> Any:
    """What `read_container` gives, from the clean copy beside ``path`` where there is one.

    Raises `UserError` as `read_container` does, and for a clean copy that is incomplete.
    """
    path = Path(path)
    clean = path.with_name(path.name + SUFFIX)
    return _read_clean(clean) if clean.is_dir() else read_container(path)


def convert_file(path: str | Path, out: str | Path) -> list[Path]:
    """Write the clean copy of one file as folder ``out``; returns its files.

    The folder appears only when it is complete. Memory: a few pieces of `stored_array.PIECE`, whatever the size of
    the file. Raises `UserError` for content that is neither arrays nor plain values, and where the disk is too full.
    """
    path, out = Path(path), Path(out)
    content = read_container(path)
    arrays: dict[str, StoredArray] = {}
    plain = _split(content, "", arrays)
    needed = sum(array.nbytes for array in arrays.values())
    out.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out.parent).free
    if needed > free:
        raise UserError(f"the clean copy of {str(path)!r} needs {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free")
    temporary = out.with_name(f".{out.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        names = {key: f"{number}_{re.sub(r'[^A-Za-z0-9_-]+', '_', key)}.npy" for number, key in enumerate(arrays)}
        for key, array in arrays.items():
            array.save(temporary / names[key])
        text = json.dumps({"arrays": names, "content": plain}, ensure_ascii=False)
        (temporary / _CONTENT).write_text(text, encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sorted(out.iterdir())


def convert_folder(root: str | Path, out: str | Path | None = None) -> list[Path]:
    """Clean copies of every numpy, pickle and torch file under ``root``; returns the folders written.

    They lie beside the files, or at the same relative places under ``out``. Plain ``.npy`` files need none. A copy
    that is there and newer than its file is kept.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{str(root)!r} is not a folder; give the folder that holds the recordings")
    files = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and SUFFIX not in "".join(path.parent.suffixes)
    )
    written = []
    for path in files:
        if _is_plain(path):
            continue
        target = (path if out is None else Path(out) / path.relative_to(root)).with_name(path.name + SUFFIX)
        if not (target / _CONTENT).is_file() or (target / _CONTENT).stat().st_mtime < path.stat().st_mtime:
            convert_file(path, target)
        written.append(target)
    return written


def _is_plain(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(4096)
    return head.startswith(b"\x93NUMPY") and b"'|O'" not in head


def _split(value: Any, key: str, arrays: dict[str, StoredArray]) -> Any:
    """The value with each array moved to ``arrays`` and a reference in its place."""
    if isinstance(value, StoredArray):
        if isinstance(value.payload, list):
            return {"objects": [_split(item, key, arrays) for item in value.payload], "shape": value.shape}
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


def _read_clean(folder: Path) -> Any:
    content = read_json(folder / _CONTENT)
    try:
        arrays = {key: read_container(folder / name) for key, name in content["arrays"].items()}
        return _joined(content["content"], arrays)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{str(folder)!r} is not a clean copy; delete it and convert the file again") from error


def _joined(entry: dict[str, Any], arrays: dict[str, Any]) -> Any:
    ((kind, value),) = [(kind, value) for kind, value in entry.items() if kind != "shape"]
    if kind == "array":
        return arrays[value]
    if kind == "dict":
        return {name: _joined(item, arrays) for name, item in value.items()}
    if kind == "list":
        return [_joined(item, arrays) for item in value]
    if kind == "objects":
        return StoredArray.of_objects(tuple(entry["shape"]), [_joined(item, arrays) for item in value])
    return entry["value"]
