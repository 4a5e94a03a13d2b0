"""Settings as Python writes them, ``train__epochs=20`` or ``{"train.epochs": 20}``, as a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align.config import Config, flatten, set_key
from align.errors import UserError


def as_pairs(settings: Mapping[str, Any] | None, more: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys to values; sections may be nested. Raises `UserError` for a key that is given twice."""
    if settings is not None and not isinstance(settings, Mapping):
        raise UserError(f"settings={settings!r} is no mapping; write settings={{'train.epochs': 20}}")
    pairs: dict[str, Any] = {}
    for key, value in (*flatten(dict(settings or {})), *flatten(dict(more))):
        dotted = key.replace("__", ".")
        if dotted in pairs:
            raise UserError(f"{dotted!r} is given twice, in settings and by itself; give it once")
        pairs[dotted] = _plain(value)
    return pairs


def as_config(pairs: Mapping[str, Any], files: bool = True) -> Config:
    """The defaults with ``pairs`` laid over them, checked as `align.config.load_config` checks a file.

    Raises `UserError` for an unknown key (with the nearest), a wrong type, an unknown choice and a number out of range.
    """
    config = Config()
    for key, value in pairs.items():
        set_key(config, key, value)
    config.check(files=files)
    return config


def _plain(value: Any) -> Any:
    """What `set_key` reads: lists for other sequences, text for paths, Python's numbers for those of numpy."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
