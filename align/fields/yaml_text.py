"""YAML that somebody else may have written, read by one function: bounded in size, nesting and aliases.

An alias (``*name``) repeats what its anchor (``&name``) holds, so a few lines can stand for gigabytes. What aliases
stand for is counted before anything is built, and an anchor that holds itself is refused.
"""

from __future__ import annotations

from typing import Any

import yaml

from align.errors import UserError

LARGEST = 500_000  # bytes
DEEPEST = 40  # lists and sections inside each other
MOST = 50_000  # values, those that aliases repeat included


class _TextLoader(yaml.SafeLoader):
    """A safe loader that leaves every scalar as its raw text, null aside."""


_TextLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in rules if tag == "tag:yaml.org,2002:null"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _as_text(loader: yaml.SafeLoader, node: Any) -> Any:
    return loader.construct_scalar(node)


for _tag in ("bool", "int", "float", "binary", "timestamp"):  # explicit tags such as !!int
    _TextLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _as_text)


def parse_yaml(text: str, source: str, typed: bool = False) -> Any:
    """Plain containers; every scalar is its raw text, or with ``typed`` a number or truth value where YAML sees one.

    ``source`` names the text in messages. Raises `UserError` for what is no YAML or beyond the bounds of this module.
    """
    if len(text) > LARGEST:
        raise UserError(f"{source} has {len(text):,} characters; at most {LARGEST:,} are read")
    loader = yaml.SafeLoader if typed else _TextLoader
    try:
        _require_flat(text, source)
        node = yaml.compose(text, Loader=loader)
        if node is not None and (count := _values(node, {}, source)) > MOST:
            raise UserError(f"{source} stands for {count:,} values, its aliases written out; at most {MOST:,} are read")
        return yaml.load(text, Loader=yaml.SafeLoader) if typed else yaml.load(text, Loader=_TextLoader)  # noqa: S506
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{source} is not valid YAML{line}: {reason}") from error
    except UserError:
        raise
    except (ValueError, TypeError, OverflowError) as error:  # such as the date 2020-13-45
        raise UserError(f"{source} is not valid YAML: {error}") from error


def _require_flat(text: str, source: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            mark = event.start_mark
            where = f" at line {mark.line + 1}" if mark else ""
            raise UserError(f"{source} is nested deeper than {DEEPEST} levels{where}")


def _values(node: yaml.Node, known: dict[int, int | None], source: str) -> int:
    """How many values a node stands for; one that aliases share is counted as often as it is named."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise UserError(f"{source} holds an anchor that holds itself, at line {node.start_mark.line + 1}")
        return found
    known[id(node)] = None
    parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
    known[id(node)] = count = 1 + sum(_values(part, known, source) for part in parts)
    return count
