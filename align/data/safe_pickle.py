"""Reads the pickles in which this field hands out numbers, without running anything they ask for.

A pickle is a program for a small stack machine, and the stock reader will call whatever that program names. This one
knows plain containers, numpy arrays and torch tensors; any other name is refused and told. Large arrays are not
read: they stay where they are in the file, as `StoredArray`, to be memory-mapped or copied in pieces.
"""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from align.data.stored_array import Payload, StoredArray
from align.errors import UserError

LARGE = 1 << 16  # bytes; what is larger stays in the file
LONGEST_LINE = 1 << 20  # bytes of a number or text written as a line (protocol 0)
DEPTH = 64  # of containers inside containers
MOST = 2_000_000  # instructions in a file, and values in it when what is shared is counted each time it is used
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
_TYPES = re.compile(r"[biu][1248]|f[248]|c(8|16)|[OSU]\d{0,5}")
_QUOTED = re.compile(rb"(?:[^\\]|\\(?:[\\'\"nrtabfv]|x[0-9a-fA-F]{2}))*", re.DOTALL)
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
        text = _text(code)
        if not _TYPES.fullmatch(text):
            raise _Refused(f"holds an array of type {_shown(text)}; plain numbers and texts are read")
        self.dtype = np.dtype(text)

    def set_state(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 7 or any(part is not None for part in state[2:5]):
            raise _Refused("holds an array of records; plain numbers and texts are read")
        order = _text(state[1])
        if order not in ("<", ">", "=", "|"):
            raise _Refused(f"holds an array of byte order {_shown(order)}")
        self.dtype = self.dtype.newbyteorder(order)  # type: ignore[arg-type]
        if self.dtype.kind in "SU":  # their size is told apart from their code
            size, width = state[5], 4 if self.dtype.kind == "U" else 1
            if type(size) is not int or not 0 < size <= LARGE or size % width:
                raise _Refused("holds an array of texts of no sensible length")
            self.dtype = np.dtype(f"{order if order in '<>' else '='}{self.dtype.kind}{size // width}")


def read_pickle(
    path: Path, offset: int = 0, length: int | None = None, storages: Callable[[Any], Any] | None = None
) -> Any:
    """What the pickle at ``offset`` of the file holds: dict, list, tuple, set, numbers, texts, bytes, `StoredArray`.

    ``length``: bytes that belong to it (default: up to the end of the file). ``storages``: turns a persistent id into
    a storage (torch files).

    Raises
    ------
    UserError
        Any name that is not on the list (it is told), a truncated or damaged pickle, nesting beyond `DEPTH`, a
        container that holds itself, more than `MOST` values.
    """
    end = path.stat().st_size if length is None else offset + length
    with path.open("rb") as file:
        file.seek(offset)
        try:
            return _finished(_Machine(file, path, end, storages).run(), {})[0]
        except _Refused as reason:
            raise UserError(f"{str(path)!r} {reason}") from reason
        except (
            EOFError, IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError,
            struct.error, MemoryError,
        ) as error:  # fmt: skip
            text = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"{str(path)!r} is a damaged pickle ({text}); fetch or write it again") from error


_Done = dict[int, tuple[Any, tuple[Any, int, int] | None]]


def _finished(value: Any, done: _Done, depth: int = 0) -> tuple[Any, int, int]:
    """(value with its arrays built, number of values in it, height); shared containers stay shared.

    Few bytes can share containers so that whoever walks the value never ends: the number counts them each time.
    """
    if isinstance(value, _Dtype):
        return value.dtype.str, 1, 0
    if isinstance(value, _Name):
        raise _Refused(f"holds the object {_shown(value.text)}, which is no data")
    if isinstance(value, Payload):
        raise _Refused(f"holds {value.length} bytes outside an array, which are not read; store them as uint8")
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | set):
        return value, 1, 0
    if id(value) in done:
        known = done[id(value)][1]
        if known is None:
            raise _Refused("holds a container that contains itself, which is refused")
        return known
    if depth > DEPTH:
        raise _Refused(f"nests containers more than {DEPTH} deep")
    done[id(value)] = (value, None)
    built, parts = _parts(value, done, depth + 1)
    number, height = 1, 0
    for part in parts:
        number, height = number + part[1], max(height, part[2] + 1)
    if height > DEPTH or number > MOST:
        raise _Refused(f"nests containers more than {DEPTH} deep or {MOST} values wide; store plain arrays")
    done[id(value)] = (value, (built, number, height))
    return built, number, height


