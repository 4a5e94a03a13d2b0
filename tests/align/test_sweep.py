"""The sweep on a toy study: what it chooses, what it may look at, what it writes, how it continues."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align import retrieval
from align.config import Config, load_config
from align.data.places import study_labels
from align.errors import UserError
from align.files import read_json, read_tensors
from align.sweep import points
from align.sweep import report as sweep_report
from align.sweep import run as sweep
from align.sweep.plots import draw
from align.training import training_set
from tests.align.fixture_sweep import N_TEST, N_TRAIN, Toy, toy, toy_config, toy_tokens

__all__ = ["toy"]


def _run(folder: Path, **options: Any) -> sweep_report.SweepResult:
    return sweep.run(toy_config(), out=folder, progress=False, **options)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every real fit, as (recipe, rows, pictures)."""
    calls: list[Any] = []
    real = training_set.fit

    def counting(config: Config, x: np.ndarray, tokens: np.ndarray, index: np.ndarray, **options: Any) -> Any:
        calls.append((config, x, tokens, index))
        return real(config, x, tokens, index, **options)

    monkeypatch.setattr(training_set, "fit", counting)
    return calls


def test_it_chooses_the_layer_the_signals_carry(toy: type[Toy], tmp_path: Path) -> None:
    result = _run(tmp_path)
    found = result.summary
    assert found["chosen"] == {"backbone": "mini", "encoder": "ridge", "layer": "1"}
    assert found["final"]["top1"] > 1.5 * found["last_layer"]["top1"] > 0
    assert found["times_last_layer"] == pytest.approx(found["final"]["top1"] / found["last_layer"]["top1"])
    assert found["final"]["p_permutation"] == pytest.approx(1 / 2001)
    assert found["final"]["n"] == N_TEST and found["final"]["chance_top1"] == 1 / N_TEST
    low, high = found["final"]["ci95_top1"]
    assert low < found["final"]["top1"] < high
    assert set(found["curves"][0]["test"]) == {"1", "2"}, "test is read for the chosen and the last layer only"
    assert read_json(tmp_path / "sweep.json") == found
    assert "1 *" in result.table() and "chosen: mini layer 1" in result.table()


def test_test_rows_wait_for_the_stored_choice(toy: type[Toy], tmp_path: Path) -> None:
    class Peeked(Exception):
        pass

    def guard() -> None:
        if not (tmp_path / "choice.json").is_file():
            raise Peeked

    toy.guard = staticmethod(guard)
    with pytest.raises(Peeked):
        _ = toy(toy_config()).recording("01").test
    choice = _run(tmp_path).summary["chosen"]
    assert read_json(tmp_path / "choice.json")["chosen"] == choice


def test_the_choice_does_not_depend_on_test_rows(toy: type[Toy], tmp_path: Path) -> None:
    before = _run(tmp_path / "a").summary
    spoiled = type("Spoiled", (toy,), {})

    def recording(self: Any, subject: str) -> Any:
        real = toy.recording(self, subject)
        real.hidden_test = replace(real.hidden_test, x=real.hidden_test.x[::-1] * 50)
        return real

    spoiled.recording = recording  # type: ignore[method-assign]
    sweep.open_study = spoiled  # type: ignore[attr-defined] - undone by the fixture's monkeypatch
    after = _run(tmp_path / "b").summary
    assert (tmp_path / "a" / "choice.json").read_text() == (tmp_path / "b" / "choice.json").read_text()
    assert before["curves"][0]["points"] == after["curves"][0]["points"]
    assert before["final"]["top1"] > after["final"]["top1"]


