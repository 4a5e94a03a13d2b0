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

from align.data.reading.pickle_names import CALLS, LARGE, Dtype, Name, Refused, is_class, key_of, plain_set, shown
from align.data.reading.stored_array import Payload, StoredArray
from align.errors import UserError

LONGEST_LINE = 1 << 20  # bytes of a number or text written as a line (protocol 0)
DEPTH = 64  # of containers inside containers
MOST = 2_000_000  # instructions in a file, and values in it when what is shared is counted each time it is used
_QUOTED = re.compile(rb"(?:[^\\]|\\(?:[\\'\"nrtabfv]|x[0-9a-fA-F]{2}))*", re.DOTALL)
_MARK = object()


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
        except Refused as reason:
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
    if isinstance(value, Dtype):
        return value.dtype.str, 1, 0
    if isinstance(value, Name):
        raise Refused(f"holds the object {shown(value.text)}, which is no data")
    if isinstance(value, Payload):
        raise Refused(f"holds {value.length} bytes outside an array, which are not read; store them as uint8")
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | set):
        return value, 1, 0
    if id(value) in done:
        known = done[id(value)][1]
        if known is None:
            raise Refused("holds a container that contains itself, which is refused")
        return known
    if depth > DEPTH:
        raise Refused(f"nests containers more than {DEPTH} deep")
    done[id(value)] = (value, None)
    built, parts = _parts(value, done, depth + 1)
    number, height = 1, 0
    for part in parts:
        number, height = number + part[1], max(height, part[2] + 1)
    if height > DEPTH or number > MOST:
        raise Refused(f"nests containers more than {DEPTH} deep or {MOST} values wide; store plain arrays")
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
        raise Refused("ends in the middle of a container")
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
                raise Refused(f"uses the pickle instruction {code!r}, which is not read")
            instruction(self)
        raise Refused(f"holds more than {MOST} values one by one; store plain arrays (.npy, .safetensors)")

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
            raise Refused("holds a whole number of more than 1,000 bits")
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
            target[key_of(key)] = value

    def append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise TypeError("items for what is no list")
        self.stack[-1].extend(items)

    def add(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], set):
            raise TypeError("items for what is no set")
        self.stack[-1].update(key_of(item) for item in items)

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
        if (module, name) not in CALLS and not is_class(module, name):
            raise Refused(
                f"asks for {shown(f'{module}.{name}')}, which can run code, and is refused; "
                "store plain arrays (.npy, .safetensors)"
            )
        self.push(Name(module, name))

    def call(self) -> None:
        arguments = self.stack.pop()
        function = self.stack.pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise Refused("calls what is no known name, which is refused")
        module, _, name = function.text.rpartition(".")
        if (module, name) not in CALLS:
            raise Refused(f"calls {shown(function.text)}, which is refused")
        self.push(CALLS[module, name](*arguments))

    def build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Dtype | StoredArray):
            target.set_state(_arguments(state))
        elif not (isinstance(target, dict) and isinstance(state, dict)):  # an OrderedDict's own attributes are dropped
            raise Refused(f"sets the state of a {type(target).__name__}, which is refused")

    def persistent(self) -> None:
        if self.storages is None:
            raise Refused("refers to objects outside of itself, which is refused")
        found = self.storages(_arguments(self.stack.pop()))
        if found is None:
            raise Refused("refers to a tensor storage of an unknown kind")
        self.push(found)


def _arguments(value: Any) -> Any:
    """Names in a tuple as texts, dtypes as numpy dtypes (not deeper: the arguments of a stranger may be a maze)."""
    if not isinstance(value, tuple):
        raise TypeError("arguments that are no tuple")
    plain = [item.text if isinstance(item, Name) else item for item in value]
    return tuple(item.dtype if isinstance(item, Dtype) else item for item in plain)


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
    b"\x91": lambda m: m.push(plain_set(m.pop_to_mark())),
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
