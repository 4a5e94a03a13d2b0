"""Results of another training, or of other signals, are made again or refused, never scored as if they were new."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from align.checkpoint import Run, load_run
from align.errors import UserError
from align.files import read_json, write_sealed
from recon.audit.collect import from_run
from recon.decoding.predict import load_predictions, open_recording, predict
from recon.drawing.folders import SIGNALS, find_folders, read_index, write_index
from recon.evaluation.pictures import read_scored
from recon.evaluation.recordings import RunData
from recon.evaluation.report import report_path, retrieval_report
from recon.evaluation.settings import EvaluateConfig
from recon.evaluation.table import format_report
from tests.recon.tiny_run import N_TEST, N_TRAIN, add_pictures, make_run


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


def _as_before_marks(run: Run) -> None:
    """As a run that was trained before it knew the signals of its test."""
    split = read_json(run.path / "split.json")
    del split["signals"]
    write_sealed(run.path / "split.json", split)


def test_recordings_of_somebody_else_are_refused_and_overwrite_nothing(made: Run, moved: Run) -> None:
    quick = EvaluateConfig(n_boot=100, n_perm=100)
    retrieval_report(moved, quick)
    kept = [report_path(moved), load_predictions(moved).path]
    assert "60 voxels or units" in format_report(retrieval_report(moved, quick)).splitlines()[0]
    before = [file.read_bytes() for file in kept]
    _noise(moved, slice(0, N_TRAIN + N_TEST))
    for work in (predict, load_predictions, lambda run: retrieval_report(run, quick), open_recording):
        with pytest.raises(UserError, match=r"other recordings than run .* was trained for.* study\.root=FOLDER"):
            work(moved)
    assert [file.read_bytes() for file in kept] == before


def test_the_same_recordings_in_another_folder_are_the_runs_own(made: Run, moved: Run) -> None:
    file = Path(str(moved.config.study.root)) / "signals.npy"
    np.save(file, np.load(file).astype(np.float64))
    assert len(open_recording(moved).test) == N_TEST


def test_another_number_of_voxels_is_named_first_and_an_order_as_an_order(made: Run, moved: Run) -> None:
    root = Path(str(moved.config.study.root))
    head, *rows = (root / "stimuli.csv").read_text().splitlines()
    (root / "stimuli.csv").write_text("\n".join([head, *rows[:N_TRAIN], *rows[: N_TRAIN - 1 : -1]]) + "\n")
    with pytest.raises(UserError, match="the same, but in another order than in"):
        open_recording(moved)
    np.save(root / "signals.npy", np.load(root / "signals.npy")[:, :50])
    with pytest.raises(UserError, match="50 voxels or units, not 60"):
        open_recording(moved)


def test_pictures_of_other_signals_than_the_predictions_are_not_scored(made: Run, moved: Run) -> None:
    add_pictures(moved)
    data, folders = RunData(moved), find_folders(moved)
    scored = read_scored(data, folders, 0, partial=False)
    assert scored.mark and len(scored.mark) == 16
    for folder in (folders.reconstructions, folders.control("oracle")):
        rows = read_index(folder)
        write_index(folder, [{**row, SIGNALS: scored.mark} for row in rows])
        read_scored(data, folders, 0, partial=False)
        write_index(folder, [{**row, SIGNALS: "0" * 16} for row in rows])
        with pytest.raises(UserError, match="drawn from other signals"):
            read_scored(data, folders, 0, partial=False)
        write_index(folder, rows)


def test_signals_that_were_replaced_are_predicted_again(made: Run, moved: Run) -> None:
    _as_before_marks(moved)
    before = load_predictions(moved)
    np.testing.assert_array_equal(before.embeds, load_predictions(made).embeds)
    _noise(moved, slice(N_TRAIN, N_TRAIN + N_TEST))
    assert "other signals" in from_run(moved).missing["embeds"]  # an audit predicts nothing
    after = load_predictions(moved)
    assert after.ids == before.ids and not np.allclose(after.embeds, before.embeds)
    assert "embeds" not in from_run(moved).missing


@pytest.mark.parametrize("work", [predict, lambda run: retrieval_report(run, EvaluateConfig(n_boot=100, n_perm=100))])
def test_other_test_recordings_than_those_scored_before_are_told(
    made: Run, moved: Run, work: Callable[[Run], object], caplog: pytest.LogCaptureFixture
) -> None:
    work(moved)
    assert "others than those" not in caplog.text
    _noise(moved, slice(N_TRAIN, N_TRAIN + N_TEST))
    for _ in range(2):
        work(moved)
    (told,) = [record.message for record in caplog.records if "others than those" in record.message]
    assert "subject 01: the test recordings are others than those predicted or scored before" in told


def test_other_training_signals_leave_predictions_of_the_test(made: Run, moved: Run) -> None:
    _as_before_marks(moved)
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
