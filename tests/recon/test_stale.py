"""Results of another training, or of other signals, are made again or refused, never scored as if they were new."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from align.checkpoint import Run, load_run
from recon.audit.collect import from_run
from recon.decoding.predict import load_predictions, predict
from tests.recon.tiny_run import N_TEST, N_TRAIN, make_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_run(tmp_path_factory.mktemp("stale"))
    load_predictions(run)
    return run


@pytest.fixture
def moved(made: Run, tmp_path: Path) -> Run:
    """The run and a study of its own, to be changed."""
    shutil.copytree(made.path, tmp_path / "run")
    shutil.copytree(str(made.config.study.root), tmp_path / "study")
    run = load_run(tmp_path / "run")
    run.config.study.root = str(tmp_path / "study")
    return run


def _noise(run: Run, rows: slice) -> None:
    file = Path(str(run.config.study.root)) / "signals.npy"
    signals = np.load(file)
    signals[rows] = np.random.default_rng(5).normal(size=signals[rows].shape)
    np.save(file, signals)


def test_signals_that_were_replaced_are_predicted_again(made: Run, moved: Run) -> None:
    before = load_predictions(moved)
    np.testing.assert_array_equal(before.embeds, load_predictions(made).embeds)
    _noise(moved, slice(N_TRAIN, N_TRAIN + N_TEST))
    assert "other signals" in from_run(moved).missing["embeds"]  # an audit predicts nothing
    after = load_predictions(moved)
    assert after.ids == before.ids and not np.allclose(after.embeds, before.embeds)
    assert "embeds" not in from_run(moved).missing


def test_other_training_signals_leave_predictions_of_the_test(made: Run, moved: Run) -> None:
    first = load_predictions(moved)
    time = first.path.stat().st_mtime_ns
    _noise(moved, slice(0, N_TRAIN))
    assert load_predictions(moved).path.stat().st_mtime_ns == time


def test_without_the_study_stored_predictions_are_taken(made: Run, moved: Run) -> None:
    before = load_predictions(moved).embeds
    moved.config.study.root = str(moved.path / "nowhere")
    np.testing.assert_array_equal(load_predictions(moved).embeds, before)


def test_an_audit_does_not_judge_another_training(made: Run, moved: Run) -> None:
    import torch

    from recon.drawing.folders import PictureFolders, write_pictures

    folders = PictureFolders(moved.path, "tiny", "01")
    ids = load_predictions(moved).ids[:3]
    write_pictures(folders.reconstructions, ids, torch.rand(3, 3, 16, 16), seed=0, run_id="folder_sub-01@0123456789ab")
    told = from_run(moved).missing["reconstructions"]
    assert "0123456789ab" in told and "run recon generate" in told
    moved.meta["weights_hash"] = "f" * 64  # as after another training
    assert "run recon predict" in from_run(moved).missing["embeds"]
    predict(moved)
    assert "embeds" not in from_run(moved).missing


def test_a_closed_output_is_no_error(made: Run) -> None:
    code = "import sys; sys.stdout = None; from recon.cli import main; sys.exit(main(['info', sys.argv[1]]))"
    done = subprocess.run([sys.executable, "-c", code, str(made.path)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
