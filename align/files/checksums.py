"""CRC-32 of what a file of ours holds, kept in the file itself and compared when it is opened.

- safetensors: under `KEY` of the metadata, over names, types, shapes, values and the other metadata
- JSON: under `KEY` of the outer object, over all else in it
- ``.npy`` that we write to map them: in `TRAILER` bytes behind the data, over what the file is of and all bytes before

safetensors and JSON without one, as written before there were any or by somebody else, are read as they are. A ``.npy``
of a cache without one is `Damaged`: it lost it, or is older than checksums, and is made again. What such a file is of
(its own name, where that is a key; else what the caller names) goes into its checksum, so that a file under the name of
another is found; JSON and safetensors of a cache say it themselves (`made_for`).

A checksum finds what a disk or an interrupted copy did. It does not stop a person who means to change a file: whoever
can write the file can write its checksum.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import Damaged, UserError

if TYPE_CHECKING:
    from typing import BinaryIO

    import numpy as np

KEY = "recon_checksum"
MADE_FOR = "made_for"  # names the key of a cache in its JSON or metadata
TRAILER = 24  # bytes
_SIGN = "crc32:"
_MARK = b"\nrecon-crc32:"  # then 8 digits and three line ends
_TRAILER = re.compile(re.escape(_MARK) + rb"[0-9a-f]{8}\n\n\n")
_PIECE = 1 << 22  # bytes read at once
_checked: set[tuple[str, int, int, int]] = set()  # files this process has compared: name, inode, size, time of change


def of_tensors(tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> str:
    """Of torch tensors on the CPU and the metadata beside them, whatever the order of both."""
    import torch

    others = {name: value for name, value in metadata.items() if name != KEY}
    found = zlib.crc32(json.dumps(others, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        found = zlib.crc32(f"{name} {value.dtype} {tuple(value.shape)}".encode(), found)
        found = zlib.crc32(value.reshape(-1).view(torch.uint8).numpy(), found)
    return f"{_SIGN}{found:08x}"


def require_tensors(path: str | Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Raise `Damaged` where the metadata hold another checksum than the content has."""
    stored = metadata.get(KEY)
    if stored is None:
        _require_no_other(path, metadata)
    elif stored != of_tensors(tensors, metadata):
        raise _differs(path)


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """The object with its checksum, as `unsealed` takes it from the file."""
    return {**value, KEY: _of_json(json.loads(json.dumps(value)))}


def unsealed(path: str | Path, value: Any) -> Any:
    """What was sealed, without the checksum; raises `Damaged` where it differs. All else is returned as it is."""
    if not isinstance(value, dict):
        return value
    if KEY not in value:
        _require_no_other(path, value)
        return value
    content = {name: item for name, item in value.items() if name != KEY}
    if value[KEY] != _of_json(content):
        raise _differs(path)
    return content


def require_made_for(path: str | Path, facts: Any, key: str) -> None:
    """Raise `Damaged` unless a cache says that it was made for ``key``: a file of another key may have its name."""
    if not isinstance(facts, Mapping) or facts.get(MADE_FOR) != key:
        raise Damaged(f"{str(path)!r} does not say that it is what its name says")


def of_folder(path: Path) -> str:
    """What a file is of whose folder has a key for its name."""
    return f"{path.parent.name}/{path.name}"


def append_checksum(path: str | Path, of: str) -> None:
    """Put the checksum of a file and of what it is ``of`` behind its last byte."""
    with Path(path).open("r+b") as file:
        found = crc_of(file, _start(of))
        file.write(_trailer(found))


def crc_of(file: BinaryIO, found: int = 0, count: int | None = None) -> int:
    """CRC-32 of the next ``count`` bytes, or of all to the end, behind those that gave ``found``."""
    left = -1 if count is None else count
    while piece := file.read(_PIECE if left < 0 else min(_PIECE, left)):
        found = zlib.crc32(piece, found)
        left -= len(piece) if left >= 0 else 0
    return found


def require_crc(path: str | Path, stored: int, count: int | None = None, of: str | None = None) -> None:
    """Raise `Damaged` unless the first ``count`` bytes of a file (None: all) have this checksum.

    Done once for each state of a file in a process. ``of``: see `append_checksum`.
    """
    stat = Path(path).stat()
    state = (f"{path}\n{of}", stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if state in _checked:
        return
    with Path(path).open("rb") as file:
        if crc_of(file, 0 if of is None else _start(of), count) != stored:
            raise _differs(path)
    _checked.add(state)


def map_npy(path: str | Path, of: str | None = None) -> np.ndarray:
    """Map a ``.npy`` of our own read-only after `require_npy`."""
    import numpy as np

    require_npy(path, of)
    mapped: np.ndarray = np.load(path, mmap_mode="r")
    return mapped


def require_npy(path: str | Path, of: str | None = None) -> None:
    """Raise `Damaged` unless the file is a whole ``.npy`` and was written as what it is ``of`` (None: its name)."""
    import numpy as np

    path = Path(path)
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            head = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = head(file)
            start = file.tell()
    except FileNotFoundError as error:
        raise Damaged(f"{str(path)!r} is missing") from error
    except PermissionError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # numpy's header parser raises whatever it likes
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise Damaged(f"{str(path)!r} is truncated or damaged ({text})") from error
    wanted = start + math.prod(shape) * dtype.itemsize
    require_crc(path, _trailer_of(path, wanted), wanted, path.name if of is None else of)


def has_trailer(path: Path, wanted: int) -> bool:
    """Whether all that a file holds behind its first ``wanted`` bytes is a checksum of ours; it is not compared."""
    try:
        _trailer_of(path, wanted)
    except Damaged:
        return False
    return True


def _trailer_of(path: Path, wanted: int) -> int:
    """The checksum behind the ``wanted`` bytes of a file; raises `Damaged` where there is none, or not just these."""
    size = path.stat().st_size
    if size == wanted:
        raise Damaged(f"{str(path)!r} has no checksum: it was cut off, or is of an older version")
    with path.open("rb") as file:
        file.seek(max(0, size - TRAILER))
        trailer = file.read()
    if size != wanted + TRAILER or not _TRAILER.fullmatch(trailer):
        raise Damaged(f"{str(path)!r} is truncated or damaged: {size} bytes, {wanted + TRAILER} announced")
    return int(trailer[len(_MARK) :], 16)


def _of_json(value: Any) -> str:
    return f"{_SIGN}{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}"


def _start(of: str) -> int:
    return zlib.crc32(of.encode(errors="surrogateescape"))


def _trailer(found: int) -> bytes:
    return _MARK + f"{found:08x}".encode() + b"\n\n\n"


def _require_no_other(path: str | Path, entries: Mapping[str, Any]) -> None:
    """A checksum under another name means that its name is damaged."""
    for value in entries.values():
        if isinstance(value, str) and value.startswith(_SIGN) and len(value) == len(_SIGN) + 8:
            raise _differs(path)


def _differs(path: str | Path) -> Damaged:
    return Damaged(f"{str(path)!r} is damaged: its content and its checksum differ")
