"""Which code and which libraries made a report."""

from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path

_LIBRARIES = ("torch", "torchvision", "diffusers", "transformers", "numpy", "scipy", "lpips", "pillow")


def versions() -> dict[str, str]:
    """Installed versions of the libraries the scores depend on."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Commit of the checkout this file runs from, "-dirty" when files differ from it; "unknown" outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return "unknown"
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"
