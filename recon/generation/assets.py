"""Where the embedded miniature generator lives."""

from __future__ import annotations

from pathlib import Path

import recon


def mini_folder() -> Path:
    """``recon/assets/mini``: a Stable Diffusion folder in diffusers layout, with image encoder and conditioners."""
    return Path(recon.__file__).parent / "assets" / "mini"
