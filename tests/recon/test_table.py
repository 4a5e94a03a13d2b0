"""`recon table`: means, intervals over subjects and stimuli, paired comparison, formats; real THINGS-EEG2 seeds."""

from __future__ import annotations

import csv
import io
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.stats import binom, kstest, ttest_1samp

from align import checkpoint, retrieval
from align.checkpoint import MODEL, weights_id
from align.config import Config, load_config, to_dict
from align.errors import UserError
from align.files import save_tensors, write_json
from recon import cli
from recon.drawing.folders import PictureFolders, write_pictures
from recon.drawing.record import NOT_TUNED
from recon.evaluation.sources import digests
from recon.metrics.stats import sign_flip_p
from recon.scoring.aggregate import load_results, rows, summary
from recon.scoring.paired import compare
from recon.scoring.ranges import inside
from recon.scoring.result import Result
from recon.scoring.retrieval import score_matrix
from tests.conftest import shared_path

TOP1 = "brain_to_image.top1"


def _store(path: Path, matrix: np.ndarray, **labels: Any) -> Path:
    """What ``recon score --out`` writes."""
    result = score_matrix(matrix, n_boot=50, n_perm=49, transductive=False)
    write_json(path, {"schema": 1, "kind": "score", "name": None, "subject": None, "seed": None, **labels, **result})
    return path


def _matrix(n: int, signal: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, n)) + signal * np.eye(n)


