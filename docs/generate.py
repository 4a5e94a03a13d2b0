"""Pages that follow the code: public names, commands with their options, fields of the configuration.

`write_pages` writes them each time the site is built, so no list of them is kept by hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import os
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("recon", "align")
WIDTH = 100  # columns of the help texts
PIPE = r"\|"  # in the cell of a table


def write_pages(folder: Path) -> None:
    """Write the pages into ``folder``, the one of the hand-written pages; one that would not change is left alone."""
    pages = {
        "api_names.rst": names_page(),
        "generated/commands.md": commands_page(),
        "generated/configuration.md": configuration_page(),
    }
    (folder / "generated").mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def public_names(package: str) -> list[str]:
    """``__all__`` of a package, sorted; empty where it has none."""
    return sorted(getattr(importlib.import_module(package), "__all__", []))


def names_page() -> str:
    """One autosummary table per package, in reStructuredText."""
    parts = []
    for package in PACKAGES:
        names = public_names(package)
        if names:
            head = f"{package}\n{'-' * len(package)}\n\n.. currentmodule:: {package}\n"
            table = ".. autosummary::\n   :toctree: generated/\n   :nosignatures:\n\n"
            parts.append(f"{head}\n{table}" + "".join(f"   {name}\n" for name in names))
    return "\n".join(parts)


def commands_page() -> str:
    """Every command of `recon` with its help text."""
    from recon.cli import build_parser

    parts = [
        "# Every command\n",
        "`recon COMMAND --help` prints the same text. The options `--json` and `--debug` exist for every command: the",
        "first prints the whole result as JSON, the second shows the trace of an error.\n",
    ]
    for name, parser in sorted(_commands(build_parser(), "recon")):
        parts += [f"## {name}\n", f"```text\n{_help(parser)}```\n"]
    return "\n".join(parts)


def _commands(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Name and parser of every command that has none below it."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield name, parser
    for action in below:
        for word, command in action.choices.items():
            yield from _commands(command, f"{name} {word}")


def _help(parser: argparse.ArgumentParser) -> str:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(WIDTH)
    try:
        return parser.format_help()
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def configuration_page() -> str:
    """Every field of every configuration: default, what it may hold, and the comment that stands at it in the code."""
    from align.config import Config
    from recon.config import ConditionerConfig, PretrainConfig
    from recon.evaluation.settings import EvaluatePairs

    trees = {Config: "Training an encoder", ConditionerConfig: "Training a conditioner"}
    trees |= {PretrainConfig: "Building the embedded generator", EvaluatePairs: "Scoring a run"}
    parts = [
        "# Every setting\n",
        "A setting is written `key=value` on the command line, or in a YAML file as a section with its fields. A wrong",
        "key is refused, and the nearest valid one is named. A value that a field may not hold is refused when the",
        "configuration is loaded.\n",
    ]
    for tree, heading in trees.items():
        parts.append(f"## {heading}\n")
        whole = tree()
        for section in ("", *(name for name, value in vars(whole).items() if dataclasses.is_dataclass(value))):
            rows = list(_rows(section, getattr(whole, section) if section else whole))
            if rows:
                title = f"### `{section}`\n\n" if section else ""
                cls = type(getattr(whole, section) if section else whole)
                text = " ".join(inspect.getdoc(cls).split("\n\n")[0].split())
                head = "| key | default | may be | meaning |\n|---|---|---|---|\n"
                parts.append(f"{title}{_plain(text)}\n\n{head}" + "".join(rows))
    return "\n".join(parts)


def _rows(section: str, values: typing.Any) -> Iterator[str]:
    """A table line for every field of a section; cells hold no line breaks and no bare pipes."""
    hints = typing.get_type_hints(type(values), include_extras=True)
    for name, value in vars(values).items():
        if not dataclasses.is_dataclass(value):
            key = f"{section}.{name}" if section else name
            cells = [f"`{key}`", f"`{_yaml(value)}`", may_be(hints[name]), _plain(_comment(type(values), name))]
            yield f"| {' | '.join(cell.replace('|', PIPE) for cell in cells)} |\n"


def _yaml(value: typing.Any) -> str:
    """A value as it is written in a YAML file."""
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def may_be(hint: typing.Any) -> str:
    """What a declared type allows, in words: choices, bounds, lists, null."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = ", ".join(may_be(part) for part in parts if part is not type(None))
        return f"{inner}, or null"
    if origin is typing.Annotated:
        found = [text for check in parts[1:] if (text := _allowed(check))]
        return "; ".join(found) or may_be(parts[0])
    if origin is list:
        return f"list of: {may_be(parts[0])}"
    return {bool: "true, false", int: "a whole number", float: "a number"}.get(hint, "text")


def _allowed(check: typing.Any) -> str:
    """Words for one check of `align.fields.checks`; empty for those that say nothing to a reader."""
    if hasattr(check, "choices"):
        return ", ".join(f"`{choice}`" for choice in check.choices)
    if hasattr(check, "wanted"):
        return str(check.wanted)
    if type(check).__name__ == "Exists":
        return "a file or folder that exists"
    signs = {"least": "≥", "above": ">", "most": "≤", "below": "<"}
    bounds = {sign: getattr(check, name, None) for name, sign in signs.items()}
    return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds.items() if bound is not None)


def _comment(cls: type, name: str) -> str:
    """The comment at the field's line in the class that declares it."""
    found = re.search(rf"^    {name}: [^#\n]*#\s*(.*)$", inspect.getsource(cls), re.MULTILINE)
    return found[1] if found else ""


def _plain(text: str) -> str:
    """Text of the code as Markdown: values as YAML writes them, no HTML."""
    text = text.replace("``", "`").replace("<", r"\<")
    return re.sub(r"\b(None|True|False)\b", lambda found: _yaml({"None": None}.get(found[0], found[0] == "True")), text)
