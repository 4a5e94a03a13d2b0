"""`recon adapt` end to end on a small study: curve, figure, table, an ordinary run, rebuilding, refusals."""

from __future__ import annotations

import csv
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from align.checkpoint import load_run
from align.errors import UserError
from align.files import locked
from recon.adaptation.runner import table
from recon.adaptation.summary import summarise
from recon.cli import main
from tests.align.fixture_studies import write_folder
from tests.one_line import fails

TRAIN, TEST = 40, 8
PEOPLE = ("01", "02", "03")


def _rows(subjects: tuple[str, ...] = PEOPLE) -> list[dict[str, object]]:
    return [
        {"row": n * (TRAIN + TEST) + i, "image": f"pic{i:03d}.png", "split": "train" if i < TRAIN else "test"}
        | {"subject": subject, "concept": f"c{i}"}
        for n, subject in enumerate(subjects)
        for i in range(TRAIN + TEST)
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three people, 40 + 8 pictures, and the result of adapting to 03."""
    folder = tmp_path_factory.mktemp("adapt")
    signals = np.random.default_rng(0).normal(size=(3 * (TRAIN + TEST), 12)).astype(np.float32)
    write_folder(folder / "study", signals, _rows())
    assert main(_words(folder, "--subject", "03", "--out", str(folder / "out"))) == 0
    return folder


def _words(folder: Path, *more: str) -> list[str]:
    pairs = [
        "study.name=folder",
        f"study.root={folder / 'study'}",
        f"cache_dir={folder / 'cache'}",
        "encoder.name=encoding",
    ]
    words = ["adapt", *pairs, "target.layer=1", "--method", "prior,context,shared_response", "--trials", "12,all"]
    return [*words, *more]


def test_files_say_what_was_done(place: Path) -> None:
    result = json.loads((place / "out" / "adapt.json").read_text(encoding="utf-8"))
    kinds = [(row["method"], row["kind"], row["trials"]) for row in result["rows"]]
    methods = [("prior", "adapted"), ("prior", "scratch"), ("context", "adapted"), ("context", "scratch")]
    assert kinds == [(*one, n) for n in (12, 32) for one in (*methods, ("shared_response", "adapted"))]
    assert result["subject"] == "03" and result["known"] == ["01", "02"] and result["held_out"] == 8
    # all three saw the same pictures: those of the test and those held out are taken from the known people
    assert result["removed"] == 2 * 8
    best = max(row["held_out"]["top1"] for row in result["rows"] if row["trials"] == 32)
    chosen = next(row for row in result["rows"] if all(row[key] == value for key, value in result["chosen"].items()))
    assert chosen["held_out"]["top1"] == best and chosen["trials"] == 32
    rows = list(csv.DictReader((place / "out" / "adapt.csv").read_text(encoding="utf-8").splitlines()))
    assert [float(row["test_top1"]) for row in rows[:-1]] == [row["test"]["top1"] for row in result["rows"]]
    twins = [[row for row in result["rows"] if row["method"] == name] for name in ("prior", "context")]
    for one, other in zip(*([row for row in rows if row["kind"] == "scratch"] for rows in twins), strict=True):
        assert {**one, "method": ""} == {**other, "method": ""}  # fitted once: seconds too
    assert (place / "out" / "adapt.png").stat().st_size > 10_000
    for row in result["rows"]:
        assert (
            row["seconds"] >= 0 and row["trainable"] > 0 and (row["adapter_mb"] is None) == (row["kind"] == "scratch")
        )


def test_what_was_chosen_is_an_ordinary_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = place / "out" / "run"
    result = json.loads((place / "out" / "adapt.json").read_text(encoding="utf-8"))
    loaded = load_run(run)
    assert loaded.subject == "03" and result["chosen"]["method"] in loaded.meta["adapted"]
    split = json.loads((run / "split.json").read_text(encoding="utf-8"))
    test = set(split["test_of"]["03"]["hashes"] if "test_of" in split else split["test"]["hashes"])
    assert len(test) == TEST and not test & set(split["train"]["hashes"])
    capsys.readouterr()
    assert main(["retrieve", "--subject", "03", "--run", str(run), "--json", "evaluate.networks=false"]) == 0
    scored = json.loads(capsys.readouterr().out)["retrieval"]["brain_to_image"]["top1"]
    assert scored == pytest.approx(result["final"]["test"]["top1"])
    assert result["final"]["trials"] == TRAIN  # held-out pictures too, once the choice is made
    assert {key: result["final"][key] for key in ("method", "kind")} == {
        key: result["chosen"][key] for key in ("method", "kind")
    }


def test_a_second_call_gives_the_same_numbers_and_another_configuration_is_refused(place: Path) -> None:
    before = json.loads((place / "out" / "adapt.json").read_text(encoding="utf-8"))
    again = place / "again"
    assert main(_words(place, "--subject", "03", "--out", str(again))) == 0
    after = json.loads((again / "adapt.json").read_text(encoding="utf-8"))
    for one, other in zip(before["rows"], after["rows"], strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}
    assert main(_words(place, "--subject", "02", "--out", str(again))) == 2


def test_what_replaces_a_result_leaves_no_adapter_of_it(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(place / "out", out)
    former = out / "run" / "shared_former.safetensors"
    former.touch()
    words = [word if word != "prior,context,shared_response" else "context" for word in _words(place, "--trials", "12")]
    assert main([*words, "--subject", "03", "--out", str(out)]) == 2 and former.exists()
    assert main([*words, "--subject", "03", "--out", str(out), "--overwrite"]) == 0 and not former.exists()


@pytest.mark.parametrize("people", [("03",), ("02", "03")], ids=" ".join)
@pytest.mark.parametrize("jobs", [(), pytest.param(("--jobs", "2"), marks=pytest.mark.long)], ids=" ".join)
def test_a_study_that_cannot_be_read_leaves_the_former_results(
    place: Path, tmp_path: Path, people: tuple[str, ...], jobs: tuple[str, ...]
) -> None:
    out, broken = tmp_path / "out", tmp_path / "study"
    shutil.copytree(place / "out", out if len(people) == 1 else out / "sub-03")
    shutil.copytree(place / "study", broken)
    (broken / "signals.npy").write_bytes(b"")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    words = [*_words(place, "--subject", *people, "--out", str(out), "--overwrite", *jobs), f"study.root={broken}"]
    assert main(words) == 2
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_curve_that_cannot_be_computed_leaves_the_former_results(place: Path, tmp_path: Path) -> None:
    out, study = tmp_path / "out", tmp_path / "study"
    shutil.copytree(place / "out", out)
    rows = [{**row, "concept": f"c{i % 2}"} for i, row in enumerate(_rows())]
    write_folder(study, np.load(place / "study" / "signals.npy"), rows)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    words = [*_words(place, "--subject", "03", "--out", str(out), "--overwrite"), f"study.root={study}"]
    assert main(words) == 2
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_folders_of_people_are_kept_for_those_who_adapt_to_several(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []

    def others(*_: object) -> None:
        for folder in (tmp_path, tmp_path / "sub-01", tmp_path / "sub-02"):
            with ThreadPoolExecutor(1) as pool:
                refused.append(pool.submit(fails, "another process is looking", partial(_lock, folder)).result())
        raise UserError("enough")

    monkeypatch.setattr("recon.adaptation.runner.compute_folds", others)
    assert main(_words(place, "--subject", "01", "02", "--out", str(tmp_path))) == 2
    assert len(refused) == 3 and not list(tmp_path.rglob(".*"))


def _lock(folder: Path) -> None:
    with locked(folder / ".adapt.lock", "looking"):
        pass


def test_results_of_one_person_that_stay_keep_all_as_it_is(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "out", tmp_path / "sub-03")
    before = sorted(tmp_path.rglob("*"))
    assert main(_words(place, "--subject", "02", "03", "--out", str(tmp_path), "--trials", "14")) == 2
    assert [path for path in sorted(tmp_path.rglob("*")) if path.name != "sub-02"] == before


def test_an_adapter_is_rebuilt(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = place / "sent" / "run", place / "rebuilt"
    only = [word.replace("prior,context,", "") for word in _words(place, "--subject", "03", "--out", str(run.parent))]
    assert main(only) == 0  # shared_response has no form from scratch, so an adapted decoder is chosen
    (shared,) = run.glob("shared_*.safetensors")
    words = ["adapt", "--adapter", str(run / "adapter.safetensors"), "--shared", str(shared), "--out", str(out)]
    capsys.readouterr()
    assert main(words) == 0
    told = capsys.readouterr().err
    assert f"places named by the run itself: study.root={place / 'study'} cache_dir={place / 'cache'}" in told
    x = np.random.default_rng(1).normal(size=(5, 12)).astype(np.float32)
    assert np.array_equal(load_run(out).predict(x)["embeds"], load_run(run).predict(x)["embeds"])
    assert main(words) == 2  # it is there now
    assert main([*words[:-2], "--out", str(place / "other"), "train.lr=1"]) == 2
    assert not (place / "other").exists()


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--subject", "03", "--method", "lore"], "method 'lore' is not known"),
        (["--subject", "03", "--trials", "few"], "--trials 'few' is no number"),
        (["--subject", "03", "--trials", "3"], "10 pictures or more"),
        (["--subject", "03", "--trials", ","], "names no number"),
        (["--subject", "03", "--minutes", "long"], "--minutes 'long' is no number"),
        (["--subject", "03", "--minutes", "-1"], "a number above 0"),
        (["--subject", "03", "--jobs", "0"], "--jobs 0: give 1 or more"),
        (["--subject", "03", "--method", ","], "names no method"),
        (["--subject", "03", "--known", "03"], "nobody to learn from"),
        (["--subject", "09"], "09"),
        (["--subject", "all", "03"], "leave the other labels out"),
        ([], "--subject"),
        (["--subject", "03", "--adapter", "a"], "belong together"),
    ],
)
def test_mistakes_are_one_line(place: Path, capsys: pytest.CaptureFixture[str], more: list[str], line: str) -> None:
    capsys.readouterr()
    assert main(_words(place, *more, "--out", str(place / "nothing"))) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert line in told and not (place / "nothing" / "adapt.json").exists()


def _curve(subject: str, scores: dict[tuple[str, str, int], float]) -> dict[str, Any]:
    rows = [
        {"method": method, "kind": kind, "trials": n, "test": {"top1": value}}
        for (method, kind, n), value in scores.items()
    ]
    return {"subject": subject, "rows": rows}


def test_several_people_are_paired() -> None:
    curves = [
        _curve(str(i), {("a", "adapted", 50): 0.4 + d, ("a", "scratch", 50): 0.2 + d, ("b", "scratch", 50): 0.3})
        for i, d in enumerate((0.0, 0.05, 0.1))
    ]
    found = summarise(curves, [50])
    adapted = next(p for p in found["points"] if p["kind"] == "adapted")
    assert adapted["top1"] == pytest.approx(0.45) and adapted["t95"][0] < 0.45 < adapted["t95"][1]
    (pair,) = found["paired"]
    assert pair["to_own_scratch"]["ratio"] == pytest.approx(0.45 / 0.25)
    assert pair["to_own_scratch"]["difference"] == pytest.approx(0.2)
    assert pair["to_best_scratch"]["ratio"] == pytest.approx(1.5)  # the best of each: .3
    assert pair["to_best_scratch"]["worse_in"] == 0 and pair["to_own_scratch"]["p"] < 0.2
    assert "1.50 times the best from scratch" in table({**found, "rows": []})
    two = summarise(curves[:2], [50])  # too few for an interval over people
    assert {point["t95"] for point in two["points"]} == {None} and two["paired"][0]["to_own_scratch"]["t95"] is None


@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_each_in_turn_is_new_to_the_others(tmp_path: Path, place: Path, jobs: str) -> None:
    shutil.copytree(place / "cache", tmp_path / "cache")
    shutil.copytree(place / "study", tmp_path / "study")
    words = [
        word if word != "prior,context,shared_response" else "context" for word in _words(tmp_path, "--subject", "all")
    ]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    result = json.loads((tmp_path / "out" / "adapt_all.json").read_text(encoding="utf-8"))
    assert result["subjects"] == list(PEOPLE)
    assert len(result["zero_shot"]["values"]) == 3  # all have the same channels
    _continues(tmp_path / "out", [*words, "--jobs", jobs], result)
    for curve in result["of_subject"]:
        assert curve["subject"] not in curve["known"] and len(curve["known"]) == 2
    assert (tmp_path / "out" / "adapt_all.png").is_file() and (tmp_path / "out" / "sub-01" / "run").is_dir()
    fails("nobody to learn from", lambda: _alone(tmp_path))


def _continues(out: Path, words: list[str], result: dict[str, Any]) -> None:
    """What is finished stays; what is missing is computed, by two processes too, and comes out alike."""
    for name in ("adapt_all.json", "sub-01/adapt.json", "sub-03/adapt.json"):
        (out / name).unlink()
    (kept,) = out.glob("sub-02/adapt.json")
    before = kept.stat().st_mtime_ns
    assert main([*words, "--out", str(out)]) == 0
    assert kept.stat().st_mtime_ns == before
    again = json.loads((out / "adapt_all.json").read_text(encoding="utf-8"))
    for one, other in zip(result["points"], again["points"], strict=True):
        assert one["values"] == pytest.approx(other["values"], abs=0.13)  # one of 8 pictures: threads differ
    assert again["of_subject"][0]["shared_seconds"].keys() == {"readouts"}
    (out / "adapt_all.json").unlink()  # stopped before the end: the folds say what they are made with
    assert main([*words, "--out", str(out), "seed=1"]) == 2
    assert json.loads(kept.read_text(encoding="utf-8"))["subject"] == "02"


def test_minutes_are_pictures() -> None:
    from align.adaptation.amounts import pictures_in

    count, text = pictures_in(8, _study(0.5, 40), ["a", "b"])  # 960 trials; a picture of 2 and of 4 repetitions: 3
    assert count == 320 and "960 trials of 0.5 s, 320 pictures of 3 repetitions" in text
    fails("8 pictures; 10 or more", lambda: pictures_in(0.2, _study(0.5, 40), ["a", "b"]))
    fails("nothing says how long a trial of folder takes", lambda: pictures_in(8, _study(None, 40), ["a"]))


def _study(trial_s: float | None, n: int) -> Any:
    shown = {"a": np.repeat(np.arange(n), 2), "b": np.repeat(np.arange(n), 4)}
    return SimpleNamespace(
        info=SimpleNamespace(name="folder", trial_s=trial_s),
        recording=lambda name: SimpleNamespace(train=SimpleNamespace(stimulus=shown[name])),
    )


def test_a_study_without_a_known_trial_refuses_minutes(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in _words(place, "--subject", "03", "--minutes", "5") if word not in ("--trials", "12,all")]
    assert main([*words, "--out", str(place / "nothing")]) == 2
    assert "give --trials instead" in capsys.readouterr().err and not (place / "nothing" / "adapt.json").exists()


def test_without_adaptation(place: Path) -> None:
    result = json.loads((place / "out" / "adapt.json").read_text(encoding="utf-8"))
    line = result["zero_shot"]
    assert (line["kind"], line["method"], line["trials"], line["trainable"]) == ("zero-shot", "encoding", 0, 0)
    assert line["test"]["candidates"] == TEST and "encoding, zero-shot" in table(result)
    (row,) = [
        row
        for row in csv.DictReader((place / "out" / "adapt.csv").read_text(encoding="utf-8").splitlines())
        if row["kind"] == "zero-shot"
    ]
    assert float(row["test_top1"]) == line["test"]["top1"] and row["held_out_top1"] == ""


def _alone(folder: Path) -> None:
    from align.config import Config, load_config
    from recon.adaptation.runner import adapt

    config = load_config(Config, None, _words(folder)[1:5])
    adapt(config, ["01"], ["01"], [], [None], folder / "none")


def test_people_of_different_voxels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Folders of their own inside one folder."""
    for voxels, subject in ((12, "01"), (9, "02"), (15, "03")):
        rows = _rows((subject,))
        signals = np.random.default_rng(voxels).normal(size=(TRAIN + TEST, voxels)).astype(np.float32)
        write_folder(tmp_path / "study" / f"person-{subject}", signals, rows)
    assert main(_words(tmp_path, "--subject", "03", "--out", str(tmp_path / "out"))) == 0
    result = json.loads((tmp_path / "out" / "adapt.json").read_text(encoding="utf-8"))
    assert result["known"] == ["01", "02"] and result["zero_shot"] is None
    run = str(tmp_path / "out" / "run")
    capsys.readouterr()
    assert main(["retrieve", "--subject", "03", "--run", run, "--json", "evaluate.networks=false"]) == 0
    scored = json.loads(capsys.readouterr().out)["retrieval"]["brain_to_image"]["top1"]
    assert scored == pytest.approx(result["final"]["test"]["top1"])
