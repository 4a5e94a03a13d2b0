"""`recon tune-pictures`: held-out pictures enter no fit, test rows are not read, the rule, and who takes the choice."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from align.checkpoint import Run, load_run
from align.data.signals import Recording, Stimuli, Trials
from align.data.studies.simulated.rendering import TEST_CONCEPTS, TRAIN_CONCEPTS, picture
from align.files import read_json, write_json
from recon.audit.collect import from_run
from recon.cli import main
from recon.decoding.bridges.choose import Conditioning
from recon.decoding.library import _without_test, read_library
from recon.decoding.low_level import LowLevel
from recon.decoding.plan import Sampling
from recon.decoding.predict import load_predictions, open_recording
from recon.drawing.record import FILE, read_record
from recon.evaluation.judge import USED_BY_GENERATOR, Judge
from recon.evaluation.report import evaluate_run
from recon.evaluation.settings import EvaluateConfig
from recon.generation.conditioner import Conditioner, ConditionerInfo, save_conditioner
from recon.generation.runtime import Runtime
from recon.generation.sketch import Sketch
from recon.metrics.feature_nets import WeightsMissing
from recon.tuning import scores as scores_of
from recon.tuning import tune as module
from recon.tuning.candidates import CANDIDATES, TUNED, candidates, laid_over, parse
from recon.tuning.chosen import choice_path, drawn_by, read_choice
from recon.tuning.inner import inner_folder, inner_run
from recon.tuning.scores import choose
from recon.tuning.tune import Means, tune
from tests.one_line import fails
from tests.recon.tiny import tiny_generator
from tests.recon.tiny_run import make_run, only_pixels, pixel_judge

HELD_OUT, N_TEST = 8, 6
TRIED = ("strength=0", "strength=1 guidance-scale=3", "guide=encoding:0.1 strength=1")
NAMES = ("strength=0", "strength=1 guidance_scale=3", "guide=encoding:0.1 strength=1")


@dataclass(frozen=True)
class Place:
    """A generator with a conditioner that has a sketch, and a run of an encoding model with its choice."""

    home: Path
    generator: str
    run: Path
    result: dict[str, Any]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("tuning")
    folder, _, unet, _ = tiny_generator(root / "generator")
    torch.manual_seed(1)
    info = ConditionerInfo("torchvision/squeezenet1_1", "features.3", "grid:2", 4, 128, str(folder))
    path = root / "runs" / "recon" / "squeeze" / "ip_adapter.safetensors"
    conditioner = Conditioner(unet, info, torch.zeros(128), torch.ones(128))
    save_conditioner(conditioner, path, sketch=Sketch(4, 128, 4, 8, hidden=16, depth=1))
    run = make_run(root / "encoding", N_TEST, encoder="encoding")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECON_HOME", str(root))
        patch.setattr(module, "load_judges", lambda *given: ([pixel_judge()], {}))
        yield Place(root, str(folder), run.path, tune(run, means(str(folder)), TRIED, HELD_OUT, seed=3))


@pytest.fixture(autouse=True)
def at_home(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_HOME", str(place.home))


def means(generator: str) -> Means:
    sampling = Sampling(seeds=(0,), steps=2, batch_size=4)
    return Means(generator, Conditioning(), sampling, Runtime(), {"steps": "2"})


@pytest.fixture
def run(place: Place) -> Run:
    return load_run(place.run)


@pytest.fixture
def inner(run: Run) -> Run:
    return inner_run(run, HELD_OUT, 3)


def elsewhere(run: Run, root: Path, study: Path | None = None) -> Run:
    """The same run with an empty cache, and with another study folder."""
    config = replace(run.config, cache_dir=str(root / "cache"))
    config.study = replace(config.study, root=str(study or config.study.root))
    return replace(run, config=config)


def altered_study(run: Run, root: Path, ids: set[str], pictures: bool) -> Path:
    """A copy of the run's study: the signals of the pictures ``ids`` are noise, and the ``pictures`` too if so."""
    study, rng = root / "study", np.random.default_rng(5)
    shutil.copytree(Path(str(run.config.study.root)), study)
    with (study / "stimuli.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["image"] in ids]
    assert len(rows) == len(ids)
    signals = np.load(study / "signals.npy")
    for row in rows:
        signals[int(row["row"])] = 1e3 * rng.normal(size=signals.shape[1])
        if pictures:
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(study / "images" / row["image"])
    np.save(study / "signals.npy", signals)
    return study


def test_the_file_holds_candidates_scores_and_whose_they_are(place: Place, run: Run, inner: Run) -> None:
    stored = read_json(choice_path(run))
    assert stored == place.result and list(stored["candidates"]) == list(NAMES)
    split = read_json(run.path / "split.json")
    held_out = stored["held_out"]
    assert held_out["n"] == HELD_OUT and held_out["seed"] == 3 and held_out["n_train"] == 40 - HELD_OUT
    where = {name: split["train"]["hashes"][i] for i, name in enumerate(split["train"]["ids"])}
    assert [where[name] for name in held_out["ids"]] == held_out["hashes"]
    assert tuple(held_out["ids"]) == load_predictions(inner).ids
    for found in stored["candidates"].values():
        for score in (*found["two_way"].values(), found["PixCorr"], found["fine_power"]):
            assert score["ci95"][0] <= score["value"] <= score["ci95"][1] and score["n"] == HELD_OUT
        assert found["settings"]["steps"] == "2" and found["seconds"] >= 0
    assert stored["choice"] == choose(stored["candidates"], pixel_judge().name)
    assert stored["settings"] == stored["candidates"][stored["choice"]]["settings"]


def test_held_out_pictures_enter_neither_refit_nor_library_nor_coarse_pictures(
    place: Place, run: Run, inner: Run, tmp_path: Path
) -> None:
    ids = set(place.result["held_out"]["ids"])
    library = read_library(inner)
    assert len(library) == 40 - HELD_OUT and not ids & set(library.ids)
    moved = inner_run(elsewhere(run, tmp_path, altered_study(run, tmp_path, ids, pictures=False)), HELD_OUT, 3)
    assert moved.meta["weights_hash"] == inner.meta["weights_hash"] != run.meta["weights_hash"]
    x = open_recording(inner).train.averaged().x
    low = [LowLevel.fit(one, open_recording(one), read_library(one))(x) for one in (inner, moved)]
    np.testing.assert_array_equal(low[0][0], low[1][0])
    assert not np.allclose(load_predictions(moved).embeds, load_predictions(inner).embeds)
    recording = open_recording(inner)
    kept = {recording.stimuli.ids[recording.train.stimulus[0]]}
    other = altered_study(run, tmp_path / "other", kept, pictures=False)
    changed = inner_run(elsewhere(run, tmp_path / "other", other), HELD_OUT, 3)
    assert changed.meta["weights_hash"] != inner.meta["weights_hash"]


def test_nothing_comes_from_test_rows(place: Place, run: Run, tmp_path: Path) -> None:
    test = set(read_json(run.path / "split.json")["test"]["ids"])
    study = altered_study(run, tmp_path, test, pictures=True)
    again = replace(elsewhere(run, tmp_path, study), path=tmp_path / "run")
    again.path.mkdir()
    shutil.copy(run.path / "model.safetensors", again.path)
    told = tune(again, means(place.generator), TRIED[:2], HELD_OUT, seed=3)
    for name, found in told["candidates"].items():
        expected = place.result["candidates"][name]
        assert {**found, "seconds": 0} == {**expected, "seconds": 0}
    assert told["held_out"] == place.result["held_out"]
    assert told["inner_run"]["run"] == place.result["inner_run"]["run"]
    assert not (again.path / "predictions").exists()


def test_further_pictures_of_held_out_concepts_are_left_out() -> None:
    def stimuli(ids: list[str], concepts: list[str]) -> Stimuli:
        images = [picture(name) for name in ids]
        return Stimuli(tuple(ids), images.__getitem__, np.arange(len(ids)), tuple(concepts), ("",) * len(ids))

    a, b, c = TRAIN_CONCEPTS[0], TRAIN_CONCEPTS[50], TEST_CONCEPTS[7]
    shown = stimuli([f"{a}-0", f"{b}-0", f"{c}-0"], [a, b, c])
    further = stimuli([f"{a}-5", f"{b}-5", f"{b}-6"], [a, b, b])

    def left(train: list[int], test: list[int]) -> list[tuple[int, int]]:
        parts = [Trials(np.zeros((len(k), 1)), np.array(k), np.zeros(len(k), dtype=np.int64)) for k in (train, test)]
        found = _without_test(Recording("s", "01", parts[0], parts[1], shown), (shown, further))
        return [(int(source), int(i)) for source, i in found]

    assert left([0], [1]) == [(0, 0), (1, 0)]
    assert left([0, 1], [2]) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]


