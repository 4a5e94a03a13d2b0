"""Limits of what may stand behind an option, the same for every command: seeds, counts, numbers, files to write."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from align.fields.checks import LARGEST_SEED, MOST_DRAWS

LARGEST = MOST_DRAWS  # of draws, permutations, pictures of one stimulus, steps
_RUNS_OVER = ("pictures", "cell", "reported", "mask_value")  # sizes of studies, numbers of cells, values of others


def require_sensible(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with one line (exit code 2) for a number or file name that no command can do anything with."""
    for option, value in _given(parser, args):
        fault = _fault(option, value)
        if fault:
            parser.error(f"argument {'/'.join(option.option_strings) or option.dest}: {_brief(value)} {fault}")


def _given(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Iterator[tuple[argparse.Action, Any]]:
    """Every option of the command (and of its action) with each of its values."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            if (named := getattr(args, action.dest, None)) in action.choices:
                yield from _given(action.choices[named], args)
            continue
        found = getattr(args, action.dest, None)
        for value in found if isinstance(found, list) else [found]:
            if value is not None:
                yield action, value


def _fault(option: argparse.Action, value: Any) -> str | None:
    if isinstance(value, str | Path) and "\0" in str(value):
        return "holds a NUL byte"
    if isinstance(value, Path) and option.dest == "out":
        return _fault_of_place(option, value)
    if isinstance(value, float) and not math.isfinite(value):
        return "is no finite number"
    if isinstance(value, bool) or not isinstance(value, int) or option.dest in _RUNS_OVER:
        return None
    if "seed" in option.dest:
        return None if 0 <= value <= LARGEST_SEED else f"is no seed; it goes from 0 to {LARGEST_SEED}"
    return None if value <= LARGEST else f"is too large; at most {LARGEST}"


def _fault_of_place(option: argparse.Action, place: Path) -> str | None:
    """What is wrong with it that can be seen; a name that is too long is left to the writer, who says so."""
    if str(option.metavar or "").startswith("FILE"):
        return "is a folder; pass the name of a file" if os.path.isdir(place) or not place.name else None
    return "is a file; pass a folder" if os.path.isfile(place) else None


def _brief(value: Any) -> str:
    text = repr(str(value)) if isinstance(value, Path) else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
