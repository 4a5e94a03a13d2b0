"""From pictures to target tokens."""

from __future__ import annotations

from pathlib import Path


def mini_weights() -> Path:
    """Folder of the embedded mini backbone: it ships beside this package, in the generator's assets."""
    return Path(__file__).resolve().parents[2] / "recon" / "assets" / "mini" / "image_encoder"
