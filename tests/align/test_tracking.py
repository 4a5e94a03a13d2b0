"""Trackers of accelerate beside metrics.jsonl."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, ClassVar

import pytest

from align.config import Config
from align.tracking import JsonLines, Tracked
from align.train import _metrics
from tests.one_line import fails


class _Tracker:
    """What accelerate's trackers have in common."""

    requires_logging_directory = True
    told: ClassVar[list[tuple[dict[str, float], int]]] = []

    def __init__(self, run_name: str, logging_dir: Path) -> None:
        self.name = (run_name, logging_dir)

    def start(self) -> None:
        self.started = True

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.values = values

    def log(self, values: dict[str, float], step: int) -> None:
        type(self).told.append((values, step))


def test_a_tracker_is_told_what_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("accelerate").tracking.LOGGER_TYPE_TO_CLASS, "tensorboard", _Tracker)
    config = Config(tracker="tensorboard", seed=3)
    metrics = _metrics(config, tmp_path / "run" / "metrics.jsonl")
    assert isinstance(metrics, Tracked) and metrics.tracker.name == ("run", tmp_path / "run")
    assert metrics.tracker.values["seed"] == "3" and metrics.tracker.values["encoder.name"] == "mlp"
    metrics({"stage": "train", "step": 8, "epoch": 2, "loss": 0.5, "contrastive": 0.25})
    assert _Tracker.told == [({"train/loss": 0.5, "train/contrastive": 0.25}, 8)]
    assert metrics.read()[0]["epoch"] == 2
    assert type(_metrics(Config(), tmp_path / "metrics.jsonl")) is JsonLines


def test_unknown_and_absent_trackers_are_one_line(tmp_path: Path) -> None:
    fails("tracker='tensorbored' is not known", lambda: Tracked(tmp_path / "m.jsonl", "tensorbored", {}))
    if importlib.util.find_spec("tensorboard") is None and importlib.util.find_spec("tensorboardX") is None:
        fails("pip install tensorboard", lambda: Tracked(tmp_path / "m.jsonl", "tensorboard", {}))
