"""Which run, which code and which libraries made a report; the curves stored beside the run."""

from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.config import TargetConfig
from align.data.names import labelled
from align.files import read_json

if TYPE_CHECKING:
    from align.checkpoint import Run

_LIBRARIES = ("torch", "torchvision", "diffusers", "transformers", "numpy", "scipy", "lpips", "pillow")
SCHEMA = 1
SPLIT = "test"


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


def curves_folder(run: Run, label: str) -> Path:
    """``<run>/curves/<label of the generator>/sub-<subject>``."""
    return labelled(run.path / "curves" / label, "sub-{}", run.subject)


def read_curves(run: Run, label: str) -> dict[str, Any] | None:
    """The content of curves.json where there is one of this very training of the run, else None."""
    from recon.decoding.predict import run_id

    path = curves_folder(run, label) / "curves.json"
    stored = read_json(path) if path.is_file() else None
    return stored if isinstance(stored, dict) and stored.get("run") == run_id(run) else None


def head(run: Run) -> dict[str, Any]:
    """Which run is scored and how it came about: a report without its scores."""
    from align.data.places import recipe
    from align.data.preparing.selection import described
    from recon.decoding.predict import run_id

    return {
        "schema": SCHEMA,
        "study": run.study,
        "subject": run.subject,
        "split": SPLIT,
        "run": run_id(run),
        "backbone": run.config.backbone.name,
        "backbone_crop": run.config.backbone.crop,
        "layer": run.config.target.layer,
        "layer_chosen_on": run.meta.get("chosen_on", "not stated"),
        "epoch_chosen_on": "last",
        "encoder": run.config.encoder.name,
        "selection": described(run.config, run.aligner.in_shape),
        "recipe": recipe(run.config),
        "seed": run.config.seed,
        "commit": commit(),
        "versions": versions(),
    }


def choice_of_layer(chosen_on: str) -> str:
    """What ``target.chosen_on`` says, after "the layer was"."""
    return chosen_on if chosen_on == TargetConfig().chosen_on else f"chosen on: {chosen_on}"
