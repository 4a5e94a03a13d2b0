"""Several real tiny runs as one decoder: report, members, refusals; single runs keep their reports."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from align import retrieval
from align.checkpoint import load_run
from align.files import read_tensors, save_tensors
from recon import cli
from recon.evaluation.recordings import RunData
from recon.evaluation.schema import faults
from recon.scoring.aggregate import load_results
from tests.recon import tiny_run

FAST = ["evaluate.n_boot=50", "evaluate.n_perm=99"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three encoders of one recording: another number of components, another layer."""
    from align.train import train

    folder = tmp_path_factory.mktemp("members")
    config = tiny_run.make_run(folder).config
    others = [replace(config.target, components=4), replace(config.target, layer="features.4", components=6)]
    for seed, target in enumerate(others, 1):
        train(replace(config, target=target, seed=seed, run_dir=str(folder / f"run-{seed}")), progress=False)
    (folder / "fewer").mkdir()
    tiny_run.make_run(folder / "fewer", n_test=12, seed=1)  # of the same study and subject, fewer test pictures
    return [folder / "run", folder / "run-1", folder / "run-2"]


def _retrieve(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = cli.main(["retrieve", "--subject", "01", *map(str, words), *FAST])
    return code, *capsys.readouterr()


def test_report_of_an_ensemble(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "together"
    code, text, _ = _retrieve(capsys, "--run", runs[0], "--run", runs[1], runs[2], "--out", out)
    assert code == 0 and text.count("  alone ") == 3 and str(out / "report_sub-01.json") in text
    report = json.loads((out / "report_sub-01.json").read_text())
    assert faults(report) == []
    assert _retrieve(capsys, "--run", runs[1])[0] == 0
    single = json.loads((runs[1] / "report_sub-01.json").read_text())
    assert set(report) - set(single) == {"ensemble"} and set(single) <= set(report)
    assert "ensemble" not in single
    members = report["ensemble"]["members"]
    assert [member["path"] for member in members] == [str(path) for path in runs]
    assert [(member["seed"], member["layer"]) for member in members] == [
        (0, "features.3"),
        (1, "features.3"),
        (2, "features.4"),
    ]
    assert members[1]["run"] == single["run"]
    for name in ("brain_to_image", "image_to_brain"):
        for key in ("top1", "n", "candidates", "chance_top1", "ci95_top1"):
            assert members[1][key][name] == single["retrieval"][name][key]
    low, high = single["retrieval"]["brain_to_image"]["ci95_top1"]
    line = next(line for line in text.splitlines() if line.startswith("  alone ") and f"{runs[1]}  (" in line)
    assert low < high and f" [{low:.1%}, {high:.1%}]  seed 1," in line
    assert line.endswith(f"(chance {1 / tiny_run.N_TEST:.2%}, n {tiny_run.N_TEST}, candidates {tiny_run.N_TEST})")
    assert (report["layer"], report["encoder"], report["seed"]) == (
        "features.3, features.4",
        "ensemble of 3 (ridge)",
        0,
    )
    assert report["retrieval"]["brain_to_image"]["top1"] == pytest.approx(_by_hand(runs))
    (result,) = load_results([out])
    assert len(result.stimuli["brain_to_image.top1"]) == report["n_stimuli"] == tiny_run.N_TEST
    stimuli = json.loads((out / "stimuli_sub-01.json").read_text())
    first = [ids[0] == name for name, ids in stimuli["retrieved"].items()]
    assert np.mean(first) == pytest.approx(report["retrieval"]["brain_to_image"]["top1"])


def _by_hand(paths: list[Path]) -> float:
    """Share of rows whose own picture has the highest sum of standardised cosines."""
    total = np.zeros((tiny_run.N_TEST, tiny_run.N_TEST))
    for path in paths:
        run_data = RunData(load_run(path))
        images = run_data.picture_embeds([run_data.row[name] for name in run_data.predictions.ids])
        cosine = retrieval.scores(run_data.predictions.embeds, images)
        total += np.stack([(row - row.mean()) / row.std() for row in cosine])
    return float((total.argmax(1) == np.arange(len(total))).mean())


def test_order_of_members_changes_no_score(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for name, order in (("a", runs), ("b", runs[::-1])):
        assert _retrieve(capsys, "--run", *order, "--out", tmp_path / name)[0] == 0
        found.append(json.loads((tmp_path / name / "report_sub-01.json").read_text()))
    assert found[0]["run"] == found[1]["run"]
    for direction in ("brain_to_image", "image_to_brain"):
        assert found[0]["retrieval"][direction]["top1"] == pytest.approx(found[1]["retrieval"][direction]["top1"])


def test_what_does_not_belong_together_is_one_line(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(message: str, *words: object) -> None:
        code, out, err = _retrieve(capsys, *words)
        assert (code, out) == (2, "")
        lines = [line for line in err.splitlines() if not line.startswith("study ")]  # which runs were opened
        assert len(lines) == 1 and message in lines[0], err

    out = tmp_path / "out"
    refused("pass --out DIR", "--run", *runs)
    refused("--out is where the report of several runs goes", "--run", runs[0], "--out", out)
    refused("hold the same weights", "--run", runs[0], runs[0], "--out", out)
    refused("is the folder of a run", "--run", *runs, "--out", runs[2])
    refused("holds no model.safetensors", "--run", runs[0], tmp_path, "--out", out)
    for key, value, message in (("study", "another", "is of study 'another'"), ("subject", "02", "is of subject 02")):
        other = tmp_path / key
        shutil.copytree(runs[1], other)
        tensors, metadata = read_tensors(other / "model.safetensors")
        meta = {**json.loads(metadata["meta"]), key: value}
        meta["subjects"] = [meta["subject"]]
        save_tensors(other / "model.safetensors", tensors, {**metadata, key: value, "meta": json.dumps(meta)})
        refused(message, "--run", runs[0], other, "--out", out)
    refused("an ensemble is scored on one test set", "--run", runs[0], runs[0].parent / "fewer" / "run", "--out", out)
    assert not out.exists()