def _table(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    assert cli.main(["table", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_ten_real_seeds_in_one_row_and_clip_against_dinov2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    matrices = load_file(shared_path("data/things_eeg2_scores") / "scores_200x200.safetensors")
    clip = [
        _store(tmp_path / f"clip{s}.json", matrices[f"vitl_image_seed{s}"], name="CLIP", subject="08", seed=s)
        for s in range(10)
    ]
    dino = [
        _store(tmp_path / f"dino{s}.json", matrices[f"dinov2_da2_seed{s}"], name="DINOv2", subject="08", seed=s)
        for s in range(3)
    ]
    found = json.loads(_table(capsys, *clip, "--json"))["rows"]
    assert len(found) == 1
    row = found[0]
    hits = np.array(
        [np.argmax(matrices[f"vitl_image_seed{s}"], axis=1) == np.arange(200) for s in range(10)], dtype=float
    )
    assert row["metrics"][TOP1]["value"] == pytest.approx(hits.mean()) == pytest.approx(0.2745, abs=1e-9)
    low, high = row["metrics"][TOP1]["ci95"]
    half = 1.96 * hits.mean(axis=0).std() / np.sqrt(200)  # seeds are no further stimuli
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    assert (row["seeds"], row["n"], row["interval_over"]) == (10, 200, "stimuli")

    paired = json.loads(_table(capsys, *clip, "--paired", *dino, "--json"))["rows"][0]["paired"][TOP1]
    base = np.array([np.argmax(matrices[f"dinov2_da2_seed{s}"], axis=1) == np.arange(200) for s in range(3)])
    gap = hits.mean(axis=0) - base.mean(axis=0)
    assert paired["difference"] == pytest.approx(gap.mean())
    half = 1.96 * gap.std() / np.sqrt(200)
    assert paired["ci95"] == pytest.approx([gap.mean() - half, gap.mean() + half], abs=0.01)
    assert paired["p"] < 0.05 and paired["n"] == 200
    text = _table(capsys, *clip, "--paired", *dino)
    assert "| CLIP | 1 | 10 | 200 | 200 |" in text and "(chance 0.005)" in text and "DINOv2 (base)" in text


def test_mean_over_seeds_then_subjects_with_an_interval_over_subjects(tmp_path: Path) -> None:
    values: dict[str, list[float]] = {}
    for subject in range(4):
        for seed in range(1 + subject % 2):  # uneven: a subject with more seeds weighs no more
            matrix = _matrix(30, 1.0 + subject, 10 * subject + seed)
            _store(tmp_path / f"{subject}{seed}.json", matrix, name="m", subject=f"0{subject}", seed=seed)
            values.setdefault(f"0{subject}", []).append(retrieval.both_directions(matrix)["brain_to_image"]["top1"])
    results = load_results(sorted(tmp_path.glob("*.json")))
    total, *broken = rows(results, ["subject"])
    means = [float(np.mean(part)) for part in values.values()]
    assert total["metrics"][TOP1]["value"] == pytest.approx(np.mean(means))
    assert total["interval_over"] == "subjects" and (total["subjects"], total["seeds"]) == (4, 2)
    low, high = ttest_1samp(means, 0).confidence_interval(0.95)
    assert total["metrics"][TOP1]["ci95"] == pytest.approx([low, min(1, high)])
    assert [row["subject"] for row in broken] == ["00", "01", "02", "03"]
    assert [row["metrics"][TOP1]["value"] for row in broken] == pytest.approx(means)
    assert {row["interval_over"] for row in broken} == {"stimuli"}
    assert len(rows(results, ["subject", "seed"])) == 1 + len(results)
    with pytest.raises(UserError, match="not 'layer'"):
        rows(results, ["layer"])


def _result(method: str, subject: str, seed: str, value: float, stimuli: dict[str, dict[str, float]]) -> Result:
    metrics = {name: {"value": value, "better": "higher"} for name in (stimuli or {TOP1: {}})}
    return Result(Path("made"), method, subject, seed, metrics, stimuli, 200, 200)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_interval_over_subjects_covers_the_truth(n: int) -> None:
    """500 studies: subjects of normal ability around .3, each seen through 200 hits and misses, two seeds each."""
    rng = np.random.default_rng(n)
    inside = 0
    for _ in range(500):
        shares = rng.binomial(200, rng.normal(0.3, 0.07, size=(n, 1)), size=(n, 2)) / 200
        row = summary([_result("m", str(i), str(s), shares[i, s], {}) for i in range(n) for s in range(2)])
        assert row["interval_over"] == "subjects"
        low, high = row["metrics"][TOP1]["ci95"]
        inside += low <= 0.3 <= high
    assert 0.93 <= inside / 500 <= 0.97


def _paired(ours: np.ndarray, theirs: np.ndarray, seed: int) -> dict[str, Any]:
    made = [
        [_result(name, "1", "0", 0.0, {TOP1: {str(i): float(x) for i, x in enumerate(values)}})]
        for name, values in (("ours", ours), ("base", theirs))
    ]
    return compare(*made, seed=seed)[TOP1]


def test_paired_interval_covers_and_paired_p_is_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    """500 experiments of 60 stimuli whose difficulty both methods share; no difference on average."""
    monkeypatch.setattr("recon.scoring.paired.sign_flip_p", partial(sign_flip_p, n_perm=199))
    rng = np.random.default_rng(4)
    inside, p, coarse = 0, [], []
    for repeat in range(500):
        difficulty = 3 * rng.normal(size=60)
        found = _paired(difficulty + rng.normal(size=60), difficulty + rng.normal(size=60), repeat)
        low, high = found["ci95"]
        inside += low <= 0 <= high
        p.append(found["p"])
        if repeat < 200:
            hits = rng.random(size=(2, 60)) < rng.random(60)
            coarse.append(_paired(hits[0], hits[1], repeat)["p"])
    assert 0.93 <= inside / 500 <= 0.97
    assert kstest(p[:200], "uniform").pvalue > 0.05
    for level in (0.05, 0.2, 0.5):  # hits are coarse: their p may be too large, never too small
        assert np.sum(np.array(coarse) <= level) <= binom.ppf(0.999, 200, level)


def test_stimuli_of_subjects_who_saw_other_pictures_are_independent_groups(tmp_path: Path) -> None:
    """Two subjects, same hits: with shared pictures they are one sample, with own pictures twice the sample."""
    matrix = _matrix(60, 2.0, 0)
    widths = []
    for names in (("p", "p"), ("p", "q")):
        paths = []
        for subject, letter in enumerate(names):
            path = _store(tmp_path / f"{letter}{subject}.json", matrix, name="m", subject=str(subject), seed=0)
            content = json.loads(path.read_text())
            content["per_stimulus"]["ids"] = [f"{letter}{i}" for i in range(60)]
            write_json(path, content)
            paths.append(path)
        low, high = rows(load_results(paths))[0]["metrics"][TOP1]["ci95"]
        widths.append(high - low)
    assert widths[1] / widths[0] == pytest.approx(np.sqrt(0.5), rel=0.15)


def test_paired_null_and_faults(tmp_path: Path) -> None:
    base = load_results([_store(tmp_path / "a.json", _matrix(40, 1.5, 0), name="a", subject="1")])
    better = load_results([_store(tmp_path / "better.json", _matrix(40, 4.0, 0), name="better", subject="1")])
    found = compare(better, base)[TOP1]
    assert 0 < found["ci95"][0] < found["difference"] < found["ci95"][1] and found["p"] < 0.01
    assert found["difference"] == pytest.approx(better[0].metrics[TOP1]["value"] - base[0].metrics[TOP1]["value"])
    same = compare(base, base)[TOP1]
    assert (same["difference"], same["ci95"], same["p"]) == (0, [0, 0], 1)
    other = load_results([_store(tmp_path / "b.json", _matrix(40, 1.5, 1), name="b", subject="2")])
    with pytest.raises(UserError, match="the base has subjects 1, b has 2"):
        compare(other, base)
    smaller = load_results([_store(tmp_path / "c.json", _matrix(39, 1.5, 1), name="c", subject="1")])
    with pytest.raises(UserError, match="39 and 40, 39 in common"):
        compare(smaller, base)
    smaller[0].stimuli.clear()
    with pytest.raises(UserError, match=r"c\.json' has no values per stimulus"):
        compare(smaller, base)


def _run_folder(path: Path, matrix: np.ndarray, subject: str, seed: int, *, each: bool = True) -> Path:
    """A run as `recon evaluate` leaves it, as far as the table reads it."""
    ids = [f"s{i}" for i in range(len(matrix))]
    part = retrieval.report(matrix, n_boot=50, n_perm=49)
    head = {"schema": 1, "study": "study", "subject": subject, "seed": seed, "run": f"{subject}{seed}"}
    metric = np.random.default_rng(seed).random(len(ids))
    pictures = {"PixCorr": {"value": float(metric.mean()), "better": "higher", "n": len(ids)}}
    report = {**head, "backbone": "net", "layer": "3", "encoder": "ridge", "n_stimuli": len(ids), "retrieval": part}
    write_json(path / f"report_sub-{subject}.json", {**report, "reconstruction": pictures})
    stimuli: dict[str, Any] = {"run": head["run"], "ids": ids, "scores": {"PixCorr": metric.tolist()}}
    if each:
        stimuli["per_stimulus"] = {"ids": ids, **retrieval.per_stimulus(matrix)}
    write_json(path / f"stimuli_sub-{subject}.json", stimuli)
    return path


def test_what_the_reader_finds_is_compared_picture_by_picture(tmp_path: Path) -> None:
    """`recon evaluate` stores a hit or miss of every attribute for every picture."""
    found = {}
    for name, hits in (("without", [0.0] * 10 + [1.0] * 15), ("with", [1.0] * 25)):
        folder = _run_folder(tmp_path / name, _matrix(25, 2.0, 1), "01", 0)
        report, stimuli = folder / "report_sub-01.json", folder / "stimuli_sub-01.json"
        entry = {"accuracy": float(np.mean(hits)), "chance": 0.2, "n": 25, "classes": 6, "p_permutation": 0.01}
        told = {"shape": {**entry, "controls": {"shuffled": 0.1}, "p_vs_control": {"shuffled": 0.02}}}
        write_json(report, {**json.loads(report.read_text()), "attributes": told})
        write_json(stimuli, {**json.loads(stimuli.read_text()), "attributes": {"shape": hits}})
        found[name] = load_results([folder])
    shape = rows(found["without"])[0]["metrics"]["attribute.shape"]
    assert (shape["value"], shape["chance"], shape["better"]) == (0.6, 0.2, "higher") and shape["ci95"][0] < 0.6
    assert found["with"][0].metrics["attribute.shape"]["controls"] == {"shuffled": {"value": 0.1}}
    difference = compare(found["with"], found["without"])["attribute.shape"]
    assert difference["difference"] == pytest.approx(0.4) and difference["p"] < 0.01
    assert 0.1 < difference["ci95"][0] < 0.4 < difference["ci95"][1] < 0.7
    write_json(stimuli, {**json.loads(stimuli.read_text()), "attributes": {"shape": [0.0] * 25}})
    with pytest.raises(UserError, match=r"attributes\.shape\.accuracy is 1, the mean over its stimuli is 0"):
        load_results([tmp_path / "with"])
    write_json(stimuli, {**json.loads(stimuli.read_text()), "attributes": {"shape": [1.0] * 24}})
    with pytest.raises(UserError, match=r"attributes\.shape"):
        load_results([tmp_path / "with"])


def test_run_folders_and_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for subject in ("01", "02"):
        _run_folder(tmp_path / "runs" / f"sub-{subject}", _matrix(25, 2.0, int(subject)), subject, 0)
    found = json.loads(_table(capsys, tmp_path / "runs", "--json"))
    row = found["rows"][0]
    assert row["method"] == "study ridge net 3" and row["subjects"] == 2 and row["n"] == 25
    assert row["metrics"]["PixCorr"]["ci95"][0] < row["metrics"]["PixCorr"]["value"] < 0.9
    assert ["fewer than 3 subjects" in note for note in found["notes"]] == [True]

    words: list[str | Path] = [tmp_path / "runs", "--by", "subject,seed", "--paired", tmp_path / "runs"]
    lines = _table(capsys, *words).splitlines()
    assert "differences from the base, their intervals and p are over stimuli" in lines[-1]
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 1 + 2 + 1 and len({line.count("|") for line in table}) == 1
    assert "subject 01, seed 0" in table[3] and "PixCorr" in table[0]
    read = list(csv.DictReader(io.StringIO(_table(capsys, *words, "--csv"))))
    assert [line["subject"] for line in read] == ["", "01", "02", ""]
    assert float(read[0][TOP1]) == row["metrics"][TOP1]["value"]
    assert float(read[0][f"{TOP1}_low"]) == row["metrics"][TOP1]["ci95"][0]
    assert float(read[0][f"{TOP1}_difference"]) == 0 and float(read[0][f"{TOP1}_chance"]) == 1 / 25
    tex = _table(capsys, *words, "--latex")
    body = [line for line in tex.splitlines() if line.endswith(r"\\")]
    assert len(body) == 5 and len({line.count(" & ") for line in body}) == 1
    assert r"brain\_to\_image.top1 $\uparrow$" in tex and tex.startswith(r"\begin{tabular}")


def _changed(path: Path, subject: str, **changes: Any) -> Path:
    """A run folder whose report says something else; a value of None is taken out."""
    file = _run_folder(path, _matrix(24, 2.0, int(subject)), subject, 0) / f"report_sub-{subject}.json"
    report = {**json.loads(file.read_text(encoding="utf-8")), **changes}
    write_json(file, {key: value for key, value in report.items() if value is not None})
    return path


def test_runs_that_are_not_comparable_are_rows_of_their_own(tmp_path: Path) -> None:
    whole = {"roi": None, "channels": None, "window": None, "n_channels": 480, "n_times": None}
    paths = [
        _changed(tmp_path / "a", "01", selection=whole, recipe={}),
        _changed(tmp_path / "b", "02", selection={**whole, "n_channels": 500}, recipe={}),
        _changed(tmp_path / "c", "01", selection={**whole, "roi": ["V1"], "n_channels": 40}, recipe={}),
        _changed(tmp_path / "d", "01", selection={**whole, "window": [0.1, 0.3]}, recipe={}),
        _changed(tmp_path / "e", "01", selection=whole, recipe={"train.epochs": 9}),
        _changed(tmp_path / "f", "01", selection=whole, recipe={"study": "other"}),
        _changed(tmp_path / "g", "01", selection={**whole, "channels": "^O"}, recipe={}),
        _changed(tmp_path / "h", "01", encoder="mlp"),
    ]
    found = {row["method"]: row["subjects"] for row in rows(load_results(paths))}
    assert found == {
        "study ridge net 3 (train.epochs=default, study=default)": 2,
        "study ridge net 3 roi [V1]": 1,
        "study ridge net 3 window 0.1:0.3": 1,
        "study ridge net 3 (train.epochs=9, study=default)": 1,
        "study ridge net 3 (train.epochs=default, study=other)": 1,
        "study ridge net 3 channels ^O": 1,
        "study mlp net 3": 1,
    }


def test_every_score_has_its_own_n_and_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = {"PixCorr": {"value": 0.5, "better": "higher", "n": 12}}
    _changed(tmp_path / "runs" / "a", "01", generator="mini", reconstruction=few, n_stimuli=12)
    (tmp_path / "runs" / "a" / "stimuli_sub-01.json").unlink()
    _changed(tmp_path / "runs" / "b", "02", generator=None, reconstruction=None)
    found = json.loads(_table(capsys, tmp_path / "runs", "--json"))
    (row,) = found["rows"]
    assert row["method"] == "study ridge net 3 mini" and row["subjects"] == 2
    assert (row["metrics"]["PixCorr"]["n"], row["metrics"]["PixCorr"]["subjects"]) == (12, 1)
    assert (row["metrics"][TOP1]["n"], row["metrics"][TOP1]["subjects"]) == (24, 2)
    assert any("not every subject has PixCorr" in note for note in found["notes"])
    line = _table(capsys, tmp_path / "runs").splitlines()[2]
    assert "0.500 (n 12, subjects 1)" in line and "n 24)" in line
    assert "PixCorr_n" in _table(capsys, tmp_path / "runs", "--csv").splitlines()[0]


def test_columns_are_chosen_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for subject in ("01", "02"):
        _run_folder(tmp_path / "runs" / subject, _matrix(25, 2.0, int(subject)), subject, 0)
    words: list[str | Path] = [tmp_path / "runs", "--paired", tmp_path / "runs", "--json", "--columns"]
    for asked, kept in (
        (["PixCorr", "to_image.top1"], ["PixCorr", TOP1]),
        (["top5"], ["brain_to_image.top5", "image_to_brain.top5"]),
        ([TOP1], [TOP1]),
    ):
        row = json.loads(_table(capsys, *words, *asked))["rows"][0]
        assert list(row["metrics"]) == kept == list(row["paired"])
    assert cli.main(["table", str(tmp_path / "runs"), "--columns", "FID"]) == 2
    assert "no result has a score 'FID'; there are: brain_to_image.top1" in capsys.readouterr().err


def test_intervals_stay_inside_the_range_of_the_score(tmp_path: Path) -> None:
    files = [
        _store(tmp_path / f"{i}.json", _matrix(20, signal, i), name="m", subject=str(i), seed=0)
        for i, signal in enumerate((9.0, 9.0, 0.5))
    ]
    metrics = rows(load_results(files))[0]["metrics"]
    assert metrics[TOP1]["ci95"][1] == 1.0 and metrics[TOP1]["ci95"][0] >= 0
    assert metrics["brain_to_image.median_rank"]["ci95"][0] == 1.0  # no rank is better
    cut = {"LPIPS": [0.0, 3.0], "CLIP (oracle)": [0.0, 1.0], "SwAV": [0.0, 2.0], "PixCorr": [-1.0, 1.0]}
    assert {name: inside(name, [-9.0, 3.0]) for name in cut} == cut and inside("own", [-9.0, 3.0]) == [-9.0, 3.0]


def test_two_generators_are_two_rows(tmp_path: Path) -> None:
    paths = [
        _changed(tmp_path / name, name, generator=kind) for name, kind in (("1", "mini"), ("2", "sdxl"), ("3", None))
    ]
    found = {row["method"] for row in rows(load_results(paths))}
    assert found == {"study ridge net 3 mini", "study ridge net 3 sdxl", "study ridge net 3"}


def test_two_first_judges_are_two_rows_that_name_them(tmp_path: Path) -> None:
    score = {"two_way": {"value": 0.7, "better": "higher", "n": 24}}
    one, two = ({"name": name, "weights": f"{name}.pth@1", "family": name, "relatives": []} for name in ("a", "b"))
    other = {**one, "weights": "a.pth@2"}
    for judges, said in (((one, two), ["judge a", "judge b"]), ((one, other), ["judge a a.pth@1", "judge a a.pth@2"])):
        paths = [
            _changed(tmp_path / said[0] / str(k), str(k), reconstruction=score, judges=[{**judge, "score": "two_way"}])
            for k, judge in enumerate(judges)
        ]
        assert [row["method"] for row in rows(load_results(paths))] == [f"study ridge net 3 {name}" for name in said]
        assert len(rows(load_results(paths[:1]))) == 1 and "judge" not in rows(load_results(paths[:1]))[0]["method"]


def _drawn(path: Path, subject: str, n: int, total: int, **used: Any) -> Path:
    """A run of ``total`` test pictures, ``n`` of which were drawn and scored."""
    judged = {"two_way": {"value": 0.1 * int(subject), "better": "higher", "n": n, "chance": 0.5}}
    judged["top1"] = {"value": 0.2, "better": "higher", "n": n, "chance": 1 / n}
    stated = {"drawn_with": {"run": subject, "seeds": [0], "drawing": subject, **used}} if used else {}
    counts = {"n_stimuli": n, "n_test_stimuli": total}
    return _changed(path / subject, subject, generator="mini", reconstruction=judged, **counts, **stated)


def test_pictures_drawn_in_other_ways_are_rows_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few, whole = _drawn(tmp_path, "1", 8, 20, steps=6), _drawn(tmp_path, "2", 20, 20, steps=4)
    found = json.loads(_table(capsys, few, whole, "--json"))
    assert [(row["method"], row["n"], row["metrics"]["top1"]["chance"]) for row in found["rows"]] == [
        ("study ridge net 3 mini (8 of 20 pictures, steps=6)", 8, 1 / 8),
        ("study ridge net 3 mini (20 of 20 pictures, steps=4)", 20, 1 / 20),
    ]
    assert [note for note in found["notes"] if "different ways" in note] == [
        "pictures were drawn or scored in different ways, which are rows of their own: "
        "8 of 20 and 20 of 20 pictures; steps 6 and 4"
    ]
    assert not any("is the mean over" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("one", "two", "count"),
    [
        ({"steps": 6}, {"steps": 6}, 1),
        ({"strength": 0.2, "steps": 6}, {"strength": 0.4, "steps": 6}, 2),
        ({"strength": 0.2, "chosen_on": "held-out"}, {"strength": 0.4, "chosen_on": "held-out"}, 1),
        ({"strength": 0.2, "chosen_on": "held-out"}, {"strength": 0.4, "chosen_on": NOT_TUNED}, 2),
        ({"steps": 6, "chosen_on": "held-out"}, {"steps": 4, "chosen_on": "held-out"}, 2),
        ({}, {"steps": 4}, 1),  # an older report does not say how
    ],
)
def test_which_drawings_are_alike(tmp_path: Path, one: dict[str, Any], two: dict[str, Any], count: int) -> None:
    paths = [_drawn(tmp_path, "1", 20, 20, **one), _drawn(tmp_path, "2", 20, 20, **two)]
    assert len(rows(load_results(paths))) == count


def test_means_over_different_n_and_chances_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [_drawn(tmp_path, "1", 16, 16, steps=4), _drawn(tmp_path, "2", 20, 20, steps=4)]
    found = json.loads(_table(capsys, *paths, "--json"))
    assert [row["n"] for row in found["rows"]] == [18]
    assert (
        "study ridge net 3 mini: n is the mean over 16 and 20; chance of top1 is the mean over 0.05 and 0.0625"
        in found["notes"]
    )
    assert sum("brain_to_image.top1)" in note for note in found["notes"]) == 1
    alone = json.loads(_table(capsys, paths[0], "--json"))["notes"]
    assert not any("is the mean over" in note or "different ways" in note for note in alone)


def test_controls_and_p_are_columns_where_they_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for subject, p in (("01", 0.001), ("02", 0.04)):
        entry = {"value": 0.5, "better": "higher", "n": 24, "p_vs_control": {"shuffled": p}}
        controls = {"shuffled": {"PixCorr": {"value": 0.1}}, "oracle": {"PixCorr": {"value": 0.9, "ci95": [0.8, 1.0]}}}
        _changed(tmp_path / "runs" / subject, subject, reconstruction={"PixCorr": entry}, controls=controls)
        (tmp_path / "runs" / subject / f"stimuli_sub-{subject}.json").unlink()
    words: list[str | Path] = [tmp_path / "runs", "--columns", "PixCorr"]
    plain = _table(capsys, *words)
    assert "0.500 (shuffled 0.100)" in plain and "PixCorr (shuffled)" not in plain
    words += ["--controls", "shuffled", "oracle", "--p"]
    found = json.loads(_table(capsys, *words, "--json"))
    metrics = found["rows"][0]["metrics"]
    assert {name: entry["value"] for name, entry in metrics.items()} == {
        "PixCorr": 0.5,
        "PixCorr (shuffled)": 0.1,
        "PixCorr (oracle)": 0.9,
        "PixCorr p (shuffled)": 0.04,
    }
    assert "p of several results is the largest of theirs" in found["notes"]
    assert "| 0.04 |" in _table(capsys, *words) and "(shuffled 0.100)" not in _table(capsys, *words)
    one = json.loads(_table(capsys, tmp_path / "runs" / "01", *words[1:], "--json"))["rows"][0]["metrics"]
    assert one["PixCorr (oracle)"]["ci95"] == [0.8, 1.0]
    retrieved = json.loads(_table(capsys, tmp_path / "runs", "--columns", TOP1, "--p", "--json"))["rows"][0]["metrics"]
    assert list(retrieved) == [TOP1, f"{TOP1} p"] and 0 < retrieved[f"{TOP1} p"]["value"] <= 1
    assert cli.main(["table", str(tmp_path / "runs"), "--controls", "noise"]) == 2
    assert "no result has a control 'noise'; there are: shuffled, oracle" in capsys.readouterr().err


def test_a_mean_over_two_people_far_apart_shows_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for subject, signal in (("01", 4.0), ("02", 0.0)):
        _run_folder(tmp_path / "far" / subject, _matrix(60, signal, 1), subject, 0)
        _run_folder(tmp_path / "near" / subject, _matrix(60, 2.0, int(subject)), subject, 0)
    entry = rows(load_results([tmp_path / "far"]))[0]["metrics"][TOP1]
    least, most = entry["people"]
    assert least < entry["ci95"][0] and entry["ci95"][1] < most
    words = ["--columns", TOP1]
    assert f"people {least:.3f} to {most:.3f}" in _table(capsys, tmp_path / "far", *words)
    assert "people" not in _table(capsys, tmp_path / "near", *words)


def test_one_subject_is_one_row(tmp_path: Path) -> None:
    _run_folder(tmp_path / "runs" / "01", _matrix(25, 2.0, 1), "01", 0)
    found = rows(load_results([tmp_path / "runs"]), ["subject"])
    assert [(row["subject"], row["seed"]) for row in found] == [("01", None)]
    _run_folder(tmp_path / "runs" / "again", _matrix(25, 2.0, 1), "01", 1)
    found = rows(load_results([tmp_path / "runs"]), ["subject", "seed"])
    assert [(row["subject"], row["seed"]) for row in found] == [(None, None), ("01", "0"), ("01", "1")]


def test_scores_of_weights_that_are_gone_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _run_folder(tmp_path / "run", _matrix(20, 2.0, 0), "01", 0)
    own = _stand_in_weights(folder, 0.0)
    report = {**json.loads((folder / "report_sub-01.json").read_text()), "run": own}
    write_json(folder / "report_sub-01.json", report)
    assert weights_id(folder, "01") == own and cli.main(["table", str(folder)]) == 0
    assert _stand_in_weights(folder, 1.0) != own and cli.main(["table", str(folder)]) == 2
    assert "holds scores of" in (said := capsys.readouterr().err) and "score them again (recon evaluate" in said
    _stand_in_weights(folder, 2.0, own)
    assert cli.main(["table", str(folder)]) == 2
    assert "holds other weights than its metadata names" in capsys.readouterr().err
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes()[:-1] + b"?")
    assert cli.main(["table", str(folder)]) == 2 and "is damaged" in capsys.readouterr().err


def test_weights_are_hashed_once_for_all_reports_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    for subject in ("01", "02"):
        _run_folder(folder, _matrix(20, 2.0, 0), subject, 0)
    _stand_in_weights(folder, 0.0)
    read = []
    monkeypatch.setattr(checkpoint.facts, "tensors_hash", lambda tensors: read.append(tensors) or "0" * 64)
    with pytest.raises(UserError, match="other weights"):
        load_results([folder / "report_sub-01.json"])
    for _ in range(2):
        with pytest.raises(UserError, match="other weights"):
            load_results([folder / "report_sub-02.json"])
    assert len(read) == 1


def test_scores_of_pictures_that_changed_since_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _run_folder(tmp_path / "run", _matrix(20, 2.0, 0), "01", 0)
    stored = json.loads((folder / "stimuli_sub-01.json").read_text())
    drawn = PictureFolders(folder, "mini", "01")
    for at in (drawn.reconstructions, drawn.control("shuffled")):
        write_pictures(at, stored["ids"], torch.rand(20, 3, 4, 4), seed=0, run_id=stored["run"])
    told = digests(drawn, ["reconstruction", "shuffled"], 0, stored["ids"])
    stored |= {"generator": "mini", "image_seed": 0, "controls": ["shuffled"], "pictures": told}
    write_json(folder / "stimuli_sub-01.json", stored)
    assert cli.main(["table", str(folder)]) == 0
    write_pictures(drawn.reconstructions, stored["ids"], torch.rand(20, 3, 4, 4), seed=1, run_id=stored["run"])
    assert cli.main(["table", str(folder)]) == 0  # further seeds are no other pictures
    capsys.readouterr()
    write_pictures(drawn.control("shuffled"), stored["ids"], torch.rand(20, 3, 4, 4), seed=0, run_id=stored["run"])
    assert cli.main(["table", str(folder)]) == 2
    assert "holds scores of other pictures than those that lie in" in capsys.readouterr().err
    shutil.rmtree(drawn.control("shuffled"))  # what is gone as a whole cannot be compared
    assert cli.main(["table", str(folder)]) == 0
    next(drawn.reconstructions.glob("*_seed-0.png")).write_bytes(b"another")
    assert cli.main(["table", str(folder)]) == 2 and "was changed after it was drawn" in capsys.readouterr().err


def _stand_in_weights(folder: Path, value: float, named: str | None = None) -> str:
    """Weights as far as a report goes; ``named``: the training that they say they are. Returns the one they are."""
    tensors = {"w": torch.full((1,), value)}
    digest = checkpoint.tensors_hash(tensors)
    facts = {"study": "study", "subject": "01", "in_shape": [3], "signal_components": None, "token_shape": [1, 2]}
    facts |= {"components": 2, "weights_hash": digest if named is None else named.rpartition("@")[2].ljust(64, "0")}
    facts |= {"subjects": ["01", "02"]}
    config = json.dumps(to_dict(load_config(Config)))
    save_tensors(folder / MODEL, tensors, {"format": "1", "meta": json.dumps(facts), "config": config})
    return f"study_sub-01@{digest[:12]}"


def test_old_runs_without_values_per_stimulus_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _run_folder(tmp_path / "run", _matrix(20, 2.0, 0), "01", 0, each=False)
    found = json.loads(_table(capsys, folder, "--json"))["rows"][0]
    assert found["metrics"][TOP1]["ci95"] is None
    assert found["metrics"]["PixCorr"]["ci95"] is not None


def test_unlabelled_files_are_repeats_and_labelled_twins_are_refused(tmp_path: Path) -> None:
    plain = [_store(tmp_path / f"{i}.json", _matrix(10, 2.0, i)) for i in range(3)]
    row = rows(load_results(plain))[0]
    assert (row["method"], row["subjects"], row["seeds"]) == ("scores", 1, 3)
    twins = [_store(tmp_path / f"t{i}.json", _matrix(10, 2.0, i), name="m", subject="01", seed=0) for i in range(2)]
    with pytest.raises(UserError, match="both m, subject 01, seed 0"):
        load_results(twins)


def test_bad_input_is_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.json").write_text('{"schema": 1}')
    (tmp_path / "empty").mkdir()
    for word, told in (("absent", "does not exist"), ("empty", "no report_sub"), ("other.json", "neither a report")):
        assert cli.main(["table", str(tmp_path / word)]) == 2
        error = capsys.readouterr().err.strip()
        assert told in error and "\n" not in error


def test_two_runs_of_one_label_are_given_advice_that_fits_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ann", "dora"):
        _run_folder(tmp_path / name, _matrix(25, 2.0, 1), "01", 0)
    assert cli.main(["table", str(tmp_path / "ann"), str(tmp_path / "dora")]) == 2
    said = capsys.readouterr().err
    assert "column subject of stimuli.csv" in said and "recon score" not in said
