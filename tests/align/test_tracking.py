"""Trackers of accelerate beside metrics.jsonl."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from align.config import Config
from align.tracking import Forecast, JsonLines, Stopwatch, Tracked, peak_memory
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


def test_a_stopwatch_reads_what_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([100.0, 102.54])
    monkeypatch.setattr("align.tracking.time.monotonic", lambda: next(ticks))
    monkeypatch.setattr("align.tracking.peak_memory", lambda: 5)
    assert Stopwatch().read() == {"seconds": 2.5, "device": "cpu", "memory": 5}


def test_memory_is_in_bytes_and_left_out_where_the_system_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("resource"):
        assert 10**7 < (peak_memory() or 0) < 10**12
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory() is None and "memory" not in Stopwatch().read()


@pytest.mark.parametrize(
    ("pieces", "total", "told"),
    [
        (  # the first piece warms up
            [(9.0, 10), (1.0, 10), (1.0, 10)],
            1020,
            [
                "1010 more pictures take at most about 15 min (0.9 s each)",
                "1000 more pictures take about 2 min (0.1 s each)",
            ],
        ),
        ([(0.1, 1), (40.0, 1), (40.0, 1)], 500, ["498 more pictures take about 5.5 h (40 s each)"]),
        ([(1.0, 1), (40.0, 1)], 4, ["2 more pictures take about 80 s (40 s each)"]),
        ([(1.0, 10), (1.0, 10)], 100, []),  # below a minute
        ([(1000.0, 10)], 100, ["90 more pictures take at most about 2.5 h (1e+02 s each)"]),
    ],
)
def test_a_forecast_is_said_after_the_first_piece_and_again_after_the_second(
    pieces: list[tuple[float, int]],
    total: int,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [0.0]
    monkeypatch.setattr("align.tracking.time.monotonic", lambda: now[0])
    monkeypatch.setattr("align.tracking.peak_memory", lambda: 2_500_000_000)
    forecast = Forecast("targets", total, "picture")
    with caplog.at_level("INFO", logger="align"):
        for seconds, count in pieces:
            now[0] += seconds
            forecast.done(count)
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"targets: {line}, memory 2.5 GB so far" for line in told]
