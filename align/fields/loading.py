"""How values get into a configuration: YAML files and ``key=value`` pairs are laid over the defaults of a tree.

Values are coerced from their raw text by the declared type of the field, so ``subjects=[01,02,010]`` stays text
(YAML alone would read numbers) and ``train.lr=1e-4`` is a float (YAML alone would read text).
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml

from align.errors import UserError
from align.fields.checks import Checked, hints_of, types_of
from align.fields.yaml_text import LARGEST, parse_yaml

C = TypeVar("C", bound=Checked)


def load_config(
    cls: type[C],
    path: str | Path | Sequence[str | Path] | None = None,
    overrides: list[str] | tuple[str, ...] = (),
    check: bool = True,
) -> C:
    """Lay YAML files, one over the other in their order, and then ``key=value`` pairs over the defaults of ``cls``.

    A file of ``configs`` is found wherever the command is given (`shipped`). A block that ``cls.notes`` names, such as
    ``paper`` in a recipe, is no configuration and left out. ``check`` False: the values are not looked at, for a
    configuration that is only shown, compared or laid over another one.

    Raises
    ------
    UserError
        Missing or broken YAML, unknown key (with the nearest valid one), value of the wrong type, unknown choice,
        number out of range, file that does not exist, values that do not go together.
    """
    config = cls()
    paths = [path] if isinstance(path, str | Path) else path or []
    for one in paths:
        tree = _read_yaml(Path(one))
        for name in cls.notes:
            if isinstance(tree.get(name), dict):
                del tree[name]
        _lay_over(config, list(flatten(tree)))
    pairs = []
    for pair in overrides:
        key, sep, text = pair.partition("=")
        if not sep:
            raise UserError(f"override {pair!r} is not key=value; write for example seed=1")
        pairs.append((key.strip(), text.strip()))
    _lay_over(config, pairs)
    if check:
        config.check(files=True)
    return config


def _lay_over(config: Checked, pairs: Sequence[tuple[str, Any]]) -> None:
    """Set the pairs; a remark (``remarks``) on a field that they change falls back to its default.

    A remark that was made on other data than those the pairs lead to (``carried``) says so.
    """
    about = {of: [_get(config, key) for key in keys] for of, keys in config.remarks.items()}
    made_on = {of: {key: _get(config, key) for key in keys} for of, keys in config.carried.items()}
    for key, value in pairs:
        set_key(config, key, value)
    for of, before in made_on.items():
        said = _get(config, of)
        if of not in dict(pairs) and said != _get(type(config)(), of):
            others = [config.carried[of][key] for key, old in before.items() if _leads_away(old, _get(config, key))]
            told = "; carried over to "
            new = [text for text in others if text not in said.partition(told)[2]]
            set_key(config, of, said + (told if told not in said else ", ") * bool(new) + ", ".join(new))
    for of, keys in config.remarks.items():
        if of not in dict(pairs) and about[of] != [_get(config, key) for key in keys]:
            set_key(config, of, _get(type(config)(), of))


def _leads_away(old: Any, new: Any) -> bool:
    """Whether a value that was given changed; of a list, whether it is no part of the old one. Nothing and an empty
    list name no data of their own."""
    if not old or old == new:
        return False
    return not (isinstance(old, list) and new and set(new) <= set(old))


def _get(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = getattr(config, name)
    return config


def add_config_option(parser: argparse.ArgumentParser, text: str = "YAML file laid over the defaults") -> None:
    """``--config FILE``, any number of times; a list of paths for `load_config`, or None."""
    text += "; given again, the later file lies over the earlier ones; configs/... come with the package"
    parser.add_argument("--config", type=Path, action="append", metavar="FILE", help=text)


def to_dict(config: Any) -> dict[str, Any]:
    """The tree as plain containers, ready for YAML or JSON."""
    return dataclasses.asdict(config)


def dump_yaml(config: Any) -> str:
    """The tree as YAML text that `load_config` reads back to an equal tree."""
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def set_key(config: Any, key: str, value: Any) -> None:
    """Set dotted ``key``; text values are coerced to the declared type of the field."""
    owner, names = config, key.split(".")
    for depth, name in enumerate(names):
        if not isinstance(owner, Checked) or name not in hints_of(type(owner)):
            raise _unknown(config, key)
        if depth < len(names) - 1:
            owner = getattr(owner, name)
    section = getattr(owner, names[-1])
    if isinstance(section, Checked):
        if value is None:  # a YAML section with every line commented out
            return
        raise UserError(f"{key} is a section, not a value; its keys: {', '.join(keys(section, key + '.'))}")
    setattr(owner, names[-1], _coerce(value, types_of(type(owner))[names[-1]], key))


def keys(config: Any, prefix: str = "") -> list[str]:
    """Every dotted leaf key of the tree."""
    found = []
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        name = prefix + item.name
        found += keys(value, name + ".") if dataclasses.is_dataclass(value) else [name]
    return found


def _unknown(config: Any, key: str) -> UserError:
    valid = keys(config)
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    near = near or [name for name in valid if name.split(".")[-1] == key.split(".")[-1]]
    hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(valid)}"
    return UserError(f"unknown key {key!r}{hint}")


def shipped(path: str | Path) -> Path:
    """``path`` where there is such a file or folder, else what comes with the package under this name.

    So that ``configs/align/simulated.yaml`` means the same in the clone, beside it, and with an installed wheel, which
    holds the folder ``configs`` inside ``align``.
    """
    path = Path(path).expanduser()
    if path.exists() or path.parts[:1] != ("configs",):
        return path
    package = Path(str(resources.files("align")))
    return next((place / path for place in (package, package.parent) if (place / path).exists()), path)


def _read_yaml(path: Path) -> dict[str, Any]:
    path = shipped(path)
    if not path.is_file():
        raise UserError(f"config file {str(path)!r} does not exist; pass --config FILE")
    if path.stat().st_size > LARGEST:
        raise UserError(f"config file {str(path)!r} has more than {LARGEST:,} bytes; pass a YAML file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"config file {str(path)!r} is not text; pass a YAML file") from error
    tree = parse_yaml(text, str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds no keys; expected lines such as 'seed: 0'")
    return tree


def flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested sections as pairs of a dotted key and a value."""
    pairs: list[tuple[str, Any]] = []
    for name, value in tree.items():
        pairs += flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return pairs