def test_the_inner_run_is_made_once(place: Place, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        tune(run, means(place.generator), TRIED[:1], HELD_OUT, seed=3)
    assert "solved again" not in caplog.text
    assert inner_folder(run, HELD_OUT, 3) != inner_folder(run, HELD_OUT, 4)
    write_json(choice_path(run), place.result)


def scores(two_way: float, pix_corr: float, fine: float) -> dict[str, Any]:
    return {"two_way": {"judge": {"value": two_way}}, "PixCorr": {"value": pix_corr}, "fine_power": {"value": fine}}


def test_the_rule() -> None:
    found = {"a": scores(0.9, 0.3, 0.5), "b": scores(0.8, 0.1, 0.8), "c": scores(0.8, 0.2, 1.2), "d": scores(0.7, 1, 1)}
    assert choose(found, "judge") == "c"  # the best has too little detail; of two equals the better PixCorr
    assert choose({name: found[name] for name in ("b", "d")}, "judge") == "b"
    assert choose({"a": found["a"], "e": scores(0.95, 0, 3)}, "judge") == "e"  # none within: all
    assert choose({"x": scores(0.8, 0.2, 1), "y": scores(0.8, 0.2, 1)}, "judge") == "x"


def test_the_table_can_be_read() -> None:
    for settings in candidates((), library=True).values():
        laid_over(settings, Conditioning(), Sampling())
        assert set(settings) <= set(TUNED)
    assert len(candidates((), library=True)) > len(candidates((), library=False)) == len(CANDIDATES)
    assert parse("--best-of=3 library='a b'") == {"best_of": "3", "library": "a b"}
    wanted, sampling = laid_over({"guide": "encoding:0.2", "steps": "5"}, Conditioning(best_of=2), Sampling())
    assert (wanted.guide.scale if wanted.guide else 0, wanted.best_of, sampling.steps) == (0.2, 2, 5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("strenght=1", "'strenght=1' is not name=value of strength, guidance_scale"),
        ("strength", "'strength' is not name=value"),
        ("strength=2", "--strength 2.0 should be from 0"),
        ("steps=1.5", "steps='1.5' is no whole number"),
        ("low_level=all", "low-level path 'all' is not known"),
        ("guide=tokens", "--guide 'tokens' is not known"),
        ("strength=0 guide=encoding", "--guide acts while the generator draws"),
        ("best_of='3", "No closing quotation"),
    ],
)
def test_a_bad_candidate_is_one_line_before_anything_is_fitted(
    text: str, said: str, place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["tune-pictures", "--subject", "01", "--run", str(place.run), "--generator", place.generator]
    assert main([*words, "--try", "best_of=2", "--try", text, f"cache_dir={tmp_path / 'cache'}"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(f"recon tune-pictures: --try {text!r}: ".replace("\\'", "'")[:30]) and said in lines[-1]
    assert not (tmp_path / "cache").exists()


def test_what_cannot_be_tuned_is_one_line(place: Place, run: Run, tmp_path: Path) -> None:
    here = means(place.generator)
    fails("--held-out 1 should be 2 or more", lambda: tune(run, here, TRIED, 1))
    fails("hold out 20 of them or fewer, not 21", lambda: tune(run, here, TRIED, 21))
    fails(
        "--try 'tokens=predicted': run .* predicts no tokens",
        lambda: tune(run, here, ["tokens=predicted"], HELD_OUT, 3),
    )
    fails("holds pictures out itself", lambda: tune(inner_run(run, HELD_OUT, 3), here, TRIED, 2))
    loso = replace(run, meta={**run.meta, "trained_on": ["02"]})
    fails("was not trained on subject 01", lambda: tune(loso, here, TRIED, 2))
    own = replace(run, config=replace(run.config, encoder=replace(run.config.encoder, name="own")))
    fails("module of a Python session", lambda: tune(own, here, TRIED, 2))


def drawn(
    place: Place, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *flags: str
) -> tuple[dict[str, Any], list[str]]:
    """settings.json of `recon generate` with ``flags``, and what it says about tuning."""
    words = ["generate", "--subject", "01", "--run", str(place.run), "--generator", place.generator, "--limit", "2"]
    said: list[str] = []
    monkeypatch.setattr("recon.tuning.chosen.log.info", lambda text, *values: said.append(text % values))
    assert main([*words, "--out", str(out), "--json", *flags]) == 0
    folder = json.loads(capsys.readouterr().out)["folders"]["reconstructions"]
    return read_json(Path(folder) / FILE), said


@pytest.fixture
def chosen(place: Place, run: Run) -> Iterator[dict[str, Any]]:
    """The choice as if another candidate had won."""
    name = NAMES[1]
    stored = {**place.result, "choice": name, "settings": place.result["candidates"][name]["settings"]}
    stored["chosen_on"] = f"8 held-out training pictures (recon tune-pictures, candidate {name})"
    write_json(choice_path(run), stored)
    yield stored
    write_json(choice_path(run), place.result)


def test_generate_takes_the_choice_and_a_flag_wins(
    place: Place,
    chosen: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record, said = drawn(place, tmp_path / "a", capsys, monkeypatch)
    assert (record["strength"], record["guidance_scale"], record["steps"]) == (1.0, 3.0, 2)
    assert record["chosen_on"] == chosen["chosen_on"]
    assert len(said) == 1 and ": steps=2 strength=1 guidance_scale=3 (--no-tuning" in said[0]
    record, said = drawn(place, tmp_path / "b", capsys, monkeypatch, "--strength", "0.5")
    assert (record["strength"], record["guidance_scale"]) == (0.5, 3.0)
    assert len(said) == 1 and ": steps=2 guidance_scale=3 (--no-tuning" in said[0]
    record, said = drawn(place, tmp_path / "c", capsys, monkeypatch, "--no-tuning", "--steps", "1")
    assert record["strength"] != 1 and record["steps"] == 1 and said == []
    assert record["chosen_on"] == "not chosen by recon tune-pictures"


def test_what_a_flag_leaves_no_room_for_is_not_taken(place: Place, run: Run, chosen: dict[str, Any]) -> None:
    def under(settings: dict[str, str], given: set[str], **own: Any) -> tuple[Conditioning, Sampling]:
        write_json(choice_path(run), {**chosen, "settings": settings})
        sampling = Sampling(strength=own.pop("strength", None))
        wanted = Conditioning(**own)
        choice = read_choice(run, place.generator, wanted, sampling)
        assert choice is not None
        return choice.under(given, wanted, sampling)

    assert under({"library": "photos"}, {"tokens"}, tokens="predicted")[0].library is None
    assert under({"tokens": "predicted"}, {"library"}, library="photos")[0].tokens is None
    assert under({"guide": "encoding"}, {"strength"}, strength=0.0)[0].guide is None
    assert under({"guide": "encoding"}, {"strength"}, strength=0.5)[0].guide is not None
    assert under({"strength": "0"}, {"low_level"}, low_level="none")[1].strength is None
    assert under({"strength": "0"}, {"low_level"}, low_level="tokens")[1].strength == 0


def test_a_choice_for_something_else_is_not_taken(
    place: Place, run: Run, chosen: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    def read(conditioning: Conditioning | None = None) -> Any:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            return read_choice(run, place.generator, conditioning or Conditioning(), Sampling())

    assert read().name == NAMES[1]
    assert read(Conditioning(match="none")) is None and "another match and is not used" in caplog.text
    assert read(Conditioning(controlnet="net")) is None and "another controlnet" in caplog.text
    ways = [Conditioning(controlnet="net", **more) for more in ({}, {"control": "sketch"}, {"control_scale": 0.5})]
    usual, *others = (drawn_by(place.generator, way, Sampling()) for way in ways)
    assert usual == drawn_by(place.generator, Conditioning(controlnet="net", control="edges"), Sampling())
    assert usual not in others
    write_json(choice_path(run), {**chosen, "drawn_by": {**chosen["drawn_by"], "generator": "0"}})
    assert read() is None and "another generator" in caplog.text
    write_json(choice_path(run), {**chosen, "run": "folder_sub-01@0"})
    assert read() is None and "another training" in caplog.text
    write_json(choice_path(run), {**chosen, "settings": {"seeds": "1"}})
    fails("unknown setting 'seeds'", read)
    write_json(choice_path(run), {"run": 1})
    fails("holds no choice", read)
    choice_path(run).unlink()
    assert read() is None and caplog.text == ""


def test_report_and_audit_say_what_was_chosen_on(
    place: Place, run: Run, chosen: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recon.evaluation.judges.load_judge", only_pixels)
    words = ["generate", "--subject", "01", "--run", str(run.path), "--generator", place.generator]
    assert main(words) == 0
    report = evaluate_run(run, settings=EvaluateConfig(networks=False, n_boot=20, n_perm=19))
    assert report["drawn_with"]["chosen_on"] == chosen["chosen_on"] and report["drawn_with"]["strength"] == 1.0
    folder = run.path / "reconstructions" / "generator" / "sub-01"
    assert read_record(run, folder, 0) == report["drawn_with"] and read_record(run, folder, 1) is None
    assert read_record(replace(run, meta={**run.meta, "weights_hash": "0" * 64}), folder, 0) is None
    assert (from_run(run, ()).declared or {})["pictures"] == chosen["chosen_on"]
    tested = read_json(run.path / "split.json")["test"]["hashes"]
    write_json(choice_path(run), {**chosen, "held_out": {"hashes": tested}})
    assert "6 of these are test pictures" in (from_run(run, ()).declared or {})["pictures"]


def test_the_judge_that_chooses(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    present = {scores_of.FIRST, "torchvision/alexnet"}

    def load(name: str, settings: EvaluateConfig) -> Judge:
        if name not in present:
            raise WeightsMissing("no weights here")
        return replace(pixel_judge(), name=name)

    def names(generator: str = "generator", **settings: Any) -> tuple[list[str], dict[str, str]]:
        found, missing = scores_of.load_judges(run, generator, EvaluateConfig(**settings))
        return [judge.name for judge in found], missing

    monkeypatch.setattr(scores_of, "load_judge", load)
    assert names() == ([scores_of.FIRST], {scores_of.SECOND: "no weights here"})
    assert names(judge="torchvision/alexnet")[0] == ["torchvision/alexnet", scores_of.FIRST]
    monkeypatch.setitem(USED_BY_GENERATOR, "generator", (scores_of.FIRST,))
    present.add(scores_of.SECOND)
    assert names() == ([scores_of.SECOND], {scores_of.FIRST: "it took part in the run"})
    present.clear()
    fails("no judge's weights are on this machine", names)
