"""Pictures are scored together where they were drawn alike, and their hashes are those of what was scored."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from align.checkpoint import Run
from align.errors import UserError
from align.files import write_sealed
from recon.audit.collect import from_run
from recon.decoding.predict import load_predictions, run_id
from recon.drawing.folders import DRAWING, PictureFolders, find_folders, read_index, write_index, write_pictures
from recon.drawing.record import FILE
from recon.evaluation import judges, picture_scores, report
from recon.evaluation.settings import EvaluateConfig
from recon.evaluation.sources import digests
from recon.gallery.content import read_content
from recon.metrics import metrics
from tests.recon import tiny_run

FAST = EvaluateConfig(judge="torchvision/squeezenet1_0", n_boot=50, n_perm=20)
DRAWN = ("shuffled", "zero_brain", "oracle")
N = 6


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Reconstructions of two seeds and three controls, all of drawing "a"."""
    run = tiny_run.make_run(tmp_path_factory.mktemp("alike"), n_test=N)
    tiny_run.add_pictures(run)
    for folder in (find_folders(run).reconstructions, *map(find_folders(run).control, DRAWN)):
        stamp(folder, "a")
    add(run, "", "a", seed=1)
    return run


@pytest.fixture
def run(made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(metrics, "PIXEL_SIZE", 64)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no weights"))
    monkeypatch.setattr(judges, "load_judge", tiny_run.only_pixels)
    return replace(made, path=Path(shutil.copytree(made.path, tmp_path / "run")))


def stamp(folder: Path, drawing: str) -> None:
    write_index(folder, [{**row, DRAWING: drawing} for row in read_index(folder)])


def add(run: Run, control: str, drawing: str, seed: int = 0) -> None:
    """Other pictures in the place of those that are there."""
    folders = PictureFolders(run.path, tiny_run.GENERATOR, run.subject)
    folder, ids = folders.control(control) if control else folders.reconstructions, load_predictions(run).ids
    write_pictures(folder, ids, torch.rand(len(ids), 3, 64, 64), seed=seed, run_id=run_id(run), drawing=drawing)


@pytest.mark.parametrize("drawing", ["b", ""])
@pytest.mark.parametrize("control", DRAWN)
def test_controls_of_other_settings_are_not_scored(run: Run, control: str, drawing: str) -> None:
    add(run, control, drawing)
    with pytest.raises(UserError, match=rf"{control}.*drawn with other settings .* run recon generate again") as error:
        report.evaluate_run(run, settings=FAST)
    assert "\n" not in str(error.value) and not report.report_path(run).exists()


def test_a_set_of_two_drawings_is_not_scored(run: Run) -> None:
    folder = find_folders(run).reconstructions
    rows = read_index(folder)
    write_index(folder, [{**rows[0], DRAWING: "b"}, *rows[1:]])
    for partial in (False, True):
        with pytest.raises(UserError, match="drawn with different settings"):
            report.evaluate_run(run, settings=FAST, partial=partial)


def test_in_part_what_was_drawn_otherwise_is_left_out(run: Run) -> None:
    add(run, "oracle", "b")
    add(run, "", "b", seed=1)
    with pytest.raises(UserError, match="oracle"):
        report.evaluate_run(run, settings=FAST)
    add(run, "oracle", "a")
    with pytest.raises(UserError, match="pictures of seed 1 that were drawn with other settings"):
        report.evaluate_run(run, settings=FAST)
    add(run, "oracle", "b")
    found = report.evaluate_run(run, settings=FAST, partial=True)
    assert {"shuffled", "zero_brain"} <= set(found["controls"]) and "oracle" not in found["controls"]
    assert "seeds" not in found
    assert all("other settings" in found["skipped"][name] for name in ("controls.oracle", "seeds.1"))


@pytest.mark.parametrize(("drawing", "named"), [("a", True), ("b", False), (None, False)])
def test_only_the_record_of_the_scored_drawing_is_taken(run: Run, drawing: str | None, named: bool) -> None:
    record = {"run": run_id(run), "seeds": [0, 1], "steps": 7} | ({} if drawing is None else {"drawing": drawing})
    write_sealed(find_folders(run).reconstructions / FILE, record)
    assert ("drawn_with" in report.evaluate_run(run, settings=FAST)) is named


def test_gallery_and_audit_leave_out_what_was_drawn_otherwise(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    report.evaluate_run(run, settings=FAST)
    write_pictures(
        find_folders(run).low_level, load_predictions(run).ids, torch.rand(N, 3, 64, 64), seed=0, run_id=run_id(run)
    )
    caplog.clear()
    whole = read_content(run).extras
    assert set(whole.others) == {1} and len(whole.low_level) == N
    assert "reconstructions" not in from_run(run).missing and caplog.text == ""
    add(run, "", "b", seed=1)
    stamp(find_folders(run).low_level, "b")
    with caplog.at_level(logging.WARNING):
        left = read_content(run).extras
    assert left.others == {} and left.low_level == {} and caplog.text.count("drawn with other settings") == 2
    assert "drawn with other settings; run recon generate" in from_run(run).missing["reconstructions"]


@pytest.mark.parametrize("what", ["", pytest.param("oracle", marks=pytest.mark.long), "grey"])
def test_pictures_that_change_while_they_are_scored(run: Run, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Another process draws the same seed again."""
    true = picture_scores.score

    def meanwhile(*args: Any, **options: Any) -> Any:
        add(run, what, "a" if what != "grey" else "")
        return true(*args, **options)

    monkeypatch.setattr(picture_scores, "score", meanwhile)
    with pytest.raises(UserError, match=r"changed while they were scored, so nothing is stored; .* again") as error:
        report.evaluate_run(run, settings=FAST)
    assert "\n" not in str(error.value)
    assert not report.report_path(run).exists() and not report.stimuli_path(run).exists()
    monkeypatch.setattr(picture_scores, "score", true)
    report.evaluate_run(run, settings=FAST)


def test_a_file_without_its_index_is_noticed_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture is replaced, and its row of the index is not yet."""
    true, folder = picture_scores.score, find_folders(run).reconstructions
    first, second = sorted(folder.glob("*_seed-0.png"))[:2]

    def meanwhile(*args: Any, **options: Any) -> Any:
        first.write_bytes(second.read_bytes())
        return true(*args, **options)

    monkeypatch.setattr(picture_scores, "score", meanwhile)
    with pytest.raises(UserError, match="changed while they were scored"):
        report.evaluate_run(run, settings=FAST)


def test_stored_hashes_are_those_of_what_was_read(run: Run) -> None:
    report.evaluate_run(run, settings=FAST)
    stored = report.read_scores(run)[1]
    folders = find_folders(run)
    assert stored["pictures"] == digests(folders, stored["pictures"], 0, stored["ids"])
    assert set(stored["pictures"]) == {"reconstruction", *stored["controls"]}