def _parts(value: Any, done: _Done, depth: int) -> tuple[Any, list[tuple[Any, int, int]]]:
    """A container with its parts finished, and the parts."""
    if isinstance(value, StoredArray):
        parts = []
        if isinstance(value.payload, list):
            parts = [_finished(item, done, depth) for item in value.payload]
            value.payload = [part[0] for part in parts]
        value.require_complete()
        return value, parts
    if isinstance(value, dict):
        parts = [_finished(item, done, depth) for item in value.values()]
        return dict(zip(value, [part[0] for part in parts], strict=True)), parts
    if not isinstance(value, list | tuple):
        raise _Refused("ends in the middle of a container")
    parts = [_finished(item, done, depth) for item in value]
    return type(value)(part[0] for part in parts), parts


class _Machine:
    """The stack machine. One method per instruction, in `_INSTRUCTIONS`."""

    def __init__(self, file: BinaryIO, path: Path, end: int, storages: Callable[[Any], Any] | None) -> None:
        self.file, self.path, self.end, self.storages = file, path, end, storages
        self.at = file.tell()  # kept here, since asking the file each time costs more than everything else
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MOST):
            code = self.read(1)
            if code == b".":
                return self.stack.pop()
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None:
                raise _Refused(f"uses the pickle instruction {code!r}, which is not read")
            instruction(self)
        raise _Refused(f"holds more than {MOST} values one by one; store plain arrays (.npy, .safetensors)")

    def read(self, n: int) -> bytes:
        raw = self.file.read(n) if 0 <= n <= self.end - self.at else b""
        if len(raw) != n:
            raise EOFError("it ends too early")
        self.at += n
        return raw

    def line(self) -> bytes:
        text = self.file.readline(min(LONGEST_LINE, self.end - self.at))
        self.at += len(text)
        if not text.endswith(b"\n"):
            raise EOFError("a line does not end")
        return text[:-1]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.read(struct.calcsize(form)))[0]

    def payload(self, n: int, text: bool = False) -> Any:
        """``n`` bytes, left in the file when they are many."""
        if n <= LARGE:
            return self.read(n)
        if n > self.end - self.at:
            raise EOFError(f"{n} bytes are announced, {self.end - self.at} are left")
        self.at += n
        self.file.seek(self.at)
        return Payload(self.path, self.at - n, n, text)

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
        self.push(raw if isinstance(raw, Payload) else raw.decode("utf-8"))

    def old_text(self, n: int) -> None:
        """A text of Python 2, whose bytes are read as latin-1."""
        raw = self.payload(n)
        self.push(raw if isinstance(raw, Payload) else raw.decode("latin-1"))

    def text_number(self) -> None:
        text = self.line()
        self.push({b"00": False, b"01": True}[text] if text in (b"00", b"01") else int(text.rstrip(b"L")))

    def long_number(self, n: int) -> None:
        if n > 128:
            raise _Refused("holds a whole number of more than 1,000 bits")
        self.push(int.from_bytes(self.read(n), "little", signed=True))

    def quoted(self) -> None:
        text = self.line()
        if len(text) < 2 or text[:1] not in b"'\"" or text[:1] != text[-1:] or not _QUOTED.fullmatch(text[1:-1]):
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
                f"asks for {_shown(f'{module}.{name}')}, which can run code, and is refused; "
                "store plain arrays (.npy, .safetensors)"
            )
        self.push(_Name(module, name))

    def call(self) -> None:
        arguments = self.stack.pop()
        function = self.stack.pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise _Refused("calls what is no known name, which is refused")
        module, _, name = function.text.rpartition(".")
        if (module, name) not in _CALLS:
            raise _Refused(f"calls {_shown(function.text)}, which is refused")
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
    """Names in a tuple as texts, dtypes as numpy dtypes (not deeper: the arguments of a stranger may be a maze)."""
    if not isinstance(value, tuple):
        raise TypeError("arguments that are no tuple")
    plain = [item.text if isinstance(item, _Name) else item for item in value]
    return tuple(item.dtype if isinstance(item, _Dtype) else item for item in plain)


