"""Names of the files in a run folder."""

from __future__ import annotations

from pathlib import Path

from align.data.names import labelled

MODEL, CONFIG, SPLIT, CARD, METRICS = "model.safetensors", "config.yaml", "split.json", "README.md", "metrics.jsonl"
PREPARATION = "preparation_sub-{}.safetensors"
FORMAT = "1"  # of the metadata beside the weights


def preparation_path(folder: Path, subject: str) -> Path:
    """Where a run keeps what was done to the stored trials of a subject."""
    return labelled(folder, PREPARATION, subject)
