"""Opens the files in which recordings circulate, whatever their ending says: numpy, pickle, torch.

The kind is read from the first bytes: a pickle often goes by the name ``.npy``. Nothing is unpickled by the stock
reader (see `safe_pickle`) and large arrays stay in the file (see `stored_array`).
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from align.data.safe_pickle import read_pickle
from align.data.stored_array import Payload, StoredArray
from align.errors import UserError

_TORCH_TYPES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_TORCH_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."


def read_container(path: str | Path) -> Any:
    """Plain values and `StoredArray` from a ``.npy``, pickle or torch (zip) file.

    An array is returned as `StoredArray`; a dict that numpy saved inside an array of one object is returned itself.

    Raises
    ------
    UserError
        Missing, truncated, damaged or foreign file; anything in it that could run code.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{str(path)!r} does not exist or is not a file")
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(b"\x93NUMPY"):
        return _npy(path)
    if head.startswith(b"PK\x03\x04"):
        return _torch(path)
    if head.startswith(_TORCH_LEGACY):
        raise UserError(f"{str(path)!r} is in torch's format before 1.6; load and save it with a newer torch")
    if head[:1] == b"\x80" or head[:1] in b"(]}cNILFSV":
        return read_pickle(path)
    raise UserError(f"{str(path)!r} is no numpy, pickle or torch file (it begins with {head[:8]!r})")


def _npy(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in readers:
                raise ValueError(f"format version {version}")
            shape, fortran, dtype = readers[version](file)
            offset = file.tell()
    except Exception as error:  # numpy's header parser raises whatever it likes
        text = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{str(path)!r} is truncated or not a .npy file ({text}); write or fetch it again") from error
    if not dtype.hasobject:
        if dtype.kind not in "biufcSU":
            raise UserError(f"{str(path)!r} holds {dtype}; plain numbers and texts are read")
        size = path.stat().st_size - offset
        wanted = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if size < wanted:
            raise UserError(f"{str(path)!r} is truncated: {wanted} bytes announced, {size} found; fetch it again")
        try:
            return StoredArray.of(shape, dtype, fortran, Payload(path, offset, wanted))
        except ValueError as error:
            raise UserError(f"{str(path)!r} is damaged ({error})") from error
    stored = read_pickle(path, offset)
    if not isinstance(stored, StoredArray) or stored.shape != shape:
        raise UserError(f"{str(path)!r} is damaged: its header and its content are of different shapes")
    return stored.payload[0] if stored.shape == () and isinstance(stored.payload, list) else stored


def _torch(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            places = {name: _place(path, info) for name, info in members.items()}
            orders = [archive.read(info) for name, info in members.items() if name.endswith("/byteorder")]
    except UserError:
        raise
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{str(path)!r} is truncated or no torch file ({text}); fetch it again") from error
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UserError(f"{str(path)!r} is a zip, but no torch file (no data.pkl)")
    if orders and orders[0] != b"little":
        raise UserError(f"{str(path)!r} was written on a big-endian machine, which is not read")
    folder = pickles[0].rpartition("/")[0]

    def storage(reference: Any) -> StoredArray | None:
        if not isinstance(reference, tuple) or len(reference) != 5 or reference[0] != "storage":
            return None
        _, kind, key, _, n = reference
        code = _TORCH_TYPES.get(str(kind).rpartition(".")[2])
        if code is None:
            raise ValueError(f"tensors of {kind} are not read; store float32 or float16")
        start, length = places[f"{folder}/data/{key}"]
        if type(n) is not int or n * np.dtype(code).itemsize > length:
            raise ValueError(f"storage {key} is shorter than announced")
        return StoredArray.of((n,), np.dtype(code), False, Payload(path, start, n * np.dtype(code).itemsize))

    start, length = places[pickles[0]]
    return read_pickle(path, start, length, storage)


def _place(path: Path, info: zipfile.ZipInfo) -> tuple[int, int]:
    """Where a stored member's bytes lie; torch never compresses."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise UserError(f"{str(path)!r}: {info.filename!r} is compressed or locked, which torch never writes")
    with path.open("rb") as file:
        file.seek(info.header_offset)
        head = file.read(30)
    if len(head) < 30 or not head.startswith(b"PK\x03\x04"):
        raise UserError(f"{str(path)!r} is a damaged zip; fetch it again")
    start = info.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    if start + info.file_size > path.stat().st_size:
        raise UserError(f"{str(path)!r} is truncated inside {info.filename!r}; fetch it again")
    return start, info.file_size