def _text(value: Any) -> str:
    if not isinstance(value, str | bytes):
        raise TypeError(f"a {type(value).__name__} where a text should be")
    return value if isinstance(value, str) else value.decode("ascii")


def _shown(text: str) -> str:
    """A stranger's text, short and without control signs."""
    short = text if len(text) <= 80 else text[:77] + "..."
    return short if short.isprintable() else ascii(short)


def _key(value: Any) -> Any:
    """A key or member of a set: text or bytes, or a number of 8 bytes (large ones can be made to collide)."""
    if isinstance(value, str | bytes | float | None) or (isinstance(value, int) and abs(value) < 1 << 60):
        return value
    raise _Refused(f"has a {type(value).__name__} where a text or number should be (key or member of a set)")


def _is_class(module: str, name: str) -> bool:
    """Names that stand in arguments and are never called."""
    return (module, name) == ("numpy", "ndarray") or (module in ("torch", "torch.storage") and name.endswith("Storage"))


def _new_array(kind: Any, shape: Any = (0,), code: Any = b"b") -> StoredArray:
    if not isinstance(kind, _Name) or kind.text != "numpy.ndarray":
        raise _Refused("holds an array of a class of its own, which is refused")
    return StoredArray()


def _scalar(dtype: Any, raw: Any = None) -> Any:
    if not isinstance(dtype, _Dtype) or dtype.dtype.kind == "O" or not isinstance(raw, bytes | str):
        raise _Refused("holds a numpy scalar of an unknown kind")
    return StoredArray.of((), dtype.dtype, False, raw).open().item()


def _encoded(text: Any, encoding: Any = "latin1") -> Any:
    """Protocol 2 writes bytes as text; large ones stay in the file."""
    if _text(encoding) not in ("latin1", "latin-1"):
        raise _Refused(f"encodes text as {_shown(_text(encoding))}, which is refused")
    return text if isinstance(text, Payload) and text.text else text.encode("latin-1")


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> StoredArray:
    if not isinstance(dtype, _Dtype) or order not in ("C", "F") or not isinstance(raw, bytes | Payload):
        raise TypeError("an array of an unknown form")
    return StoredArray.of(shape, dtype.dtype, order == "F", raw)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> StoredArray:
    if not isinstance(storage, StoredArray):
        raise TypeError("a tensor without a storage")
    if rest[2:] and rest[2]:  # negation and conjugation that are still to be done
        raise _Refused("holds a tensor that is a view of another; store it with .clone()")
    return storage.tensor(offset, size, stride)


def _plain_set(items: Any = ()) -> set[Any]:
    if not isinstance(items, list | tuple):
        raise TypeError("a set of what is no list")
    return {_key(item) for item in items}


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    if not isinstance(pairs, list | tuple) or not all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs):
        raise TypeError("a dict of what are no pairs")
    return {_key(key): value for key, value in pairs}


def _bytearray(raw: Any = b"", *encoding: Any) -> Any:
    if encoding:
        return _encoded(raw, *encoding)
    if not isinstance(raw, bytes | Payload):
        raise TypeError(f"a bytearray of a {type(raw).__name__}")
    return raw


_CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    **{(module, "_reconstruct"): _new_array for module in _NUMPY[:2]},
    **{(module, "scalar"): _scalar for module in _NUMPY[:2]},
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "dtype"): lambda code, *_: _Dtype(code),
    ("_codecs", "encode"): _encoded,
    ("collections", "OrderedDict"): _ordered,
    **{(module, "set"): _plain_set for module in ("builtins", "__builtin__")},
    **{(module, "frozenset"): _plain_set for module in ("builtins", "__builtin__")},
    **{(module, "bytes"): lambda: b"" for module in ("builtins", "__builtin__")},
    **{(module, "bytearray"): _bytearray for module in ("builtins", "__builtin__")},
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
    b"T": lambda m: m.old_text(m.number("<i")),
    b"U": lambda m: m.old_text(m.number("<B")),
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
