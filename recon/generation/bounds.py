"""Sizes that the configuration files of a generator may ask for, looked at before a library takes memory for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from align.errors import UserError
from align.files import read_json

_FILES = ("config.json", "scheduler_config.json")
_DEEPEST = 64  # of lists and objects in one another
# by a word of the key, the first that it has: well above every public model of the kinds that are read here (SDXL and
# ViT-bigG: 48 layers, pictures of 1024 px, widths to 8192, 1000 training steps, 49408 words)
_BOUNDS = (
    ("_id", None),  # numbers of words, which size nothing
    ("timesteps", 100_000),
    ("sample_size", 4096),
    ("image_size", 4096),
    ("layers", 256),
    ("num_blocks", 256),
    ("factor", 1e6),
    ("vocab_size", 1 << 20),
)
_LARGEST = 1 << 16  # channels, widths, heads and whatever else


def require_sensible(folder: Path, what: str) -> None:
    """Raise `UserError` where a config.json or scheduler_config.json in ``folder`` or its parts asks for a size that
    no known model has. ``what`` names the folder in messages: "generator 'x'"."""
    for path in sorted(found for name in _FILES for found in (folder / name, *folder.glob(f"*/{name}"))):
        if not path.is_file():
            continue
        for key, value in _numbers(read_json(path, {}, finite=False)):
            bound = next((most for word, most in _BOUNDS if word in key), _LARGEST)
            if bound is not None and abs(value) > bound:
                raise UserError(
                    f"{what}: {path.relative_to(folder).as_posix()!r} asks for {key} {value:.6g}; at most {bound:,} is "
                    "read here"
                )


def _numbers(value: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, float]]:
    """Every whole number with the key it stands under; a list has that of its object."""
    if depth > _DEEPEST:
        return
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _numbers(item, str(name), depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item, key, depth + 1)
    elif isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer():
        yield key, value
