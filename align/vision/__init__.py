"""From pictures to target tokens."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def mini_weights() -> Path:
    """Folder of the embedded mini backbone; it ships inside this package."""
    return Path(str(files(__name__) / "mini"))
