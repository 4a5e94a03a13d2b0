"""`recon train`: what ``align/train.py`` trains, for whom, with mistakes in one line; progress in a log file."""

from __future__ import annotations

import io
import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align import tracking
from align.checkpoint import find_run, weights_hash
from align.tracking import Lines, progress_bar
from align.train import train
from recon import cli
from tests.align.fixture_studies import write_folder
from tests.one_line import fails


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder study of three people, 10 training pictures and 4 of the test each."""
    root = tmp_path_factory.mktemp("study")
    rows: list[dict[str, object]] = []
    for subject in ("01", "02", "03"):
        for i in range(14):
            split = "train" if i < 10 else "test"
            rows.append({"row": len(rows), "image": f"pic{i:03d}.png", "split": split, "subject": subject})
    write_folder(root / "data", np.random.default_rng(0).normal(size=(len(rows), 6)).astype(np.float32), rows)
    return root


def words(study: Path, *more: str) -> list[str]:
    recipe = ["target.components=4", "encoder.width=8", "encoder.name=ridge", "loss.contrastive=0"]
    pairs = ["study.name=folder", f"study.root={study / 'data'}", f"cache_dir={study / 'cache'}", *recipe]
    return ["train", *pairs, *more]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("align.train.use_all_cores", lambda: None)


def test_all_or_some_subjects(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECON_HOME", str(tmp_path))
    assert cli.main(words(study, "--subject", "02", "--json")) == 0
    (one,) = json.loads(capsys.readouterr().out)["runs"]
    assert one["subjects"] == ["02"] and one["weights_hash"] == weights_hash(one["folder"])
    assert cli.main(words(study, "--subject", "all")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[-1].startswith("next: recon retrieve --subject 01 --run ")
    assert {find_run(subject, tmp_path).name for subject in ("01", "02", "03")} == {
        f"folder_data_sub-{subject}_ridge_1_seed-0" for subject in ("01", "02", "03")
    }
    assert cli.main(lines[-1].removeprefix("next: recon ").split()) == 0  # the hint is a command
    assert "brain_to_image" in capsys.readouterr().out
    from align.config import Config, load_config

    pairs = words(study)[1:]
    (again,) = train(load_config(Config, None, [*pairs, "subjects=[02]", f"run_dir={tmp_path / 'other'}"]), False)
    assert again.weights_hash == one["weights_hash"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--subject", "04"], "has no subject '04'"),
        (["--subject", "all", "01"], "leave the other labels out"),
        (["--subject", "01", "subjects=[02]"], "give one of them"),
        (["train.epoch=3"], "train.epoch"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["study.root=nowhere"], "nowhere"),
        (["target.layer=99"], "99"),
    ],
)
def test_mistakes_are_one_line(study: Path, more: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words(study, *more)) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("recon train: ") and told in said[0]


def test_another_recipe_in_the_same_folder_is_refused(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["--subject", "01", f"run_dir={tmp_path / 'run'}"]
    assert cli.main(words(study, *run)) == 0
    before = weights_hash(tmp_path / "run")
    assert cli.main(words(study, *run, "preprocess.scale=zscore")) == 2
    assert "preprocess.scale=none instead of zscore" in capsys.readouterr().err
    assert weights_hash(tmp_path / "run") == before
    assert cli.main(words(study, *run)) == 0  # the same again
    assert weights_hash(tmp_path / "run") == before
    assert cli.main(words(study, *run, "preprocess.scale=zscore", "--overwrite")) == 0
    assert weights_hash(tmp_path / "run") != before


def test_other_recordings_are_another_training(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(study / "data", tmp_path / "data")
    own = ["--subject", "01", f"run_dir={tmp_path / 'run'}", f"study.root={tmp_path / 'data'}"]
    assert cli.main(words(study, *own)) == 0
    before = weights_hash(tmp_path / "run")
    signals = np.load(tmp_path / "data/signals.npy")
    signals[:10] = np.random.default_rng(1).normal(size=(10, 6))
    np.save(tmp_path / "data/signals.npy", signals)
    capsys.readouterr()
    assert cli.main(words(study, *own)) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("recon train: ")]
    assert "holds weights of other recordings: the training signals of subject 01" in said and "--overwrite" in said
    assert weights_hash(tmp_path / "run") == before
    assert cli.main(words(study, *own, "--overwrite")) == 0
    assert weights_hash(tmp_path / "run") != before
    assert cli.main(words(study, *own)) == 0


def test_other_recordings_of_those_who_train_for_another(study: Path, tmp_path: Path) -> None:
    from align.config import Config, load_config

    shutil.copytree(study / "data", tmp_path / "data")
    pairs = [*words(study)[1:], "subjects=[01,02,03]", "protocol=loso", f"run_dir={tmp_path / 'runs'}"]
    config = load_config(Config, None, [*pairs, f"study.root={tmp_path / 'data'}"])
    assert len(train(config, False)) == 3
    signals = np.load(tmp_path / "data/signals.npy")
    signals[14:24] *= np.random.default_rng(1).choice([-1, 1], (10, 6))  # of 02
    np.save(tmp_path / "data/signals.npy", signals)
    fails("sub-01' holds weights of other recordings: the training signals of subject 02", lambda: train(config, False))


def test_a_log_gets_a_line_a_minute(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    clock = [100.0]
    monkeypatch.setattr(tracking.time, "monotonic", lambda: clock[0])
    with caplog.at_level(logging.INFO, logger="align"), Lines(100, "train", start=20) as bar:
        for _ in range(80):
            clock[0] += 5
            bar.update()
    told = list(dict.fromkeys(record.message for record in caplog.records))  # seen by two handlers
    assert told[0] == "train: 32 of 100 steps (32 %), 6 min left" and len(told) == 6
    assert tracking.duration(7200) == "2.0 h"


def test_a_terminal_gets_a_bar_a_log_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    kinds: list[Any] = []
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        kinds.append(type(progress_bar(3, "train", True)))
    assert kinds[1] is Lines and kinds[0] is not Lines
    hidden = progress_bar(3, "train", False)
    assert hidden.disable  # type: ignore[union-attr]


def test_no_run_names_a_command_that_exists(tmp_path: Path) -> None:
    said = fails("recon train --subject 07", lambda: find_run("07", tmp_path))
    assert "--run FOLDER" in said and cli.build_parser().parse_args(["train", "--subject", "07"]).subject == ["07"]


def test_the_methods_paragraph_says_what_was_done(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["--subject", "02", f"run_dir={tmp_path / 'run'}"]
    assert cli.main(words(study, *run, "preprocess.scale=zscore", "preprocess.clamp=3")) == 0
    capsys.readouterr()
    card = ["card", "--run", str(tmp_path / "run"), "--methods"]
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert cli.main(card) == 0
    text = capsys.readouterr().out
    for told in (
        "Recordings of subject 02 of the study folder",
        "10 training trials of 10 pictures and 4 test trials of 4 pictures",
        "A trial had 6 voxels or units",
        "every channel was scaled (zscore), values were clamped to 3",
        "layer 1 of mini",
        "; the layer was set by hand.",
        "(ridge) was solved in closed form",
        "fitted on 10 rows (seed 0)",
        "Test trials have not been scored",
        "ran on cpu for",
    ):
        assert told in text, told
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    assert cli.main(["retrieve", "--subject", "02", "--run", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert cli.main([*card, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)["methods"]
    assert "Each of 4 test pictures was looked for among 4 candidates" in again and "torch" in again


def test_the_number_of_components_is_that_of_the_run(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--subject", "02", f"run_dir={tmp_path / 'run'}", "target.components=400"]  # ten pictures have nine
    assert cli.main(words(study, *asked)) == 0
    capsys.readouterr()
    assert cli.main(["card", "--run", str(tmp_path / "run"), "--methods"]) == 0
    assert " 9 principal components of the training pictures" in capsys.readouterr().out
    assert cli.main(["info", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["components"] == 9
    assert cli.main(["info", str(study / "data")]) == 2
    assert "is a study, no run; recon data check folder --root FOLDER" in capsys.readouterr().err


def test_a_folder_of_runs_is_told_apart(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--run`` names a folder of runs: the one that is meant is said, and none of another subject is taken."""
    monkeypatch.setenv("RECON_HOME", str(tmp_path))
    runs = tmp_path / "mine"
    for subject, name in (("02", "second"), ("03", "third")):
        assert cli.main(words(study, "--subject", subject, f"run_dir={runs / name}")) == 0
    found = sorted(file.parent for file in runs.rglob("model.safetensors"))
    assert len(found) == 2
    for folder in found:
        folder.rename(runs / f"{folder.name}-kept")
    second, third = sorted(runs.glob("*-kept"))

    def told(subject: str) -> str:
        capsys.readouterr()
        assert cli.main(["retrieve", "--subject", subject, "--run", str(runs), "evaluate.networks=false"]) == 2
        return capsys.readouterr().err.splitlines()[-1]

    assert told("02").endswith(f"is a folder of runs; of subject '02': --run {second}")
    other = told("01")
    assert f"holds no run of subject '01' ({second.name} is of 02; {third.name} is of 03)" in other
    assert "pass another --subject or --run" in other
