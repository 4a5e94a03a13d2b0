"""Reads the pickles in which this field hands out numbers, without running anything they ask for.

A pickle is a program for a small stack machine, and the stock reader will call whatever that program names. This one
knows plain containers, numpy arrays and torch tensors; any other name is refused and told. Large arrays are not
read: they stay where they are in the file, as `StoredArray`, to be memory-mapped or copied in pieces.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from align.data.stored_array import Payload, StoredArray
from align.errors import UserError

LARGE = 1 << 16  # bytes; what is larger stays in the file
DEPTH = 64  # of containers inside containers
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy")
_MARK = object()


class _Refused(Exception):
    """Why a file is not read, without its name."""


class _Name:
    """A global that the pickle asks for and that is known here."""

    def __init__(self, module: str, name: str) -> None:
        self.text = f"{module}.{name}"


class _Dtype:
    """A numpy dtype under construction: `set_state` gives the byte order."""

    def __init__(self, code: object) -> None:
        text = code.decode("ascii") if isinstance(code, bytes) else code
        if not isinstance(text, str) or text[:1] not in "biufcOSU" or len(text) > 8:
            raise _Refused(f"holds an array of type {text!r}; plain numbers and texts are read")
        self.dtype = np.dtype(text)

    def set_state(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[2] is not None or state[4] is not None:
            raise _Refused("holds an array of records; plain numbers and texts are read")
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "=", "|"):
            raise _Refused(f"holds an array of byte order {order!r}")
        self.dtype = self.dtype.newbyteorder(order)  # type: ignore[arg-type]
        if self.dtype.kind in "SU":  # their size is told apart from their code
            size = state[5]
            if not isinstance(size, int) or not 0 <= size <= LARGE:
                raise _Refused("holds an array of texts of no sensible length")
            self.dtype = np.dtype(f"{order if order in '<>' else '='}{self.dtype.kind}{size // self._width}")

    @property
    def _width(self) -> int:
        return 4 if self.dtype.kind == "U" else 1


def read_pickle(
    path: Path, offset: int = 0, length: int | None = None, storages: Callable[[Any], Any] | None = None
) -> Any:
    """What the pickle at ``offset`` of the file holds: dict, list, tuple, set, numbers, texts, bytes, `StoredArray`.

    ``length``: bytes that belong to it (default: up to the end of the file). ``storages``: turns a persistent id into
    a storage (torch files).

    Raises
    ------
    UserError
        Any name that is not on the list (it is told), a truncated or damaged pickle, nesting beyond `DEPTH`.
    """
    end = path.stat().st_size if length is None else offset + length
    with path.open("rb") as file:
        file.seek(offset)
        try:
            return _finished(_Machine(file, path, end, storages).run(), {}, 0)
        except _Refused as reason:
            raise UserError(f"{str(path)!r} {reason}") from reason
        except (
            EOFError, IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError,
            struct.error, MemoryError,
        ) as error:  # fmt: skip
            text = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{str(path)!r} is a damaged pickle ({text}); fetch or write it again") from error


def _finished(value: Any, done: dict[int, Any], depth: int) -> Any:
    """Containers with their arrays built; shared containers stay shared."""
    if depth > DEPTH:
        raise _Refused(f"nests containers more than {DEPTH} deep")
    if isinstance(value, _Dtype):
        return value.dtype.str
    if isinstance(value, _Name):
        raise _Refused(f"holds the object {value.text}, which is no data")
    if not isinstance(value, dict | list | tuple | StoredArray):
        return value
    if id(value) in done:
        return done[id(value)][1]
    if isinstance(value, StoredArray):
        value.require_complete(_Refused)
        if isinstance(value.payload, list):
            value.payload = _finished(value.payload, done, depth + 1)
        built: Any = value
        done[id(value)] = (value, built)
    elif isinstance(value, dict):
        built = {}
        done[id(value)] = (value, built)
        built.update((key, _finished(item, done, depth + 1)) for key, item in value.items())
    elif isinstance(value, list):
        built = []
        done[id(value)] = (value, built)
        built.extend(_finished(item, done, depth + 1) for item in value)
    else:
        built = tuple(_finished(item, done, depth + 1) for item in value)
        done[id(value)] = (value, built)
    return built


class _Machine:
    """The stack machine. One method per instruction, in `_INSTRUCTIONS`."""

    def __init__(self, file: BinaryIO, path: Path, end: int, storages: Callable[[Any], Any] | None) -> None:
        self.file, self.path, self.end, self.storages = file, path, end, storages
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        while True:
            code = self.read(1)
            if code == b".":
                return self.stack.pop()
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None:
                raise _Refused(f"uses the pickle instruction {code!r}, which is not read")
            instruction(self)

    def read(self, n: int) -> bytes:
        if n < 0 or self.file.tell() + n > self.end:
            raise EOFError("it ends too early")
        return self.file.read(n)

    def line(self) -> bytes:
        text = self.file.readline(self.end - self.file.tell())
        if not text.endswith(b"\n"):
            raise EOFError("a line does not end")
        return text[:-1]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.read(struct.calcsize(form)))[0]

    def payload(self, n: int, text: bool = False) -> Any:
        """``n`` bytes, left in the file when they are many."""
        if n <= LARGE:
            return self.read(n)
        offset = self.file.tell()
        if offset + n > self.end:
            raise EOFError(f"{n} bytes are announced, {self.end - offset} are left")
        self.file.seek(n, 1)
        return Payload(self.path, offset, n, text)

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop_to_mark(self) -> list[Any]:
        for start in range(len(self.stack) - 1, -1, -1):
            if self.stack[start] is _MARK:
                items = self.stack[start + 1 :]
                del self.stack[start:]
                return items
        raise IndexError("no mark on the stack")

    # ------------------------------------------------------------------------------------------------- values

    def unicode(self, n: int) -> None:
        raw = self.payload(n, text=True)
        self.push(raw if isinstance(raw, Payload) else raw.decode("utf-8", "surrogatepass"))

    def text_number(self) -> None:
        text = self.line()
        self.push({b"00": False, b"01": True}[text] if text in (b"00", b"01") else int(text.rstrip(b"L")))

    def long_number(self, n: int) -> None:
        if n > 128:
            raise _Refused("holds a whole number of more than 1,000 bits")
        self.push(int.from_bytes(self.read(n), "little", signed=True))

    def quoted(self) -> None:
        text = self.line()
        if len(text) < 2 or text[:1] not in b"'\"" or text[:1] != text[-1:]:
            raise ValueError("a text is not quoted")
        self.push(codecs.escape_decode(text[1:-1])[0].decode("latin-1"))

    # --------------------------------------------------------------------------------------------- containers

    def set_items(self, pairs: list[Any]) -> None:
        if len(pairs) % 2:
            raise ValueError("a key without a value")
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise TypeError("items for what is no dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            target[_key(key)] = value

    def append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise TypeError("items for what is no list")
        self.stack[-1].extend(items)

    def add(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], set):
            raise TypeError("items for what is no set")
        self.stack[-1].update(_key(item) for item in items)

    def make_dict(self) -> None:
        pairs = self.pop_to_mark()
        self.push({})
        self.set_items(pairs)

    def take(self, n: int) -> None:
        items = self.stack[-n:]
        if len(items) < n or any(item is _MARK for item in items):
            raise IndexError("too few values on the stack")
        del self.stack[-n:]
        self.push(tuple(items))

    # ---------------------------------------------------------------------------------------- names and calls

    def name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name that is no text")
        if (module, name) not in _CALLS and not _is_class(module, name):
            raise _Refused(
                f"asks for {module}.{name}, which can run code, and is refused; store plain arrays (.npy, .safetensors)"
            )
        self.push(_Name(module, name))

    def call(self) -> None:
        arguments = self.stack.pop()
        function = self.stack.pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise _Refused("calls what is no known name")
        module, _, name = function.text.rpartition(".")
        if (module, name) not in _CALLS:
            raise _Refused(f"calls {function.text}, which is refused")
        self.push(_CALLS[module, name](*arguments))

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, _Dtype | StoredArray):
            target.set_state(_arguments(state))
        elif not (isinstance(target, dict) and isinstance(state, dict)):  # an OrderedDict's own attributes are dropped
            raise _Refused(f"sets the state of a {type(target).__name__}, which is refused")

    def persistent(self) -> None:
        if self.storages is None:
            raise _Refused("refers to objects outside of itself, which is refused")
        found = self.storages(_arguments(self.stack.pop()))
        if found is None:
            raise _Refused("refers to a tensor storage of an unknown kind")
        self.push(found)


def _arguments(value: Any) -> Any:
    """Names inside a tuple as texts, dtypes as numpy dtypes."""
    if isinstance(value, tuple):
        return tuple(_arguments(item) for item in value)
    if isinstance(value, _Name):
        return value.text
    return value.dtype if isinstance(value, _Dtype) else value


def _key(value: Any) -> Any:
    allowed = (str, int, float, bytes, bool, type(None))
    if isinstance(value, allowed) or (isinstance(value, tuple) and all(isinstance(v, allowed) for v in value)):
        return value
    raise _Refused(f"has a {type(value).__name__} where a text or number should be (key or member of a set)")


def _is_class(module: str, name: str) -> bool:
    """Names that stand in arguments and are never called."""
    return (module, name) == ("numpy", "ndarray") or (module in ("torch", "torch.storage") and name.endswith("Storage"))


def _new_array(kind: Any, shape: Any = (0,), code: Any = b"b") -> StoredArray:
    return StoredArray()


def _scalar(dtype: Any, raw: Any = None) -> Any:
    if not isinstance(dtype, _Dtype) or dtype.dtype.kind not in "biufcSU" or not isinstance(raw, bytes):
        raise _Refused("holds a numpy scalar of an unknown kind")
    if len(raw) != dtype.dtype.itemsize:
        raise ValueError("a scalar of the wrong size")
    return np.frombuffer(raw, dtype.dtype)[0].item()


def _encoded(text: Any, encoding: Any = "latin1") -> Any:
    """Protocol 2 writes bytes as text; large ones stay in the file."""
    if encoding not in ("latin1", "latin-1"):
        raise _Refused(f"encodes text as {encoding!r}, which is refused")
    return text if isinstance(text, Payload) else text.encode("latin-1")


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> StoredArray:
    if not isinstance(dtype, _Dtype):
        raise TypeError("an array without a dtype")
    return StoredArray.of(shape, dtype.dtype, order == "F", raw)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> StoredArray:
    if not isinstance(storage, StoredArray):
        raise TypeError("a tensor without a storage")
    return storage.tensor(offset, size, stride)


def _plain_set(items: Any = ()) -> set[Any]:
    return {_key(item) for item in items}


_CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    **{(module, "_reconstruct"): _new_array for module in _NUMPY[:2]},
    **{(module, "scalar"): _scalar for module in _NUMPY[:2]},
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "dtype"): lambda code, *_: _Dtype(code),
    ("_codecs", "encode"): _encoded,
    ("collections", "OrderedDict"): lambda pairs=(): {_key(key): value for key, value in pairs},
    **{(module, "set"): _plain_set for module in ("builtins", "__builtin__")},
    **{(module, "frozenset"): _plain_set for module in ("builtins", "__builtin__")},
    **{(module, "bytes"): lambda: b"" for module in ("builtins", "__builtin__")},
    ("builtins", "bytearray"): lambda raw=b"", *how: raw if not how else _encoded(raw, *how),
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
}


def _memoize(m: _Machine, index: int) -> None:
    m.memo[index] = m.stack[-1]


_INSTRUCTIONS: dict[bytes, Callable[[_Machine], Any]] = {
    b"\x80": lambda m: m.read(1),
    b"\x95": lambda m: m.read(8),
    b"0": lambda m: m.stack.pop(),
    b"1": lambda m: m.pop_to_mark(),
    b"(": lambda m: m.push(_MARK),
    b"2": lambda m: m.push(m.stack[-1]),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": _Machine.text_number,
    b"L": _Machine.text_number,
    b"J": lambda m: m.push(m.number("<i")),
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"\x8a": lambda m: m.long_number(m.number("<B")),
    b"\x8b": lambda m: m.long_number(m.number("<i")),
    b"F": lambda m: m.push(float(m.line())),
    b"G": lambda m: m.push(m.number(">d")),
    b"S": _Machine.quoted,
    b"T": lambda m: m.push(m.payload(m.number("<i"))),
    b"U": lambda m: m.push(m.read(m.number("<B"))),
    b"V": lambda m: m.push(m.line().decode("raw-unicode-escape")),
    b"X": lambda m: m.unicode(m.number("<I")),
    b"\x8c": lambda m: m.unicode(m.number("<B")),
    b"\x8d": lambda m: m.unicode(m.number("<Q")),
    b"B": lambda m: m.push(m.payload(m.number("<I"))),
    b"C": lambda m: m.push(m.read(m.number("<B"))),
    b"\x8e": lambda m: m.push(m.payload(m.number("<Q"))),
    b"\x96": lambda m: m.push(m.payload(m.number("<Q"))),
    b"]": lambda m: m.push([]),
    b")": lambda m: m.push(()),
    b"}": lambda m: m.push({}),
    b"\x8f": lambda m: m.push(set()),
    b"a": lambda m: m.append([m.stack.pop()]),
    b"e": lambda m: m.append(m.pop_to_mark()),
    b"l": lambda m: m.push(m.pop_to_mark()),
    b"t": lambda m: m.push(tuple(m.pop_to_mark())),
    b"\x85": lambda m: m.take(1),
    b"\x86": lambda m: m.take(2),
    b"\x87": lambda m: m.take(3),
    b"d": _Machine.make_dict,
    b"s": lambda m: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    b"u": lambda m: m.set_items(m.pop_to_mark()),
    b"\x90": lambda m: m.add(m.pop_to_mark()),
    b"\x91": lambda m: m.push(_plain_set(m.pop_to_mark())),
    b"g": lambda m: m.push(m.memo[int(m.line())]),
    b"h": lambda m: m.push(m.memo[m.number("<B")]),
    b"j": lambda m: m.push(m.memo[m.number("<I")]),
    b"p": lambda m: _memoize(m, int(m.line())),
    b"q": lambda m: _memoize(m, m.number("<B")),
    b"r": lambda m: _memoize(m, m.number("<I")),
    b"\x94": lambda m: _memoize(m, len(m.memo)),
    b"c": lambda m: m.name(m.line().decode("utf-8"), m.line().decode("utf-8")),
    b"\x93": lambda m: m.name(*[m.stack.pop(-2), m.stack.pop()]),
    b"R": _Machine.call,
    b"\x81": _Machine.call,
    b"b": _Machine.build,
    b"Q": _Machine.persistent,
}
