"""Curves over repetitions of a tiny run: ends that other commands score, means by numpy, the ceiling, the files."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from align.checkpoint import Run, load_run
from align.config import Config, load_config
from align.data.signals import Trials
from align.files import read_json
from recon import cli
from recon.analysis.figures import new_figure
from recon.analysis.repeats import _counts, averages, format_repeats, repeat_curves
from recon.evaluation.report import retrieval_report
from recon.evaluation.schema import faults
from tests.align.fixture_studies import picture, write_folder

N_TRAIN, N_TEST, REPETITIONS = 40, 16, 4


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Pictures' pixels mixed into 4 channels x 20 samples; three channels and half the time are used."""
    from align.train import train

    folder = tmp_path_factory.mktemp("repeats")
    rng = np.random.default_rng(0)
    n = N_TRAIN + N_TEST
    small = np.stack([np.asarray(picture(i).resize((4, 4))).ravel() for i in range(n)]) / 255
    clean = ((small - small.mean(0)) @ rng.normal(size=(48, 80))).reshape(n, 4, 20)
    shown = [*range(N_TRAIN), *(i for i in range(N_TRAIN, n) for _ in range(REPETITIONS))]
    rows = [
        {"row": k, "image": f"pic{i:03d}.png", "split": "train" if i < N_TRAIN else "test", "subject": "01"}
        for k, i in enumerate(shown)
    ]
    signals = clean[shown] + rng.normal(size=(len(shown), 4, 20))
    write_folder(folder / "study", signals.astype(np.float32), rows)
    info = {"sfreq": 100, "ch_names": ["O1", "Oz", "Fz", "P3"], "roi": {"back": ["O1", "Oz", "P3"]}}
    (folder / "study" / "info.json").write_text(json.dumps(info))
    pairs = ["study.name=folder", f"study.root={folder / 'study'}", "subjects=[01]", "study.roi=back"]
    pairs += ["study.window=0:0.15", "target.pooling=grid:2", "target.components=12", "encoder.name=ridge"]
    train(
        load_config(Config, None, [*pairs, f"run_dir={folder / 'run'}", f"cache_dir={folder / 'cache'}"]),
        progress=False,
    )
    new_figure(1, 1)  # a slow import that is no part of a test
    return load_run(folder / "run")


