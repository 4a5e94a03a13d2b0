"""Pages that follow the code: public names, commands with their options, fields of the configuration.

`write_pages` writes them each time the site is built, so no list of them is kept by hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import os
import typing
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("recon", "align")
WIDTH = 100  # columns of the help texts


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
    """Every configuration class with the source of its fields, whose comments say what they mean."""
    from align.config import Config
    from recon.config import ConditionerConfig, PretrainConfig
    from recon.evaluation.settings import EvaluateConfig

    parts = [
        "# Every setting\n",
        "A setting is written `key=value` on the command line, or in a YAML file. The key is the section and the",
        "field, for example `train.epochs=20`. A field without a section stands alone: `seed=1`. A wrong key is",
        "refused, and the nearest valid one is named.\n",
        "The lists below are the code itself: name, type, default, and what the field means.\n",
    ]
    headings = {Config: "Training an encoder", ConditionerConfig: "Training a conditioner"}
    headings |= {PretrainConfig: "Building the embedded generator", EvaluateConfig: "Scoring a run (evaluate.*)"}
    shown: set[type] = set()
    for tree, heading in headings.items():
        parts.append(f"## {heading}\n")
        for section, cls in (("", tree), *_sections(tree)):
            if cls not in shown:
                shown.add(cls)
                title = f"### `{section}.*`\n" if section else "### Fields without a section\n"
                parts += [title, f"```python\n{inspect.getsource(cls)}```\n"]
    return "\n".join(parts)


def _sections(tree: type) -> Iterator[tuple[str, type]]:
    hints = typing.get_type_hints(tree)
    for field in dataclasses.fields(tree):
        if dataclasses.is_dataclass(hints[field.name]):
            yield field.name, hints[field.name]
