"""Paths of the machine a run was trained on, told from names that mean the same everywhere, and taken out."""

from __future__ import annotations

import copy
import functools
import re
from pathlib import Path
from typing import Any

from align.config import Config, keys, set_key

_GONE = ("study.root", "study.images", "run_dir")  # folders of the one who trained it
_PATH = re.compile(r"(?<![\w:/.~-])(?:~|[A-Za-z]:)?[/\\][\w.~+@%-]+(?:[/\\][\w.~+@%-]+)+")
_QUOTED = re.compile(r"(['\"])(?:~|[A-Za-z]:)?[/\\][^'\"]*[/\\]([^'\"/\\]+)\1")


def is_local(name: str) -> bool:
    """Whether a name is a path of this machine, rather than "mini" or a hub id."""
    return name != "mini" and (name.startswith(("/", "~", ".", "\\")) or Path(name).expanduser().exists())


def without_places(config: Config) -> Config:
    """A copy that names no folder of this machine: files keep their own name, so that a reader knows what to fetch."""
    clean = copy.deepcopy(config)
    for key in _GONE:
        set_key(clean, key, None)
    clean.cache_dir = Config().cache_dir
    clean.sweep.backbones = [name.partition("@")[0] for name in clean.sweep.backbones]
    for key in keys(clean):
        value = functools.reduce(getattr, key.split("."), clean)
        if isinstance(value, str) and (key == "backbone.weights" or is_local(value)):
            set_key(clean, key, Path(value).name)
    return clean


def without_paths(value: Any) -> Any:
    """The same JSON value with every absolute path in its texts cut down to the last name."""
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    if not isinstance(value, str):
        return value
    value = _QUOTED.sub(lambda found: f"{found[1]}{found[2]}{found[1]}", value)
    return _PATH.sub(lambda found: re.split(r"[/\\]", found[0])[-1], value)
