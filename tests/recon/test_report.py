"""The report of a real tiny run: schema, meaning of its numbers, refusals, nothing half-written."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from align.checkpoint import Run, load_run, tensors_hash
from align.data.studies.simulated.rendering import TEST_CONCEPTS, picture
from align.errors import UserError
from align.files import read_json
from align.vision.packages import INSTALL
from recon.decoding.predict import run_id
from recon.drawing.folders import find_folders, read_seed, write_pictures
from recon.evaluation import attributes, judge, judges, report
from recon.evaluation.controls import FEW, few_pictures
from recon.evaluation.schema import faults
from recon.evaluation.settings import EvaluateConfig
from recon.evaluation.table import format_report
from recon.metrics import metrics
from recon.metrics.feature_nets import OFFLINE
from recon.metrics.identification import two_way
from recon.metrics.skipped import skipped_lines
from tests.recon import tiny_run
from tests.recon.tiny_run import without_packages

FAST = EvaluateConfig(n_boot=200, n_perm=999, judge="torchvision/squeezenet1_0")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_run.add_pictures(tiny_run.make_run(folder))
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(metrics, "PIXEL_SIZE", 64)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no weights"))
    shutil.copytree(trained / "run", tmp_path / "run")
    return load_run(tmp_path / "run")


@pytest.fixture(scope="module")
def evaluated(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    copied = tmp_path_factory.mktemp("evaluated")
    shutil.copytree(trained / "run", copied / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "PIXEL_SIZE", 64)  # quicker; the true size is tested with the metrics
        patch.setenv("TORCH_HOME", str(copied / "no weights"))
        patch.setattr(judges, "load_judge", tiny_run.only_pixels)
        result = report.evaluate_run(load_run(copied / "run"), settings=FAST)
    return result, json.loads((copied / "run" / "stimuli_sub-01.json").read_text())


def test_report_keeps_the_schema(evaluated: tuple[dict, dict]) -> None:
    assert faults(evaluated[0]) == []
    assert json.loads(json.dumps(evaluated[0], allow_nan=False)) == evaluated[0]


def test_better_pictures_score_better_than_every_control(evaluated: tuple[dict, dict]) -> None:
    found = evaluated[0]
    for name in ("PixCorr", "two_way"):
        entry, controls = found["reconstruction"][name], found["controls"]
        assert entry["n"] == found["n_stimuli"] == tiny_run.N_TEST
        assert entry["ci95"][0] < entry["value"] < entry["ci95"][1]
        assert controls["oracle"][name]["value"] > entry["value"] > controls["shuffled"][name]["value"]
        assert entry["p_vs_control"]["shuffled"] < 0.01
        assert 0 < entry["share_of_ceiling"] < 1
    assert found["controls"]["grey"]["PixCorr"]["value"] == 0
    assert set(found["controls"]) == set(report_controls())
    assert {"LPIPS", "LPIPS(squeeze)", "CLIP", "EffNet", "SwAV"} <= set(found["skipped"])
    assert "not available offline" in found["skipped"]["CLIP"]


def report_controls() -> tuple[str, ...]:
    from recon.evaluation.controls import GENERATOR_CONTROLS, PICTURE_CONTROLS

    return (*GENERATOR_CONTROLS, *PICTURE_CONTROLS)  # no library is ranked without predicted responses


def test_memorised_pictures_are_told_apart(evaluated: tuple[dict, dict]) -> None:
    found, _ = evaluated
    entry, controls = found["reconstruction"]["nearest_is_target"], found["controls"]
    assert entry["chance"] == pytest.approx(1 / (_n_training(entry["protocol"]) + 1))
    assert controls["blurred_target"]["nearest_is_target"]["value"] > entry["chance"]
    for name in ("nearest_training_image", "random_training_image"):
        assert controls[name]["nearest_is_target"]["value"] == 0


def _n_training(protocol: str) -> int:
    return int(protocol.split(" training pictures")[0].rsplit(" ", 1)[1])


def test_the_brain_finds_its_pictures(evaluated: tuple[dict, dict]) -> None:
    found, stimuli = evaluated
    part = found["retrieval"]["brain_to_image"]
    assert part["candidates"] == tiny_run.N_TEST
    assert part["top1"] > 3 * part["chance_top1"]
    own_first = [ids[0] == name for name, ids in stimuli["retrieved"].items()]
    assert np.mean(own_first) == pytest.approx(part["top1"])
    assert np.median(list(stimuli["rank"].values())) == part["median_rank"]
    assert np.mean(stimuli["scores"]["PixCorr"]) == pytest.approx(found["reconstruction"]["PixCorr"]["value"])


def test_table_shows_every_row_and_what_was_skipped(evaluated: tuple[dict, dict]) -> None:
    text = format_report(evaluated[0])
    for words in ("brain_to_image", "chance 4.17%", "oracle", "p against shuffled", "set by hand"):
        assert words in text
    (line,) = [line for line in text.splitlines() if line.startswith("skipped") and OFFLINE in line]
    missing = [name for name, reason in evaluated[0]["skipped"].items() if OFFLINE in reason]
    assert len(missing) > 5 and line.startswith(f"skipped {len(missing)} scores, {OFFLINE}: LPIPS, ")
    assert "CLIP" in line and line.endswith("into evaluate.weights_dir=FOLDER, or set evaluate.download=true")


def test_skipped_scores_are_few_lines() -> None:
    gone = {"a": "weights not available offline: put a.pth into X", "b": "weights not available offline: put b into X"}
    packaged = {"c": f"judge c: weights not available offline: install them ({INSTALL}), or put c into X"}
    assert skipped_lines({"a": gone["a"], "d": "left out"}) == [f"skipped a: {gone['a']}", "skipped d: left out"]
    (line,) = skipped_lines({**gone, **packaged}, "X")
    assert line.startswith("skipped 3 scores, weights not available offline: a, b, c;") and line.endswith(INSTALL)
    assert skipped_lines({"d": "left out", "e": "left out"}) == ["skipped d, e: left out"]


def test_two_halves_are_kept_together(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = report.retrieval_report(run, FAST)
    assert faults(first) == []
    assert "reconstruction" not in first
    monkeypatch.setattr(judges, "load_judge", tiny_run.only_pixels)
    index = run.path / "reconstructions" / tiny_run.GENERATOR / "sub-01" / "index.csv"
    index.write_text("".join(index.read_text().splitlines(keepends=True)[:13]))  # the first 12 pictures only
    with pytest.raises(UserError, match=r"holds 12 of 24 pictures of seed 0; .* --partial"):
        report.evaluate_run(run, settings=FAST)
    whole = report.evaluate_run(run, settings=FAST, partial=True)
    assert (whole["n_stimuli"], whole["n_test_stimuli"]) == (12, 24)
    assert whole["retrieval"] == first["retrieval"]
    again = report.retrieval_report(run, FAST)
    assert again["reconstruction"] == whole["reconstruction"]
    assert again["n_stimuli"] == 12
    assert read_json(report.report_path(run)) == again
    model = run.path / "model.safetensors"
    from align.files import read_tensors, save_tensors

    tensors, metadata = read_tensors(model)
    tensors["signals.mean"] += 1  # as if trained again
    meta = {**json.loads(metadata["meta"]), "weights_hash": tensors_hash(tensors)}
    for name in ("split.json", "config.yaml", "preparation_sub-01.safetensors"):  # they name the weights
        (run.path / name).unlink()
    save_tensors(model, tensors, {**metadata, "meta": json.dumps(meta)})
    assert "reconstruction" not in report.retrieval_report(load_run(run.path), FAST)


@pytest.mark.parametrize(
    ("tokens", "told"),
    [("library", True), pytest.param("predicted", False, marks=pytest.mark.long), ("posterior", False)],
)
def test_pictures_of_the_library_are_named_as_such(
    run: Run, monkeypatch: pytest.MonkeyPatch, tokens: str, told: bool
) -> None:
    monkeypatch.setattr(judges, "load_judge", tiny_run.only_pixels)
    monkeypatch.setattr(report, "read_record", lambda *_: {"tokens": tokens})
    found = report.evaluate_run(run, settings=FAST)
    assert found["tokens"] == tokens and read_json(report.report_path(run))["tokens"] == tokens
    assert any("--tokens library: each shows" in note for note in found["notes"]) is told
    assert ("note: reconstructions were drawn with --tokens library" in format_report(found)) is told
    assert report.retrieval_report(run, FAST)["notes"] == found["notes"]  # kept as the scores are


def test_one_pairing_of_few_pictures_is_said_to_be_no_test_of_chance(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "load_judge", tiny_run.only_pixels)
    found = report.evaluate_run(run, settings=FAST)
    (note,) = [note for note in found["notes"] if "no test of chance" in note]
    assert note.startswith("shuffled is one pairing of only 24 pictures") and f"note: {note}" in format_report(found)
    assert few_pictures(["shuffled"], FEW) == [] == few_pictures(["grey"], 8)
    truth = np.random.default_rng(0).normal(size=(8, 300))
    perfect = np.mean([two_way(np.roll(truth, k, axis=0), truth) for k in range(1, 8)])
    assert perfect == pytest.approx(6 / 14)
    assert f"a perfect decoder's is {perfect:.2f} on average" in few_pictures(["shuffled", "grey"], 8)[0]


def test_pictures_that_are_all_the_same_are_named_in_the_notes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "load_judge", tiny_run.only_pixels)
    folders = find_folders(run)
    ids = list(read_seed(folders.reconstructions, 0))
    one = torch.from_numpy(picture(TEST_CONCEPTS[0] + "-0")).permute(2, 0, 1)[None] / 255
    write_pictures(folders.reconstructions, ids, one.repeat(len(ids), 1, 1, 1), seed=0, run_id=run_id(run))
    found = report.evaluate_run(run, settings=FAST)
    (note,) = [note for note in found["notes"] if "the same" in note]
    assert note.startswith(f"24 of 24 reconstructions are one and the same picture: {ids[0]} = {ids[1]} and 22 more")
    assert f"note: {note}" in format_report(found)


def test_missing_judge_and_missing_controls_are_listed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    without_packages(monkeypatch)
    shutil.rmtree(run.path / "controls")
    found = report.evaluate_run(run, settings=FAST)
    assert faults(found) == []
    assert "squeezenet1_0" in found["skipped"]["two_way"] and found["judges"] == []
    assert "[weights]" in found["skipped"]["two_way(efficientnet_lite0)"]
    assert {"controls.shuffled", "controls.zero_brain", "controls.oracle"} <= set(found["skipped"])
    assert "shuffled" not in found["controls"]


def test_evaluation_refuses_what_it_cannot_trust(run: Run) -> None:
    with pytest.raises(UserError, match="took part in this run"):
        report.evaluate_run(run, settings=EvaluateConfig(judge="torchvision/squeezenet1_1"))
    with pytest.raises(UserError, match="only knows the simulated study"):
        report.evaluate_run(run, settings=EvaluateConfig(judge="reader"))
    with pytest.raises(UserError, match="judge='squeezenet' is not known"):
        report.evaluate_run(run, settings=EvaluateConfig(judge="squeezenet"))
    with pytest.raises(UserError, match="recon generate --subject 01"):
        report.evaluate_run(run, generator="other")
    folder = run.path / "reconstructions" / tiny_run.GENERATOR / "sub-01"
    index = folder / "index.csv"
    text = index.read_text()
    index.write_text(text.replace(run_id(run), "older@0"))
    with pytest.raises(UserError, match="run recon generate again"):
        report.evaluate_run(run, settings=FAST)
    index.write_text(text.replace("100%.png,", "100%.gif,"))
    with pytest.raises(UserError, match="no test stimulus"):
        report.evaluate_run(run, settings=FAST)
    index.write_text(text)
    next(folder.glob("*.png")).write_bytes(b"\x89PNG cut")
    with pytest.raises(UserError, match="changed after it was drawn"):
        report.evaluate_run(run, settings=FAST)
    assert not report.report_path(run).exists()


def test_the_generators_own_networks_may_not_judge() -> None:
    used = {"transformers/x", *judge.USED_BY_GENERATOR["mini"]}
    plain = EvaluateConfig(judge_weights="squeezenet1_0.pth")  # weights without a name are SqueezeNet's
    assert judge.judge_name(plain, "cowley2023_v4", used) == "torchvision/squeezenet1_0"
    assert judge.judge_name(EvaluateConfig(), "simulated", used) == "reader"
    with pytest.raises(UserError, match="took part"):
        judge.judge_name(EvaluateConfig(judge="torchvision/squeezenet1_1"), "cowley2023_v4", used)


def test_schema_finds_planted_faults(evaluated: tuple[dict, dict]) -> None:
    def planted(change: str, value: object) -> list[str]:
        broken = copy.deepcopy(evaluated[0])
        *path, last = change.split("/")
        part = broken
        for key in path:
            part = part[key]
        if value is None:
            del part[last]
        else:
            part[last] = value
        return faults(broken)

    assert planted("layer", None) == ["layer: missing"]
    assert planted("seed", "0") == ["seed: '0' is no int"]
    assert planted("retrieval/brain_to_image/p_permutation", 1.5)
    assert planted("retrieval/brain_to_image/candidates", 7)
    assert planted("retrieval/image_to_brain", None)
    assert planted("retrieval/transductive", None)
    assert planted("reconstruction/PixCorr/ci95", [1.0, 0.0])
    assert planted("reconstruction/PixCorr/p_vs_control", {"grey": -1})
    assert planted("reconstruction/two_way", None)
    assert planted("controls/oracle/SSIM", None)
    assert planted("skipped/CLIP", None)
    assert planted("judge", evaluated[0]["backbone"])
    assert faults({**evaluated[0], "schema": 2}) == ["schema: 2 is not 1"]


def test_attributes_are_read_back_above_chance_only_where_they_are() -> None:
    from recon.metrics.reader import ATTRIBUTES

    ids = [f"{concept}-0" for concept in TEST_CONCEPTS[::2][:80]]
    seen = torch.from_numpy(np.stack([picture(name) for name in ids])).permute(0, 3, 1, 2) / 255
    truth = attributes.true_labels(ids)
    rows = {"seen": seen, "reconstruction": seen + 1, "shuffled": seen + 2, "oracle": seen + 3}
    rng = np.random.default_rng(0)

    def read(images: torch.Tensor) -> dict[str, np.ndarray]:
        """Right about the shape of reconstructions in every second picture, about nothing when shuffled."""
        kind, told = round(float(images.mean() - seen.mean())), {}
        for name, classes in ATTRIBUTES.items():
            labels = truth[name].copy()
            wrong = np.zeros(80, bool) if kind in (0, 3) else np.arange(80) % 2 == 1
            if kind == 2 or (kind == 1 and name != "shape"):
                wrong[:] = True
            labels[wrong] = rng.integers(0, len(classes), size=wrong.sum())
            told[name] = np.eye(len(classes))[labels]
        return told

    found, right = attributes.read_back(read, rows, ids, FAST)
    assert {name: np.mean(hits) for name, hits in right.items()} == {name: e["accuracy"] for name, e in found.items()}
    assert right["shape"][::2] == [1.0] * 40
    assert set(found) == {"shape", "pattern", "texture", "colour", "position"}
    shape, pattern = found["shape"], found["pattern"]
    assert shape["accuracy"] > 0.5 > shape["controls"]["shuffled"]
    assert shape["p_permutation"] == shape["p_vs_control"]["shuffled"] == 0.001
    assert pattern["p_permutation"] > 0.01
    assert shape["controls"]["oracle"] == shape["controls"]["seen"] == 1
    assert 1 / shape["classes"] <= shape["chance"] < 0.25
    assert set(shape["p_vs_control"]) == {"shuffled"}
