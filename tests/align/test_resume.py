"""SIGKILL at any step, also in the middle of writing a checkpoint: the resumed fit ends with the same weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from align.checkpoint import tensors_hash
from align.config import Config, load_config
from align.tracking import JsonLines
from align.training.fit import fit
from align.training.state import load_finished_step


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="kills forked children")
@pytest.mark.parametrize("how", [pytest.param([], marks=pytest.mark.long), ["streamed"]], ids=["held", "streamed"])
def test_killed_fits_end_with_the_weights_of_a_whole_one(tmp_path: Path, how: list[str]) -> None:
    command = [sys.executable, str(Path(__file__).with_name("killed_fit.py")), str(tmp_path), *how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    hashes = json.loads(done.stdout)
    assert len(hashes) >= 4 and len(set(hashes.values())) == 1, hashes
    records = {name: (tmp_path / name / "metrics.jsonl").read_text() for name in hashes}
    assert set(records.values()) == {records["whole"]}, "no epoch is missing from the metrics or told twice"
    stages = [json.loads(line)["stage"] for line in records["whole"].splitlines()]
    assert stages == ["spread"] * 6 + ["train"] * 6


def _fit(folder: Path, *overrides: str, shift: float = 0.0) -> str:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 6)).astype(np.float32)
    tokens = rng.normal(size=(40, 2, 4)).astype(np.float32)
    recipe = ["target.components=4", "encoder.width=8", "train.epochs=2", "train.batch_size=20", "target.spread=0"]
    config = load_config(Config, None, [*recipe, *overrides])
    metrics = JsonLines(folder / "metrics.jsonl")
    state = folder / "state"
    return tensors_hash(
        fit(config, x, tokens + shift * x[:, :1, None], np.arange(40), state_dir=state, metrics=metrics).state()
    )


def test_a_finished_fit_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _fit(tmp_path)
    assert load_finished_step(tmp_path / "state" / "train") == 4
    monkeypatch.setattr("align.training.optimise.loss_parts", None)  # any training step would fail
    assert _fit(tmp_path) == first
    assert len(JsonLines(tmp_path / "metrics.jsonl").read()) == 2


@pytest.mark.parametrize("change", [{"overrides": ["train.lr=0.01"]}, {"overrides": ["seed=3"]}, {"shift": 0.5}])
def test_another_recipe_or_other_data_start_afresh(tmp_path: Path, change: dict[str, object]) -> None:
    _fit(tmp_path / "changed")
    overrides, shift = change.get("overrides", []), change.get("shift", 0.0)
    assert isinstance(overrides, list) and isinstance(shift, float)
    expected = _fit(tmp_path / "fresh", *overrides, shift=shift)
    assert _fit(tmp_path / "changed", *overrides, shift=shift) == expected
    texts = {(tmp_path / name / "metrics.jsonl").read_text() for name in ("changed", "fresh")}
    assert len(texts) == 1
