"""What a field of a configuration may hold, declared in its type: ``width: Count = 512``.

A check is metadata of `typing.Annotated`, so it stands beside the field and nowhere else. Every section of a
configuration is a dataclass that inherits `Checked`; its ``check()`` looks at every field of the tree, and then at the
rules that concern several fields (``faults``). The first fault is raised as one line.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

from align.errors import UserError
from align.files import no_file


class Check:
    """One thing that a value must fulfil."""

    def fault(self, value: Any) -> str | None:
        """What is wrong, in words that follow ``key=value``; None where nothing is."""
        raise NotImplementedError


class Anything(Check):
    """Every value may be right: only the data, the model or the file system can tell."""

    def fault(self, value: Any) -> str | None:
        return None


class OneOf(Check):
    """One of the names given; the message has the nearest one and all of them.

    ``unlisted``: names that are taken too, but that nobody is to type. ``prefixes``: beginnings of names that are
    looked up elsewhere, what follows being an identifier.
    """

    def __init__(self, *choices: str, unlisted: tuple[str, ...] = (), prefixes: tuple[str, ...] = ()) -> None:
        self.choices, self.unlisted, self.prefixes = choices, unlisted, prefixes

    def fault(self, value: Any) -> str | None:
        if value in (*self.choices, *self.unlisted):
            return None
        if any(str(value).startswith(prefix) for prefix in self.prefixes):
            name = str(value).partition(":")[2]
            return None if name.isidentifier() else "names no class after the colon"
        near = difflib.get_close_matches(str(value), self.choices, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"is not known; {hint}Known: {', '.join(self.choices)}"


class Within(Check):
    """A finite number from ``least`` to ``most``, or ``above`` the one and ``below`` the other; None = no bound."""

    def __init__(
        self,
        least: float | None = None,
        most: float | None = None,
        *,
        above: float | None = None,
        below: float | None = None,
    ) -> None:
        self.least, self.most, self.above, self.below = least, most, above, below

    def fault(self, value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return "is not a number"
        fits = (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )
        return None if fits else f"should be {self._bounds()}"

    def _bounds(self) -> str:
        low = f"{self.least:g} or more" if self.least is not None else ""
        low = f"above {self.above:g}" if self.above is not None else low
        high = f"at most {self.most:g}" if self.most is not None else ""
        high = f"below {self.below:g}" if self.below is not None else high
        return " and ".join(part for part in (low, high) if part)


class Matches(Check):
    """Text that a regular expression fits as a whole; ``wanted`` says in words what that is."""

    def __init__(self, pattern: str, wanted: str) -> None:
        self.pattern, self.wanted = re.compile(pattern), wanted

    def fault(self, value: Any) -> str | None:
        return None if self.pattern.fullmatch(str(value)) else f"is not {self.wanted}"


class Read(Check):
    """Text that a function can read, one that raises `UserError` otherwise."""

    def __init__(self, reader: Callable[[str], Any]) -> None:
        self.reader = reader

    def fault(self, value: Any) -> str | None:
        try:
            self.reader(value)
        except UserError as error:
            return f"cannot be used: {error}"
        return None


class Exists(Check):
    """A file or folder that is there; looked for when a configuration is loaded, not when a stored one is used."""

    def fault(self, value: Any) -> str | None:
        path = Path(value).expanduser()
        try:
            path.stat()
        except (OSError, ValueError):
            return no_file(path)
        return None


class Filled(Check):
    """A list with at least one entry."""

    def fault(self, value: Any) -> str | None:
        return None if len(value) else "is empty; give one or more"


Text = Annotated[str, Anything()]
Place = Annotated[str, Anything()]  # a file or folder that may be made later
Source = Annotated[str, Exists()]  # a file or folder that is read
Number = Annotated[float, Within()]
Count = Annotated[int, Within(1)]
Whole = Annotated[int, Within(0)]
MOST_DRAWS, LARGEST_SEED = 1_000_000, 2**32 - 1  # more memory than there is; numpy takes no larger seed
Draws = Annotated[int, Within(1, MOST_DRAWS)]  # of a bootstrap or a permutation test
Seed = Annotated[int, Within(0, LARGEST_SEED)]
Share = Annotated[float, Within(0, 1)]
BelowOne = Annotated[float, Within(0, below=1)]
Weight = Annotated[float, Within(0)]
Positive = Annotated[float, Within(above=0)]


class Checked:
    """A section of a configuration: a dataclass whose fields declare what they may hold.

    ``notes``: names of blocks of a YAML file that are for readers and not part of the configuration.
    ``remarks``: dotted field that says how others were found, with those others: see `align.fields.loading`.
    ``carried``: the same field, with those that say on which data, and what it is called when these change.
    """

    notes: ClassVar[tuple[str, ...]] = ()
    remarks: ClassVar[dict[str, tuple[str, ...]]] = {}
    carried: ClassVar[dict[str, dict[str, str]]] = {}

    def check(self, at: str = "", files: bool = False) -> None:
        """Raise `UserError` for the first field, or rule on several fields, that does not hold.

        ``at``: the name of this section with its dot, such as ``train.``; sections inside are checked too. ``files``:
        also look whether the files that are to be read exist.
        """
        for fault in _faults(self, at, files):
            raise UserError(fault)

    def faults(self, at: str) -> Iterator[str]:
        """Sentences on what does not go together; asked only where every field by itself is right."""
        yield from ()


_HINTS: dict[type, dict[str, Any]] = {}
_TYPES: dict[type, dict[str, Any]] = {}


def hints_of(section: type) -> dict[str, Any]:
    """The declared type of every field of a dataclass, checks included; looked up once."""
    if section not in _HINTS:
        hints = typing.get_type_hints(section, include_extras=True)
        _HINTS[section] = {item.name: hints[item.name] for item in dataclasses.fields(section)}
    return _HINTS[section]


def types_of(section: type) -> dict[str, Any]:
    """The declared type of every field of a dataclass, without the checks; looked up once."""
    if section not in _TYPES:
        _TYPES[section] = typing.get_type_hints(section)
    return _TYPES[section]


def is_declared(hint: Any) -> bool:
    """Whether a field of this type says what it may hold: by a check, `Anything`, or being true or false."""
    if isinstance(hint, type) and issubclass(hint, Checked):
        return True
    if typing.get_origin(hint) is Annotated and any(isinstance(one, Check) for one in hint.__metadata__):
        inner = typing.get_args(hint)[0]
        return typing.get_origin(inner) is not list or is_declared(inner)
    if typing.get_origin(hint) in (list, typing.Union, types.UnionType):
        return all(is_declared(part) for part in typing.get_args(hint) if part is not type(None))
    return hint is bool


def _faults(section: Any, at: str, files: bool) -> Iterator[str]:
    """Faults of the fields of a section and of those inside it, then of its own rules."""
    for name, hint in hints_of(type(section)).items():
        value = getattr(section, name)
        if isinstance(value, Checked):
            yield from _faults(value, f"{at}{name}.", files)
        else:
            yield from _faults_of(value, hint, f"{at}{name}", files)
    yield from section.faults(at)


def _faults_of(value: Any, hint: Any, key: str, files: bool) -> Iterator[str]:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is not None:
            yield from _faults_of(value, next(part for part in parts if part is not type(None)), key, files)
    elif origin is Annotated:
        for check in parts[1:]:
            looked_at = isinstance(check, Check) and (files or not isinstance(check, Exists))
            fault = check.fault(value) if looked_at else None
            if fault:
                yield f"{key}={_shown(value)} {fault}"
        yield from _faults_of(value, parts[0], key, files)
    elif origin is list:
        for item in value:
            yield from _faults_of(item, parts[0], key, files)
    elif hint is bool and not isinstance(value, bool):
        yield f"{key}={value!r} is not true or false"


def _shown(value: Any) -> str:
    """A value as it is written in a configuration; text in quotes."""
    if isinstance(value, list):
        return f"[{','.join(str(item) for item in value)}]"
    return f"{value:g}" if isinstance(value, float) else repr(value)


def require_draws(n_boot: int, n_perm: int, seed: int) -> None:
    """Raise `UserError` for numbers of draws below 0 or beyond all memory, and for a seed that numpy does not take."""
    limits = {"n_boot": (n_boot, MOST_DRAWS), "n_perm": (n_perm, MOST_DRAWS), "seed": (seed, LARGEST_SEED)}
    for name, (value, most) in limits.items():
        fault = Within(0, most).fault(int(value))
        if fault:
            raise UserError(f"{name}={value!r} {fault}")
