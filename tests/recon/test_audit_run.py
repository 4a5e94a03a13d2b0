"""`recon audit RUN`: an honest run is cleared or told what was not checked; runs with planted faults are flagged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from align.checkpoint import Run
from align.errors import UserError
from align.files import read_json
from recon import cli
from recon.audit.checks import audit
from recon.audit.collect import from_folder, from_run
from recon.decoding.predict import run_id
from recon.drawing.folders import PictureFolders, write_pictures
from tests.recon.tiny_run import GENERATOR, N_TEST, add_pictures, make_run

NOT_CHECKED = {"block_design", "sample_selection", "choice_on_test", "seed_variance"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    run = make_run(tmp_path_factory.mktemp("audit"))
    add_pictures(run, controls=False)
    yield run


@pytest.fixture
def run(made: Run, tmp_path: Path) -> Run:
    """A copy of the run to spoil; study, weights and cache stay where they are."""
    return replace(made, path=Path(shutil.copytree(made.path, tmp_path / "run")))


def found(run: Run) -> dict[str, str]:
    return {finding.check: finding.verdict for finding in audit(from_run(run))}


def flagged(run: Run) -> set[str]:
    """Checks that raised a suspicion, beside the broad kinds of picture that the study's splits share by design."""
    return {name for name, word in found(run).items() if word in ("leak", "suspect")} - {"feature_clusters"}


def change_json(path: Path, change: Any) -> None:
    content = read_json(path) if path.is_file() else {}
    change(content)
    path.write_text(json.dumps(content))


def test_an_honest_run_is_not_called_a_leak(made: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.path.rglob("*")}
    assert cli.main(["audit", str(made.path), "--strict", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["source"] == f"run {made.path}: study folder, subject 01, layer features.3, training {run_id(made)}"
    verdicts = {finding["check"]: finding for finding in result["findings"]}
    words = {name: finding["verdict"] for name, finding in verdicts.items()}
    # textures are shared by the splits of the rendered pictures, concepts are not: clusters may be found, or not
    assert words.pop("feature_clusters") in ("clear", "suspect") and words.pop("category_only") in (
        "clear",
        "not checked",
    )
    assert words == {name: "not checked" if name in NOT_CHECKED else "clear" for name in words}
    assert "no times" in verdicts["block_design"]["evidence"]
    assert "none was picked" in verdicts["sample_selection"]["evidence"]
    assert "checks lacked their input" in result["summary"]
    assert {path: path.stat().st_mtime_ns for path in made.path.rglob("*")} == before


def test_stimuli_shared_by_both_splits(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    def share(split: dict[str, Any]) -> None:
        for key in ("ids", "hashes", "concepts"):
            split["train"][key].append(split["test"][key][5])

    change_json(run.path / "split.json", share)
    assert flagged(run) == {"exact_duplicates", "repeated_stimuli", "shared_categories"}
    assert cli.main(["audit", str(run.path), "--strict"]) == 1
    text = capsys.readouterr().out
    assert "1 of 24 test stimuli also have training trials" in " ".join(text.split())
    assert cli.main(["audit", str(run.path)]) == 0


@pytest.mark.parametrize("where", ["report", "configuration", "log"])
def test_choices_made_on_test(where: str, run: Run) -> None:
    if where == "report":
        change_json(
            run.path / "report_sub-01.json", lambda report: report.update(layer_chosen_on="top-1 of the Test set")
        )
    elif where == "configuration":
        target = replace(run.config.target, chosen_on="best layer on test")
        run = replace(run, config=replace(run.config, target=target))
    else:
        with (run.path / "metrics.jsonl").open("a") as log:
            log.write(json.dumps({"epoch": 7, "test_top1": 0.4}) + "\n")
    assert flagged(run) == {"declared_choice"}


def test_reconstructions_that_are_training_pictures(run: Run, made: Run) -> None:
    split = json.loads((run.path / "split.json").read_text())
    study = Path(run.config.study.root or "")
    files = [study / "images" / f"{name}.png" for name in split["train"]["ids"]]
    files = [path if path.is_file() else study / "images" / path.stem for path in files]
    pixels = np.stack([np.asarray(Image.open(path)) for path in files[:N_TEST]])
    folder = PictureFolders(run.path, GENERATOR, run.subject).reconstructions
    shutil.rmtree(folder)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    write_pictures(folder, split["test"]["ids"], images, seed=0, run_id=run_id(made))
    assert flagged(run) == {"memorisation"}


def test_samples_of_a_run_are_compared(run: Run) -> None:
    for seed in (1, 2):
        add_pictures(run, controls=False, seed=seed)
    samples = from_run(run).samples
    assert samples is not None and samples.to_target.shape == (N_TEST, 3) and not samples.published.any()
    assert found(run)["sample_selection"] == "clear"


def test_what_cannot_be_read_is_named(run: Run, tmp_path: Path) -> None:
    material, _ = from_folder(run.path, [f"study.root={tmp_path / 'gone'}"])
    verdicts = {finding.check: finding for finding in audit(material)}
    assert verdicts["repeated_stimuli"].verdict == verdicts["exact_duplicates"].verdict == "clear"  # from split.json
    for check in ("near_duplicates", "shared_recordings", "collapse", "memorisation"):
        assert verdicts[check].verdict == "not checked" and "gone" in verdicts[check].evidence

    shutil.rmtree(run.path / "predictions")
    unread = {finding.check: finding.evidence for finding in audit(from_run(run)) if finding.verdict == "not checked"}
    assert "recon predict" in unread["collapse"] and "near_duplicates" not in unread
    (run.path / "split.json").write_text("{}")
    unread = {finding.check: finding.evidence for finding in audit(from_run(run)) if finding.verdict == "not checked"}
    assert {"repeated_stimuli", "exact_duplicates", "shared_recordings"} <= set(unread)
    assert "train is missing" in unread["repeated_stimuli"] and "train is missing" in unread["memorisation"]


def test_other_settings_and_folders_are_refused(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"target\.layer.*cannot be changed"):
        from_folder(run.path, ["target.layer=features.5"])
    assert cli.main(["audit", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
