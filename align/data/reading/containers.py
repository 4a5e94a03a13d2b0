"""Opens the files in which recordings circulate, whatever their ending says: numpy, pickle, torch.

The kind is read from the first bytes: a pickle often goes by the name ``.npy``. Nothing is unpickled by the stock
reader (see `safe_pickle`) and large arrays stay in the file (see `stored_array`).
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from align.data.reading.archives import checked_zip
from align.data.reading.safe_pickle import read_pickle
from align.data.reading.stored_array import Payload, StoredArray
from align.errors import UserError
from align.files import no_file
from align.files.checksums import has_trailer

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
LONGEST_HEADER = 1 << 16  # bytes of a .npy header
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
        raise UserError(f"{str(path)!r} {no_file(path)}")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read ({error.strerror})") from error
    if head.startswith(b"\x93NUMPY"):
        return _npy(path)
    if head.startswith(b"PK\x03\x04"):
        return _torch(path)
    if head.startswith(_TORCH_LEGACY):
        raise UserError(f"{str(path)!r} is in torch's format before 1.6; load and save it with a newer torch")
    if head[:1] == b"\x80" or head[:1] in b"(]}cNILFSV":
        return read_pickle(path)
    raise UserError(f"{str(path)!r} is no numpy, pickle or torch file (it begins with {head[:8]!r})")


def npy_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and dtype; ``file`` stands at its first byte, then at the numbers.

    Raises whatever numpy's header parser raises (anything), and ValueError for a header of no sensible length.
    """
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"format version {version}")
    length = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
    if length > LONGEST_HEADER:  # numpy would read it whole before it looks
        raise ValueError(f"a header of {length} bytes")
    file.seek(8)
    return readers[version](file)


def stored_npy(path: Path) -> StoredArray | None:
    """The array of numbers or texts in a ``.npy`` file, left there; None for an array of objects (a pickle).

    Raises `UserError` for a truncated or foreign file, for records, and for bytes behind the array.
    """
    try:
        with path.open("rb") as file:
            shape, fortran, dtype = npy_header(file)
            offset = file.tell()
        if dtype.hasobject:
            return None
        if dtype.kind not in "biufcSU":
            raise UserError(f"{str(path)!r} holds {dtype}; plain numbers and texts are read")
        wanted = math.prod(shape) * dtype.itemsize
        size = path.stat().st_size - offset
        if size < wanted:
            raise UserError(f"{str(path)!r} is truncated: {wanted} bytes announced, {size} found; fetch it again")
        if size > wanted and not has_trailer(path, offset + wanted):
            raise UserError(
                f"{str(path)!r} holds {size - wanted} bytes more than the array of shape {shape} that its header "
                "announces: it is damaged, or holds a second array, which would be lost; save one array in one file"
            )
        return StoredArray.of(shape, dtype, fortran, Payload(path, offset, wanted))
    except UserError:
        raise
    except Exception as error:  # numpy's header parser raises whatever it likes
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{str(path)!r} is truncated or not a .npy file ({text}); write or fetch it again") from error


def _npy(path: Path) -> Any:
    plain = stored_npy(path)
    if plain is not None:
        return plain
    with path.open("rb") as file:
        shape, _, dtype = npy_header(file)
        offset = file.tell()
    stored = read_pickle(path, offset)
    if not isinstance(stored, StoredArray) or stored.shape != shape or stored.dtype != dtype:
        raise UserError(f"{str(path)!r} is damaged: its header and its content are of different shapes or types")
    return stored.payload[0] if stored.shape == () and isinstance(stored.payload, list) else stored


def _torch(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            members = checked_zip(archive, path)
            pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise UserError(f"{str(path)!r} is a zip, but no torch file (no data.pkl)")
            places = {name: _place(path, info) for name, info in members.items()}
            orders = [archive.read(i) for name, i in members.items() if name.endswith("/byteorder") and i.file_size < 9]
    except UserError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{str(path)!r} is truncated or no torch file ({text}); fetch it again") from error
    if orders and orders[0] != b"little":
        raise UserError(f"{str(path)!r} was written on a big-endian machine, which is not read")
    folder = pickles[0].rpartition("/")[0]
    if any(name.startswith(f"{folder}/code/") for name in members):
        raise UserError(f"{str(path)!r} is a TorchScript program, which can run code, and is refused; store a dict")

    def storage(reference: Any) -> StoredArray | None:
        if len(reference) != 5 or not all(isinstance(part, str) for part in reference[:4]):
            return None
        word, kind, key, _, n = reference
        if word != "storage":
            return None
        code = _TORCH_TYPES.get(kind.rpartition(".")[2])
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
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise UserError(f"{str(path)!r}: {info.filename!r} is compressed, which torch never writes; fetch it again")
    with path.open("rb") as file:
        file.seek(info.header_offset)
        head = file.read(30)
    if len(head) < 30 or not head.startswith(b"PK\x03\x04"):
        raise UserError(f"{str(path)!r} is a damaged zip; fetch it again")
    start = info.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    if start + info.file_size > path.stat().st_size:
        raise UserError(f"{str(path)!r} is truncated inside {info.filename!r}; fetch it again")
    return start, info.file_size