@pytest.fixture(scope="module")
def result(run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict:
    return repeat_curves(run, tmp_path_factory.mktemp("out"), n_draws=6, seed=3)


def test_all_repetitions_give_what_retrieve_reports(run: Run, result: dict) -> None:
    report = retrieval_report(run)
    last = result["repeats"][-1]
    assert last["repetitions"] == REPETITIONS
    for direction in ("brain_to_image", "image_to_brain"):
        for key in ("top1", "top5", "n", "candidates", "chance_top1"):
            assert last[direction][key] == pytest.approx(report["retrieval"][direction][key])
        assert last[direction]["draws"] == 1


def test_one_repetition_is_the_score_of_single_trials(run: Run, result: dict) -> None:
    from align import retrieval
    from recon.evaluation.recordings import RunData

    run_data = RunData(run)
    test = run_data.recording.test
    candidates = run_data.picture_embeds(np.unique(test.stimulus))
    hits = []
    for draw in range(6):
        rng = np.random.default_rng([3, draw])
        rows = [rng.permutation(np.flatnonzero(test.stimulus == i))[0] for i in np.unique(test.stimulus)]
        similarity = retrieval.scores(run.aligner.predict(test.x[rows])["embeds"], candidates)
        hits.append(retrieval.both_directions(similarity, n_boot=0, n_perm=0))
    for direction in ("brain_to_image", "image_to_brain"):
        for key in ("top1", "top5"):
            found = result["repeats"][0][direction][key]
            assert found == pytest.approx(np.mean([score[direction][key] for score in hits]))
    assert result["repeats"][0]["brain_to_image"]["draws"] == 6


def test_more_repetitions_are_better_and_halves_find_each_other(result: dict) -> None:
    assert [point["repetitions"] for point in result["repeats"]] == [1, 2, 3, 4]
    between = {point["repetitions"]: point for point in result["noise_ceiling"]["brain_to_brain"]}
    assert list(between) == [1, 2]
    for side in ("signals", "embeds"):
        assert between[1][side]["top1"] < between[2][side]["top1"]
        assert between[2][side]["p_permutation"] < 0.01
        low, high = between[2][side]["ci95_top1"]
        assert low <= between[2][side]["top1"] <= high
    reliability = result["noise_ceiling"]["reliability"]
    assert (reliability["repetitions"], reliability["repetitions_per_half"]) == (4, 2)
    assert [row["channel"] for row in reliability["by_channel"]] == ["O1", "Oz", "P3"]
    np.testing.assert_allclose([row["time"] for row in reliability["by_time"]], np.arange(15) / 100)


def test_reliability_is_that_of_halves_by_numpy(run: Run, result: dict) -> None:
    from recon.decoding.predict import open_recording

    test = open_recording(run).test
    halves = []
    for draw in range(6):
        rng = np.random.default_rng([3, draw])
        orders = [rng.permutation(np.flatnonzero(test.stimulus == i)) for i in np.unique(test.stimulus)]
        halves.append([np.stack([test.x[o[part]].mean(0) for o in orders]) for part in (slice(2), slice(2, 4))])
    r = np.mean([[np.corrcoef(a[:, 0, t], b[:, 0, t])[0, 1] for t in range(15)] for a, b in halves])
    assert result["noise_ceiling"]["reliability"]["by_channel"][0]["half"] == pytest.approx(r, abs=1e-6)


def test_means_are_over_the_first_and_the_last_rows_of_an_order() -> None:
    x = np.random.default_rng(0).normal(size=(12, 2, 3)).astype(np.float32)
    trials = Trials(x, np.repeat([0, 1], 6), np.tile(np.arange(6), 2))
    orders = [np.array([4, 0, 2, 5, 1]), np.array([6, 11, 9, 8, 7])]
    first, second = averages(trials, orders, [1, 2, 3, 5])
    assert (sorted(first), sorted(second)) == ([1, 2, 3, 5], [1, 2])
    for i, order in enumerate(orders):
        for k in first:
            np.testing.assert_allclose(first[k][i], x[order[:k]].mean(axis=0), rtol=1e-5, atol=1e-6)
        for k in second:
            np.testing.assert_allclose(second[k][i], x[order[-k:]].mean(axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("most", [2, 3, 12, 13, 20, 80])
def test_numbers_of_repetitions_hold_one_half_and_all(most: int) -> None:
    counts = _counts(most)
    assert counts == sorted(set(counts)) and {1, most // 2, most} <= set(counts)
    assert len(counts) <= 14 and (most > 12 or counts == list(range(1, most + 1)))


def test_command_prints_what_it_writes(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["repeats", "--subject", "01", "--run", str(run.path), "--out", str(tmp_path), "--draws", "2"]
    assert cli.main([*given, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == read_json(tmp_path / "repeats_sub-01.json")
    rows = list(csv.DictReader((tmp_path / "repeats_sub-01.csv").read_text().splitlines()))
    assert len(rows) == 2 * 4 + 2 * 2
    assert float(rows[0]["top1"]) == printed["repeats"][0]["brain_to_image"]["top1"]
    channels = list(csv.DictReader((tmp_path / "reliability_sub-01.csv").read_text().splitlines()))
    assert [row["channel"] for row in channels] == ["O1", "Oz", "P3"]
    assert (tmp_path / "repeats_sub-01.png").read_bytes()[:4] == b"\x89PNG"
    told = format_repeats(printed)
    assert "chance 6.25 %" in told and "split-half reliability of 4 repetitions" in told


def test_curves_of_another_run_are_not_replaced(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["repeats", "--subject", "01", "--run", str(run.path), "--out", str(tmp_path), "--draws", "2"]
    (tmp_path / "repeats_sub-01.json").write_text('{"run": "another"}')
    assert cli.main(given) == 2
    assert "is of another run; nothing was changed" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["repeats_sub-01.json"]


def test_the_selection_is_in_config_and_report(run: Run) -> None:
    study = load_config(Config, run.path / "config.yaml").study
    assert (study.roi, study.window) == (["back"], "0:0.15")
    report = retrieval_report(run)
    assert faults(report) == []
    expected = {"roi": ["back"], "channels": None, "window": [0.0, 0.15], "n_channels": 3, "n_times": 15}
    assert report["selection"] == expected


def test_bad_input_is_one_line(run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given = ["repeats", "--subject", "01", "--run", str(run.path)]
    assert cli.main([*given, "--draws", "0"]) == 2
    assert "--draws 0 should be 1 or more" in capsys.readouterr().err.strip().splitlines()[-1]
    table = Path(run.config.study.root or "") / "stimuli.csv"
    before = table.read_text()
    lines = before.splitlines()
    extra = [",test," in line and int(line.split(",")[0]) % REPETITIONS > 0 for line in lines]
    lines = [line.replace(",test,", ",unused,") if one else line for line, one in zip(lines, extra, strict=True)]
    copy = shutil.copytree(run.path, tmp_path / "run")
    split = read_json(copy / "split.json")
    split["test"]["n_trials"] = N_TEST
    (copy / "split.json").write_text(json.dumps(split))
    try:
        table.write_text("\n".join(lines) + "\n")
        assert cli.main([*given[:-1], str(copy)]) == 2
        assert "holds one row for some test picture" in capsys.readouterr().err.strip().splitlines()[-1]
    finally:
        table.write_text(before)
