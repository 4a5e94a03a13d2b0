"""JSON that somebody else may have written: its size, its nesting, its numbers, and the shape its content must have.

A shape is a plain value: ``str``, ``int``, ``float`` (finite, whole numbers too), ``bool``, ``object`` (anything);
``[shape]`` a list; ``{str: shape}`` an object with any keys; ``{"key": shape, "other?": shape}`` an object with at
least these keys, those with a question mark may be missing; ``(shape, None)`` one of several.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from align.errors import UserError

DEEPEST = 100  # lists and objects inside each other
LONGEST_NUMBER = 400  # digits
_NAMES = {str: "text", int: "a whole number", float: "a finite number", bool: "true or false", dict: "an object"}


def parse_json(text: str, source: str, shape: Any = object, finite: bool = True) -> Any:
    """The content of ``text``; ``source`` names it in messages. ``finite`` False: NaN and infinity pass where no shape
    forbids them, as other libraries write them.

    Raises `UserError` for text that is no JSON, nested too deep, or with numbers that are not finite, and where the
    content has not the ``shape``.
    """
    try:
        refuse: dict[str, Any] = {"parse_constant": _not_finite, "parse_float": _finite} if finite else {}
        content = json.loads(text, parse_int=_whole, **refuse)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source} is not valid JSON: {error}") from error
    if _depth(content) > DEEPEST:
        raise UserError(f"{source} is nested deeper than {DEEPEST} levels; nothing here writes such a file")
    require(content, shape, source)
    return content


def require(content: Any, shape: Any, source: str) -> None:
    """Raise `UserError` that names ``source`` and the first field whose content has not the ``shape``."""
    for fault in _faults(content, shape, ""):
        raise UserError(f"{source}: {fault}; it is damaged or of another program")


@contextmanager
def reading(source: str) -> Iterator[None]:
    """Turn what goes wrong inside the block, because a file does not hold what it should, into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError, RecursionError, csv.Error) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise UserError(f"{source} is damaged or of another program ({reason})") from error
    except (RuntimeError, MemoryError) as error:  # torch: shapes that do not fit, memory that cannot be had
        reason = " ".join(str(error).split())[:160] or "out of memory"
        raise UserError(f"{source} cannot be used ({reason})") from error


def _not_finite(text: str) -> Any:
    raise ValueError(f"{text} is no finite number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _not_finite(text[:40])


def _whole(text: str) -> int:
    if len(text) <= LONGEST_NUMBER and abs(float(text)) < math.inf:
        return int(text)
    raise ValueError(f"{text[:10]}... is a whole number of {len(text)} digits, too large to be used")


def _depth(content: Any) -> int:
    """How many lists and objects lie inside each other, counted level by level."""
    depth, level = 0, [content]
    while level := [
        inner for one in level if isinstance(one, dict | list) for inner in (one.values() if type(one) is dict else one)
    ]:
        depth += 1
        if depth > DEEPEST:
            break
    return depth


def _faults(content: Any, shape: Any, at: str) -> Iterator[str]:
    where = at or "its content"
    if isinstance(shape, tuple):
        if not any(one is content if one is None else not any(_faults(content, one, at)) for one in shape):
            yield f"{where} is {_shown(content)} instead of {' or '.join(map(_named, shape))}"
    elif isinstance(shape, list):
        if not isinstance(content, list):
            yield f"{where} is {_shown(content)} instead of a list"
        else:
            for k, item in enumerate(content):
                yield from _faults(item, shape[0], f"{at}[{k}]")
    elif isinstance(shape, dict):
        yield from _object_faults(content, shape, at)
    elif not _is(content, shape):
        yield f"{where} is {_shown(content)} instead of {_named(shape)}"


def _object_faults(content: Any, shape: dict[Any, Any], at: str) -> Iterator[str]:
    if not isinstance(content, dict):
        yield f"{at or 'its content'} is {_shown(content)} instead of an object"
        return
    for key, inner in shape.items():
        if key is str:
            for name, value in content.items():
                yield from _faults(value, inner, f"{at}.{name}".lstrip("."))
            continue
        name = key.removesuffix("?")
        if name in content:
            yield from _faults(content[name], inner, f"{at}.{name}".lstrip("."))
        elif not key.endswith("?"):
            yield f"{f'{at}.{name}'.lstrip('.')} is missing"


def _is(content: Any, kind: type) -> bool:
    if kind in (int, float):
        number = isinstance(content, int if kind is int else int | float) and not isinstance(content, bool)
        return number and math.isfinite(content)
    return isinstance(content, kind)


def _named(shape: Any) -> str:
    if shape is None:
        return "null"
    if isinstance(shape, list):
        return "a list"
    return "an object" if isinstance(shape, dict) else _NAMES.get(shape, "anything")


def _shown(content: Any) -> str:
    kinds = {dict: "an object", list: "a list", type(None): "null"}
    return kinds.get(type(content)) or f"{str(content)[:40]!r}"
