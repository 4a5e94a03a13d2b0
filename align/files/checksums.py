"""CRC-32 of what a file of ours holds, kept in the file itself and compared when it is opened.

- safetensors: under `KEY` of the metadata, over names, types, shapes, values and the other metadata
- JSON: under `KEY` of the outer object, over all else in it
- ``.npy`` and other big files that are mapped: in `TRAILER` bytes behind the data, over all bytes before them

A file without one, as written before there were any or by somebody else, is read as it is. A checksum finds what a disk
or an interrupted copy did. It does not stop a person who means to change a file: whoever can write the file can write
its checksum.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import Damaged

if TYPE_CHECKING:
    from typing import BinaryIO

    import numpy as np

KEY = "recon_checksum"
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


def append_checksum(path: str | Path) -> None:
    """Put the checksum of a file behind its last byte."""
    with Path(path).open("r+b") as file:
        found = crc_of(file)
        file.write(_trailer(found))


def crc_of(file: BinaryIO, found: int = 0, count: int | None = None) -> int:
    """CRC-32 of the next ``count`` bytes, or of all to the end, behind those that gave ``found``."""
    left = -1 if count is None else count
    while piece := file.read(_PIECE if left < 0 else min(_PIECE, left)):
        found = zlib.crc32(piece, found)
        left -= len(piece) if left >= 0 else 0
    return found


def require_whole(path: str | Path, wanted: int) -> None:
    """Compare a file with the checksum behind its ``wanted`` bytes; a file of just these has none.

    Done once for each state of a file in a process. Raises `Damaged` where it differs and where other bytes follow.
    """
    size = Path(path).stat().st_size
    with Path(path).open("rb") as file:
        file.seek(max(0, size - TRAILER))
        trailer = file.read()
    has_one = bool(_TRAILER.fullmatch(trailer))
    if size != wanted + TRAILER * has_one:
        raise Damaged(f"{str(path)!r} is truncated or damaged: {size} bytes, {wanted} announced")
    if has_one:
        require_crc(path, int(trailer[len(_MARK) :], 16), wanted)


def require_crc(path: str | Path, stored: int, count: int | None = None) -> None:
    """Raise `Damaged` unless the first ``count`` bytes of a file (None: all) have this checksum.

    Done once for each state of a file in a process.
    """
    stat = Path(path).stat()
    state = (str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if state in _checked:
        return
    with Path(path).open("rb") as file:
        if crc_of(file, count=count) != stored:
            raise _differs(path)
    _checked.add(state)


def map_npy(path: str | Path) -> np.ndarray:
    """Map a ``.npy`` of our own read-only, compared with its checksum; raises `Damaged` also for a broken head."""
    import numpy as np

    require_npy(path)
    mapped: np.ndarray = np.load(path, mmap_mode="r")
    return mapped


def require_npy(path: str | Path) -> None:
    """Raise `Damaged` unless the file is a whole ``.npy`` and is what was written."""
    import numpy as np

    try:
        with Path(path).open("rb") as file:
            version = np.lib.format.read_magic(file)
            head = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = head(file)
            start = file.tell()
    except FileNotFoundError as error:
        raise Damaged(f"{str(path)!r} is missing") from error
    except Exception as error:  # numpy's header parser raises whatever it likes
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise Damaged(f"{str(path)!r} is truncated or damaged ({text})") from error
    require_whole(path, start + math.prod(shape) * dtype.itemsize)


def _of_json(value: Any) -> str:
    return f"{_SIGN}{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}"


def _trailer(found: int) -> bytes:
    return _MARK + f"{found:08x}".encode() + b"\n\n\n"


def _require_no_other(path: str | Path, entries: Mapping[str, Any]) -> None:
    """A checksum under another name means that its name is damaged."""
    for value in entries.values():
        if isinstance(value, str) and value.startswith(_SIGN) and len(value) == len(_SIGN) + 8:
            raise _differs(path)


def _differs(path: str | Path) -> Damaged:
    return Damaged(f"{str(path)!r} is damaged: its content and its checksum differ")
