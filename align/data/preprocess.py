"""Signals as stored to signals as used: the steps of ``config.preprocess``, fitted on training rows only."""

from __future__ import annotations

from pathlib import Path

from align.config import PreprocessConfig
from align.data.signals import Recording


def prepare(recording: Recording, config: PreprocessConfig, cache_dir: str | Path) -> Recording:
    """The recording after the steps that ``config`` asks for; itself where it asks for none."""
    if config == PreprocessConfig():
        return recording
    raise NotImplementedError
