"""The names that a pickle may ask for, and what stands in for each: nothing that a file brings is ever called.

Large arrays become `StoredArray`, which leaves their numbers in the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from align.data.reading.stored_array import Payload, StoredArray

LARGE = 1 << 16  # bytes; what is larger stays in the file
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
_TYPES = re.compile(r"[biu][1248]|f[248]|c(8|16)|[OSU]\d{0,5}")


class Refused(Exception):
    """Why a file is not read, without its name."""


class Name:
    """A global that the pickle asks for and that is known here."""

    def __init__(self, module: str, name: str) -> None:
        self.text = f"{module}.{name}"


class Dtype:
    """A numpy dtype under construction: `set_state` gives the byte order."""

    def __init__(self, code: object) -> None:
        text = text_of(code)
        if not _TYPES.fullmatch(text):
            raise Refused(f"holds an array of type {shown(text)}; plain numbers and texts are read")
        self.dtype = np.dtype(text)

    def set_state(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 7 or any(part is not None for part in state[2:5]):
            raise Refused("holds an array of records; plain numbers and texts are read")
        order = text_of(state[1])
        if order not in ("<", ">", "=", "|"):
            raise Refused(f"holds an array of byte order {shown(order)}")
        self.dtype = self.dtype.newbyteorder(order)  # type: ignore[arg-type]
        if self.dtype.kind in "SU":  # their size is told apart from their code
            size, width = state[5], 4 if self.dtype.kind == "U" else 1
            if type(size) is not int or not 0 < size <= LARGE or size % width:
                raise Refused("holds an array of texts of no sensible length")
            self.dtype = np.dtype(f"{order if order in '<>' else '='}{self.dtype.kind}{size // width}")


def text_of(value: Any) -> str:
    if not isinstance(value, str | bytes):
        raise TypeError(f"a {type(value).__name__} where a text should be")
    return value if isinstance(value, str) else value.decode("ascii")


def shown(text: str) -> str:
    """A stranger's text, short and without control signs."""
    short = text if len(text) <= 80 else text[:77] + "..."
    return short if short.isprintable() else ascii(short)


def key_of(value: Any) -> Any:
    """A key or member of a set: text or bytes, or a number of 8 bytes (large ones can be made to collide)."""
    if isinstance(value, str | bytes | float | None) or (isinstance(value, int) and abs(value) < 1 << 60):
        return value
    raise Refused(f"has a {type(value).__name__} where a text or number should be (key or member of a set)")


def is_class(module: str, name: str) -> bool:
    """Names that stand in arguments and are never called."""
    return (module, name) == ("numpy", "ndarray") or (module in ("torch", "torch.storage") and name.endswith("Storage"))


def _new_array(kind: Any, shape: Any = (0,), code: Any = b"b") -> StoredArray:
    if not isinstance(kind, Name) or kind.text != "numpy.ndarray":
        raise Refused("holds an array of a class of its own, which is refused")
    return StoredArray()


def _scalar(dtype: Any, raw: Any = None) -> Any:
    if not isinstance(dtype, Dtype) or dtype.dtype.kind == "O" or not isinstance(raw, bytes | str):
        raise Refused("holds a numpy scalar of an unknown kind")
    return StoredArray.of((), dtype.dtype, False, raw).open().item()


def _encoded(text: Any, encoding: Any = "latin1") -> Any:
    """Protocol 2 writes bytes as text; large ones stay in the file."""
    if text_of(encoding) not in ("latin1", "latin-1"):
        raise Refused(f"encodes text as {shown(text_of(encoding))}, which is refused")
    return text if isinstance(text, Payload) and text.text else text.encode("latin-1")


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> StoredArray:
    if not isinstance(dtype, Dtype) or order not in ("C", "F") or not isinstance(raw, bytes | Payload):
        raise TypeError("an array of an unknown form")
    return StoredArray.of(shape, dtype.dtype, order == "F", raw)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> StoredArray:
    if not isinstance(storage, StoredArray):
        raise TypeError("a tensor without a storage")
    if rest[2:] and rest[2]:  # negation and conjugation that are still to be done
        raise Refused("holds a tensor that is a view of another; store it with .clone()")
    return storage.tensor(offset, size, stride)


def plain_set(items: Any = ()) -> set[Any]:
    if not isinstance(items, list | tuple):
        raise TypeError("a set of what is no list")
    return {key_of(item) for item in items}


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    if not isinstance(pairs, list | tuple) or not all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs):
        raise TypeError("a dict of what are no pairs")
    return {key_of(key): value for key, value in pairs}


def _bytearray(raw: Any = b"", *encoding: Any) -> Any:
    if encoding:
        return _encoded(raw, *encoding)
    if not isinstance(raw, bytes | Payload):
        raise TypeError(f"a bytearray of a {type(raw).__name__}")
    return raw


CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    **{(module, "_reconstruct"): _new_array for module in _NUMPY},
    **{(module, "scalar"): _scalar for module in _NUMPY},
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "dtype"): lambda code, *_: Dtype(code),
    ("_codecs", "encode"): _encoded,
    ("collections", "OrderedDict"): _ordered,
    **{(module, "set"): plain_set for module in ("builtins", "__builtin__")},
    **{(module, "frozenset"): plain_set for module in ("builtins", "__builtin__")},
    **{(module, "bytes"): lambda: b"" for module in ("builtins", "__builtin__")},
    **{(module, "bytearray"): _bytearray for module in ("builtins", "__builtin__")},
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
}
