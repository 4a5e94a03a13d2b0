"""`recon table`: means, intervals over subjects and stimuli, paired comparison, formats; real THINGS-EEG2 seeds."""

from __future__ import annotations

import csv
import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.stats import binom, kstest, ttest_1samp

from align import retrieval
from align.checkpoint import MODEL, weights_id
from align.config import Config, load_config, to_dict
from align.errors import UserError
from align.files import save_tensors, write_json
from recon import cli
from recon.metrics.stats import sign_flip_p
from recon.scoring.aggregate import Result, load_results, rows, summary
from recon.scoring.paired import compare
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
    assert metrics["brain_to_image.median_rank"]["ci95"][0] < 1  # ranks have no ends that are cut here


def test_two_generators_are_two_rows(tmp_path: Path) -> None:
    paths = [
        _changed(tmp_path / name, name, generator=kind) for name, kind in (("1", "mini"), ("2", "sdxl"), ("3", None))
    ]
    found = {row["method"] for row in rows(load_results(paths))}
    assert found == {"study ridge net 3 mini", "study ridge net 3 sdxl", "study ridge net 3"}


def test_scores_of_weights_that_are_gone_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _run_folder(tmp_path / "run", _matrix(20, 2.0, 0), "01", 0)
    report = {**json.loads((folder / "report_sub-01.json").read_text()), "run": f"study_sub-01@{'a' * 12}"}
    write_json(folder / "report_sub-01.json", report)
    for digest, code in (("a" * 12, 0), ("f" * 12, 2)):
        _stand_in_weights(folder, "study", digest)
        assert (weights_id(folder, "01") == report["run"]) == (code == 0)
        assert cli.main(["table", str(folder)]) == code
    assert "holds scores of" in (said := capsys.readouterr().err) and "score them again (recon evaluate" in said


def _stand_in_weights(folder: Path, study: str, digest: str) -> None:
    """Weights of that hash, as far as a report goes."""
    facts = {"study": study, "subject": "01", "in_shape": [3], "signal_components": None, "token_shape": [1, 2]}
    facts |= {"components": 2, "weights_hash": digest.ljust(64, "0")}
    config = json.dumps(to_dict(load_config(Config)))
    save_tensors(folder / MODEL, {"w": torch.zeros(1)}, {"format": "1", "meta": json.dumps(facts), "config": config})


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