def test_fits_see_training_rows_only_and_folds_keep_groups_apart(
    toy: type[Toy], tmp_path: Path, counted: list[Any]
) -> None:
    _run(tmp_path)
    assert len(counted) == 3 * 3 * 2 + 2 * 2  # layers x folds x subjects, then chosen and last
    for recipe, x, tokens, index in counted:
        every = toy_tokens(recipe.target.layer)
        rows = [int(np.flatnonzero((every == row).all(axis=(1, 2)))[0]) for row in tokens.all().numpy()]
        assert max(rows) < N_TRAIN and len(x) == len(index) == len(rows)
        assert len(set(np.arange(N_TRAIN)[rows] // 3)) * 3 == len(rows), "whole groups"
    assert sorted({len(call[1]) for call in counted}) == [60, 90]
    assert {call[0].target.components for call in counted} == {10}


def test_a_killed_sweep_continues_with_the_next_cell(
    toy: type[Toy], tmp_path: Path, counted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _run(tmp_path / "whole")
    n_whole = len(counted)
    counting = training_set.fit

    def failing(*args: Any, **options: Any) -> Any:
        if len(counted) == n_whole + 7:
            raise KeyboardInterrupt
        return counting(*args, **options)

    monkeypatch.setattr(training_set, "fit", failing)
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path / "cut")
    assert not (tmp_path / "cut" / "choice.json").exists()
    (tmp_path / "cut" / "cells" / ".0123.tmp-1.json").write_text('{"key": "half a fi')
    monkeypatch.setattr(training_set, "fit", counting)
    resumed = _run(tmp_path / "cut")
    assert len(counted) == 2 * n_whole, "no cell is computed twice"
    assert (tmp_path / "cut" / "sweep.csv").read_text() == (tmp_path / "whole" / "sweep.csv").read_text()
    for result in (whole, resumed):
        assert result.summary.pop("seconds") == result.summary.pop("measured")["seconds"]
    assert resumed.summary == whole.summary
    _run(tmp_path / "cut")
    assert len(counted) == 2 * n_whole, "a finished sweep fits nothing"


def test_changed_recipes_or_rows_are_computed_again(toy: type[Toy], tmp_path: Path, counted: list[Any]) -> None:
    _run(tmp_path)
    n = len(counted)
    changed = replace(toy_config(), target=replace(toy_config().target, components=9))
    sweep.run(changed, out=tmp_path, progress=False, overwrite=True)
    assert len(counted) == 2 * n
    toy.signal = 0.5
    _run(tmp_path, overwrite=True)
    assert len(counted) == 3 * n
    mlp = replace(toy_config(seeds=2), encoder=replace(toy_config().encoder, name="mlp"), subjects=["01"])
    sweep.run(mlp, layers=["1"], out=tmp_path / "mlp", progress=False)
    n = len(counted)
    sweep.run(replace(mlp, seed=1), layers=["1"], out=tmp_path / "mlp", progress=False, overwrite=True)
    folds, refits = 3 * 2, 2 * 1  # seed 1 is refitted already, but its folds were dealt by another seed
    assert len(counted) == n + folds + refits


def test_a_sweep_that_is_stopped_leaves_what_it_would_have_replaced(
    toy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep.Cells, "compute", stopped)
    changed = replace(toy_config(), target=replace(toy_config().target, components=9))
    with pytest.raises(KeyboardInterrupt):
        sweep.run(changed, out=tmp_path, progress=False, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_later_choices_in_one_folder_are_counted(toy: type[Toy], tmp_path: Path) -> None:
    _run(tmp_path, layers=["0"])
    assert _run(tmp_path, layers=["0"]).summary["earlier_choices"] == 0
    result = _run(tmp_path)
    assert result.summary["earlier_choices"] == 1
    assert "1 earlier choice" in result.table()


def test_the_last_layer_is_scored_even_when_not_swept(toy: type[Toy], tmp_path: Path) -> None:
    found = _run(tmp_path, layers=["1", "0"]).summary
    assert [point["layer"] for point in found["curves"][0]["points"]] == ["0", "1"], "in order of depth"
    assert found["last_layer"]["layer"] == "2"


def test_no_signal_is_not_significant(toy: type[Toy], tmp_path: Path) -> None:
    toy.signal = 0.0
    found = _run(tmp_path).summary
    assert found["final"]["p_permutation"] > 0.05
    assert found["final"]["ci95_top1"][0] <= found["final"]["chance_top1"]


def test_table_of_cells_is_tidy(toy: type[Toy], tmp_path: Path) -> None:
    result = _run(tmp_path, encoders=["ridge", "mlp"])
    rows = list(csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines()))
    cells = 2 * 3 * 3 * (1 + 2)  # subjects x layers x folds x (ridge: one seed, mlp: two)
    refits = 2 * sum(
        len(curve["test"]) * (1 if curve["encoder"] == "ridge" else 2) for curve in result.summary["curves"]
    )
    assert len(rows) == 2 * (cells + refits) + cells
    place = ("backbone", "encoder", "layer", "subject", "seed", "fold", "split", "direction", "level")
    assert len({tuple(row[name] for name in place) for row in rows}) == len(rows)
    assert {row["split"] for row in rows if row["fold"] == "refit"} == {"test"}
    chosen = result.summary["chosen"]
    curve = next(curve for curve in result.summary["curves"] if curve["encoder"] == chosen["encoder"])
    values = [
        float(row["top1"])
        for row in rows
        if all(row[name] == chosen[name] for name in chosen) and row["direction"] == "brain_to_image"
        and row["split"] == "validation" and row["level"] == "picture"
    ]  # fmt: skip
    point = next(point for point in curve["points"] if point["layer"] == chosen["layer"])
    assert point["top1"] == pytest.approx(np.mean(values))
    assert all(point["top1"] >= other["top1"] for item in result.summary["curves"] for other in item["points"])


def test_final_numbers_follow_from_the_stored_matrices(toy: type[Toy], tmp_path: Path) -> None:
    found = _run(tmp_path).summary
    hits = []
    for subject in ("01", "02"):
        tensors, facts = read_tensors(tmp_path / "test" / f"mini_ridge_1_sub-{subject}_seed-0.safetensors")
        assert json.loads(facts["ids"]) == [f"picture {i}" for i in range(N_TRAIN, N_TRAIN + N_TEST)]
        hits.append(np.mean(tensors["similarity"].numpy().argmax(axis=1) == np.arange(N_TEST)))
        stored = found["curves"][0]["test"]["1"]["subjects"][subject]
        assert stored["top1"] == pytest.approx(hits[-1])
    assert found["final"]["top1"] == pytest.approx(np.mean(hits))


def test_subjects_who_saw_other_pictures_count_as_other_pictures() -> None:
    rng = np.random.default_rng(0)
    tests = []
    for subject, ids in (("01", "ab"), ("02", "ab"), ("03", "xy")):
        similarity = rng.normal(size=(20, 20)) + np.eye(20)
        scores = retrieval.report(similarity)
        tests.append(
            {"subject": subject, "ids": [f"{ids}{i}" for i in range(20)]}
            | {"scores": scores}
            | {"similarity": similarity}
        )
    found = points.combine(tests, "brain_to_image")
    assert (found["n"], found["runs"]) == (40, 3)
    assert found["top1"] == pytest.approx(np.mean([test["scores"]["brain_to_image"]["top1"] for test in tests]))
    assert points.combine(tests, "image_to_brain") != found


def _validated(*tops: list[float], layer: str = "1", pictures: str = "same") -> list[dict[str, Any]]:
    """A cell for each person with its hits; chance .25."""
    cells = []
    for k, hits in enumerate(tops):
        score = {"top1": float(np.mean(hits)), "n": len(hits), "candidates": 4, "chance_top1": 0.25}
        concept = {"kind": "scene", "top1": score["top1"], "chance_top1": 0.25, "candidates": 4}
        kept = {"pictures": pictures, "picture": hits, "concept": hits}
        place = {"backbone": "mini", "encoder": "ridge", "layer": layer, "subject": f"0{k}", "seed": 0, "fold": "0"}
        loss = {"train": 1.0 + k, "validation": 2.0 + k}
        cells.append({**place, "scores": {"brain_to_image": score}, "concept": concept, "hits": kept, "loss": loss})
    return cells


def _point(cells: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = points.curves(cells)[0]["best"]
    return found


def test_an_interval_of_two_people_is_over_pictures() -> None:
    rng = np.random.default_rng(0)
    hits = [(rng.random(60) < share).astype(float).tolist() for share in (0.4, 0.5)]
    found, means = _point(_validated(*hits)), [float(np.mean(part)) for part in hits]
    assert found["interval_over"] == "pictures" and found["loss"]["validation_ci95"] is None
    assert found["ci95"] == retrieval.bootstrap_interval([np.mean(hits, axis=0)]) == found["concept"]["ci95"]
    assert found["ci95"][0] < min(means) and found["ci95"][1] > max(means)
    twice = _validated(hits[0], hits[0])
    same = [{**cell, "subject": "00", "seed": seed} for seed, cell in enumerate(twice)]
    assert _point(same)["ci95"] == _point(_validated(hits[0]))["ci95"], "seeds are no further pictures"


def test_an_interval_of_three_people_is_over_people() -> None:
    hits = [[1.0] * k + [0.0] * (10 - k) for k in (2, 4, 9)]
    found = _point(_validated(*hits))
    assert found["interval_over"] == "subjects" and found["ci95"][0] == 0.0 and found["ci95"][1] == 1.0, "cut at 0, 1"
    near = _point(_validated(*([1.0] * k + [0.0] * (10 - k) for k in (4, 5, 6))))
    half = 4.302653 * 0.1 / np.sqrt(3)
    assert near["ci95"] == pytest.approx([0.5 - half, 0.5 + half], abs=1e-6)
    assert near["loss"]["train_ci95"] == pytest.approx([2 - 10 * half, 2 + 10 * half], abs=1e-5)


def _doubts(*layers: list[float], chosen: int) -> list[str]:
    cells = [cell for k, hits in enumerate(layers) for cell in _validated(hits, layer=str(k))]
    curve = points.curves(cells)[0]
    return sweep_report.doubts(
        {"chosen": {"backbone": "mini", "encoder": "ridge", "layer": str(chosen)}, "curves": [curve]}
    )


def test_a_choice_without_ground_is_said_to_be_one() -> None:
    low, high = [1.0] * 10 + [0.0] * 30, [1.0] * 30 + [0.0] * 10
    assert _doubts(low, high, chosen=1) == []
    (tie,) = _doubts(low, high, high[::-1], chosen=1)
    assert tie == "the choice is a tie with layer 2 (75.0 % each); the first of them was taken"
    nothing, tie = _doubts(low, low, chosen=0)
    assert nothing.startswith("no layer is above chance on validation") and "a tie with layer 1" in tie


def test_the_table_says_what_its_intervals_are_over(toy: type[Toy], tmp_path: Path) -> None:
    toy.signal = 0.0
    result = _run(tmp_path, test=False)
    assert "(validation on training rows, intervals over pictures; test not read)" in result.table()
    assert all(f"note: {doubt}" in result.table() for doubt in sweep_report.doubts(result.summary))
    assert result.summary["curves"][0]["points"][0]["interval_over"] == "pictures"
    cell = next((tmp_path / "cells").glob("*.json"))
    kept = read_json(cell)
    assert len(kept["hits"]["picture"]) == kept["scores"]["brain_to_image"]["n"] == 30


def test_best_yaml_is_a_recipe(toy: type[Toy], tmp_path: Path) -> None:
    _run(tmp_path, encoders=["mlp", "ridge"])
    best = load_config(Config, tmp_path / "best.yaml")
    expected = toy_config()
    assert best.target.layer == "1"
    assert best.encoder.name == read_json(tmp_path / "choice.json")["chosen"]["encoder"]
    whose = f"of '{' '.join(study_labels(expected))}', subjects '01', '02'"
    assert best.target.chosen_on == f"grouped 3-fold cross-validation on training rows {whose}"
    assert replace(best.target, layer=expected.target.layer, chosen_on=expected.target.chosen_on) == expected.target
    assert best.train == expected.train


def test_components_are_the_same_for_every_layer(toy: type[Toy], tmp_path: Path, counted: list[Any]) -> None:
    config = replace(toy_config(), target=replace(toy_config().target, components=400))
    found = sweep.run(config, layers=["1"], out=tmp_path, progress=False).summary
    assert found["components"] == 32  # 4 tokens of width 8
    assert {call[0].target.components for call in counted} == {32}
    assert load_config(Config, tmp_path / "best.yaml").target.components == 32


def test_plot_is_drawn_for_several_backbones(toy: type[Toy], tmp_path: Path) -> None:
    from PIL import Image

    result = _run(tmp_path, backbones=["mini", "torchvision/other"])
    assert {curve["backbone"] for curve in result.summary["curves"]} == {"mini", "torchvision/other"}
    draw(result.summary, tmp_path)
    with Image.open(tmp_path / "layers.png") as picture:
        wide = np.asarray(picture.convert("RGB"))
    assert wide.shape[1] > 2 * wide.shape[0] and wide.std() > 10
    assert not list(tmp_path.glob(".*"))


def test_repetitions_can_stay_single_in_training(toy: type[Toy], tmp_path: Path, counted: list[Any]) -> None:
    config = replace(toy_config(), train=replace(toy_config().train, average_repetitions=False))
    found = sweep.run(config, layers=["1"], out=tmp_path, progress=False).summary
    assert sorted({len(call[1]) for call in counted}) == [120, 180]
    assert found["curves"][0]["points"][0]["candidates"] == 30, "validation rows are averaged"


def test_bad_input_is_one_clear_line(toy: type[Toy], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'ridge'"):
        _run(tmp_path / "x", encoders=["rigde"])
    with pytest.raises(UserError, match="no subject '03'"):
        sweep.run(replace(toy_config(), subjects=["03"]), out=tmp_path / "x", progress=False)
    with pytest.raises(UserError, match=r"sweep\.seeds=0"):
        sweep.run(toy_config(seeds=0), out=tmp_path / "x", progress=False)
    with pytest.raises(UserError, match="31 folds"):
        sweep.run(toy_config(folds=31), out=tmp_path / "x", progress=False)
    assert not (tmp_path / "x").exists(), "nothing half-written"


def test_results_do_not_depend_on_the_folder(toy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_HOME", str(tmp_path))
    first = sweep.run(toy_config(), layers=["1"], progress=False)
    assert first.folder == tmp_path / "runs" / "sweep" / "folder_mini"
    csv_text = (first.folder / "sweep.csv").read_text()
    shutil.rmtree(first.folder)
    second = sweep.run(toy_config(), layers=["1"], progress=False)
    assert (second.folder / "sweep.csv").read_text() == csv_text