def _coerce(value: Any, kind: Any, key: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None or value in ("", "null", "none", "None", "~"):
            return None
        return _coerce(value, next(arg for arg in args if arg is not type(None)), key)
    if origin is list:
        if isinstance(value, str):
            value = parse_yaml(value if value.startswith("[") else f"[{value}]", f"value of {key}")
        if not isinstance(value, list):
            raise UserError(f"{key}={brief(value)} is not a list; write '{key}=[a,b]'")
        return [_coerce(item, args[0], key) for item in value]
    if kind is bool:
        if str(value).lower() in ("true", "yes", "on", "1"):
            return True
        if str(value).lower() in ("false", "no", "off", "0"):
            return False
        raise UserError(f"{key}={brief(value)} is not true or false")
    if kind in (int, float):
        try:
            number = kind(str(value).replace("_", ""))
            if not math.isfinite(number):
                raise ValueError
            return number
        except (ValueError, OverflowError):
            raise UserError(f"{key}={brief(value)} is not {'a whole number' if kind is int else 'a number'}") from None
    if value is None or isinstance(value, (list, dict)):
        raise UserError(f"{key}={brief(value)} is not text")
    if "\0" in str(value):
        raise UserError(f"{key}={brief(value)} holds a NUL byte")
    return str(value)


def brief(value: Any) -> str:
    """A value as it stands in messages: its beginning where it is long."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
