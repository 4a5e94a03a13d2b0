"""Run folders: weights, configuration, metrics, split and card of one trained encoder; strict loading; finding runs."""

from __future__ import annotations

from align.checkpoint.card import LIBRARY
from align.checkpoint.facts import stored_config, stored_facts, stored_meta, weights_id
from align.checkpoint.finding import find_run, home
from align.checkpoint.hashes import require_named, require_numbers, tensors_hash, weights_hash
from align.checkpoint.loading import load_run
from align.checkpoint.names import CARD, CONFIG, METRICS, MODEL, PREPARATION, SPLIT, preparation_path
from align.checkpoint.run import Run
from align.checkpoint.saving import save_run

__all__ = [
    "CARD",
    "CONFIG",
    "LIBRARY",
    "METRICS",
    "MODEL",
    "PREPARATION",
    "SPLIT",
    "Run",
    "find_run",
    "home",
    "load_run",
    "preparation_path",
    "require_named",
    "require_numbers",
    "save_run",
    "stored_config",
    "stored_facts",
    "stored_meta",
    "tensors_hash",
    "weights_hash",
    "weights_id",
]
