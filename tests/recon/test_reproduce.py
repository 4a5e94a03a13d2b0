"""`recon reproduce`: recipes as published, honest choices, marked oracles, resuming, mistakes in one line."""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

import align.training.training_set
from align import retrieval
from align.config import Config, TargetConfig, load_config
from align.data.signals import Stimuli
from align.encoders import build_encoder
from align.encoders.shapes import SignalFacts
from align.errors import UserError
from align.files import read_json
from align.model.aligner import Aligner
from align.training.fit import fit
from align.training.training_set import training_side
from align.vision.backbones import load_backbone
from align.vision.fused import layer_targets
from recon import cli
from recon.reproduce import rules, run
from recon.reproduce.adapt import STEPS, adapted, substitute
from recon.reproduce.curves import Curve
from recon.reproduce.recipe import find_recipe, load_recipe
from recon.reproduce.report import markdown, summarise
from tests.align.fixture_sweep import LAYERS, N_TEST, N_TRAIN, Toy, toy_targets, toy_tokens
from tests.conftest import PROJECT
from tests.one_line import fails

PAPERS = {  # encoder, backbone, epochs, batch, lr, rule of layer and epoch; trial shape and rows as published
    "nice": ("tsconv", "ViT-L-14", 200, 1000, 2e-4, "fixed", "last", (63, 250), 16_540),
    "atm": ("atm", "ViT-H-14", 40, 64, 3e-4, "fixed", "test_top1", (63, 250), 66_160),
    "ubp": ("mlp", "RN50", 50, 1024, 1e-4, "fixed", "last", (17, 250), 16_540),
    "neurobridge": ("mlp", "RN50", 50, 1024, 1e-4, "fixed", "test_loss", (17, 250), 16_540),
    "samga": ("mlp", "InternViT-6B", 60, 512, 1e-4, "fixed", "test_top1", (17, 250), 16_540),
    "shallow_alignment": ("mlp", "InternViT-6B", 50, 1024, 1e-4, "test", "last", (17, 250), 16_540),
}
THINGS = PROJECT / "configs" / "align" / "things_eeg2.yaml"
V4 = PROJECT / "configs" / "align" / "cowley2023_v4.yaml"


def test_every_recipe_file_has_a_case() -> None:
    assert {path.stem for path in (PROJECT / "configs" / "papers").glob("*.yaml")} == set(PAPERS)


@pytest.mark.parametrize("name", PAPERS)
def test_a_recipe_on_its_own_study_is_the_published_one(name: str) -> None:
    recipe = load_recipe(name, THINGS, ["study.root=/data", "subjects=[08]"])
    encoder, backbone, epochs, batch, lr, layer_rule, epoch_rule, shape, rows = PAPERS[name]
    config, paper = recipe.config, recipe.paper
    assert (config.encoder.name, config.train.epochs, config.train.batch_size) == (encoder, epochs, batch)
    assert config.train.lr == lr and backbone in config.backbone.name
    assert (paper.layer_rule, paper.epoch_rule) == (layer_rule, epoch_rule)
    assert config.subjects == ["08"] and config.study.root == "/data" and recipe.stand_ins == ()
    assert (config.train.noise, config.train.image_dropout, config.loss.regression) == (0, 0, 0)
    assert config.train.average_repetitions == (name != "atm")
    assert bool(config.preprocess.channels) == (shape[0] == 17)
    number = paper.number("things_eeg2")
    assert 1 < number.top1 < number.top5 <= 100
    if number.subjects:
        assert np.mean(list(number.subjects.values())) == pytest.approx(number.top1, abs=0.15)
    assert paper.status == "not yet verified" and len(paper.differences) > 2
    assert adapted(config, shape, SignalFacts(), rows, True, set()) == (config, [])


def test_the_sizes_of_nice_and_atm_are_those_of_the_papers() -> None:
    nice = build_encoder((63, 250), load_recipe("nice", THINGS, []).config.encoder)
    assert nice.head[0].in_features == 1440  # type: ignore[union-attr,index]
    atm = build_encoder((63, 250), load_recipe("atm", THINGS, []).config.encoder)
    assert sum(p.numel() for p in atm.parameters()) / 1e6 == pytest.approx(3.18, rel=0.05)


def test_another_study_lends_its_backbone_and_keeps_the_recipe() -> None:
    recipe = load_recipe("samga", V4, ["study.root=/v4", "train.epochs=3", "encoder.width=64"])
    config = recipe.config
    assert config.study.name == "cowley2023_v4" and config.subjects == []
    assert config.backbone.name == "torchvision/squeezenet1_1" and config.target.pooling == "grid:4"
    assert config.target.layer == "0.44+0.53+0.62+0.71+0.8" and config.target.components == 400
    assert config.preprocess.channels == [] and config.train.lr == 1e-4 and config.train.noise == 0
    assert (config.train.epochs, config.encoder.width, config.loss.normalize_brain) == (3, 64, False)
    assert any("squeezenet1_1" in said for said in recipe.stand_ins)
    assert [said for said in recipe.stand_ins if said.startswith("set by hand")] == [
        "set by hand: train.epochs=3",
        "set by hand: encoder.width=64",
    ]
    simulated = load_recipe("ubp", None, []).config
    assert simulated.study.name == "simulated" and simulated.preprocess.channels == ["P.*", "O.*"]
    given = load_recipe("ubp", V4, ["backbone.name=open_clip/RN50", "target.layer=attnpool"]).config
    assert (given.backbone.name, given.target.layer) == ("open_clip/RN50", "attnpool")
    assert load_recipe("shallow_alignment", V4, []).config.sweep.layers[0] == "features.3"
    at_home = load_recipe("shallow_alignment", THINGS, []).config.sweep
    assert "28" in at_home.layers and at_home.seeds == 5
    assert load_recipe("shallow_alignment", V4, []).config.sweep.seeds == 1
    assert load_recipe("shallow_alignment", THINGS, ["sweep.seeds=2"]).config.sweep.seeds == 2


def test_recipes_that_do_not_fit_name_the_substitute() -> None:
    nice, facts = load_recipe("nice", None, []).config, SignalFacts()
    line = fails("--adapt, which takes encoder.kernel=5", lambda: adapted(nice, (63, 50), facts, 920, False, set()))
    assert "75 samples" in line
    fails("--adapt, which takes encoder.name=mlp", lambda: adapted(nice, (88,), facts, 920, False, set()))
    short, said = adapted(nice, (63, 50), facts, 920, True, set())
    assert (short.encoder.kernel, short.encoder.pool, short.encoder.stride) == (5, 10, 1) and len(said) == 2
    assert round(920 / short.train.batch_size) == STEPS
    voxels, said = adapted(nice, (88,), facts, 920, True, {"train.batch_size"})
    assert voxels.encoder == replace(nice.encoder, name="mlp") and voxels.train.batch_size == 1000
    assert said == ["encoder.name=mlp instead of tsconv (no time axis)"]
    fails("tsconv", lambda: adapted(nice, (88,), facts, 920, True, {"encoder.name"}))
    same, said = adapted(load_recipe("ubp", None, []).config, (17, 50), facts, 920, False, set())
    assert same.train.batch_size == 1024 and "--adapt takes train.batch_size=57" in said[0]
    for samples in (20, 50, 100, 201, 249):
        build_encoder((63, samples), substitute(nice.encoder, (63, samples))[0])


# --- rules, against loops ---


def random_test(seed: int = 0, n: int = 30, epochs: int = 6) -> dict[rules.Cell, Curve]:
    rng = np.random.default_rng(seed)
    return {
        (layer, subject, number): Curve(
            rng.integers(0, 2, (epochs, n)).astype(np.float32), np.ones((epochs, n), np.float32), rng.random(epochs)
        )
        for layer in LAYERS
        for subject in ("01", "02", "03")
        for number in (0, 1)
    }


def test_rules_choose_what_loops_choose() -> None:
    test = random_test()
    places = [cell[1:] for cell in test if cell[0] == "0"]
    validation = {cell: np.random.default_rng(9).permutation(curve.mean) for cell, curve in test.items()}
    best = max(LAYERS, key=lambda layer: sum(max(validation[(layer, *place)]) for place in places))
    chosen = rules.clean(validation, LAYERS)
    assert chosen.layer == best and not chosen.on_test
    for place, epoch in chosen.epochs.items():
        assert validation[(best, *place)][epoch - 1] == max(validation[(best, *place)])
    oracle = rules.oracle(test, LAYERS)
    tops = {layer: np.mean([test[(layer, *place)].mean.max() for place in places]) for layer in LAYERS}
    assert oracle.layer == max(tops, key=lambda layer: tops[layer]) and oracle.on_test
    last = rules.own(test, ["1"], "last")
    assert last == rules.Choice("1", dict.fromkeys(places, 6), False)
    lowest = rules.own(test, ["2"], "test_loss")
    assert all(
        test[("2", *place)].loss[epoch - 1] == test[("2", *place)].loss.min() for place, epoch in lowest.epochs.items()
    )
    assert lowest.on_test and rules.own(test, LAYERS, "last").on_test


def test_prices_are_paired_differences_with_both_intervals() -> None:
    test = random_test(1)
    ids = {subject: [f"picture {i}" for i in range(30)] for subject in ("01", "02", "03")}
    validation = {cell: curve.mean[::-1] for cell, curve in test.items()}
    choices = {
        "own_rule": rules.own(test, LAYERS, "last"),
        "clean": rules.clean(validation, LAYERS),
        "oracle": rules.oracle(test, LAYERS),
    }
    found = summarise(choices, test, ids)

    def hits(choice: rules.Choice, subject: str) -> np.ndarray:
        rows = [test[choice.layer, subject, seed].top1[choice.epochs[subject, seed] - 1] for seed in (0, 1)]
        return np.mean(rows, axis=0)

    for name in ("own_rule", "oracle"):
        each = {subject: hits(choices[name], subject) - hits(choices["clean"], subject) for subject in ids}
        means = [float(values.mean()) for values in each.values()]
        price = found["price"][name]
        assert price["difference"] == pytest.approx(np.mean(means), abs=1e-6)
        interval = stats.t.interval(0.95, 2, np.mean(means), stats.sem(means))
        assert price["ci95_subjects"] == pytest.approx(interval, abs=1e-6)
        rng, together = np.random.default_rng(3), np.mean(list(each.values()), axis=0)
        drawn = [together[rng.integers(0, 30, 30)].mean() for _ in range(4000)]
        assert price["ci95"] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.02)
        assert found["mean"][name]["top1"] == pytest.approx(
            np.mean([hits(choices[name], subject).mean() for subject in ids]), abs=1e-6
        )
    assert found["price"]["oracle"]["difference"] >= found["price"]["own_rule"]["difference"]
    two = {cell: curve for cell, curve in test.items() if cell[1] != "03"}
    fewer = {
        name: replace(c, epochs={k: v for k, v in c.epochs.items() if k[0] != "03"}) for name, c in choices.items()
    }
    assert "ci95_subjects" not in summarise(fewer, two, {k: ids[k] for k in ("01", "02")})["price"]["oracle"]


# --- the whole walk, on a toy study ---


class _Toy(Toy):
    """The study of the sweep tests, noisier; its rows of 20 numbers have no window that a recipe could choose."""

    noise = 2.0

    def recording(self, subject: str) -> Any:
        return self.read(subject)


def _targets(model: Any, images: Stimuli, layers: Any, target: TargetConfig, *_: Any) -> dict[str, Any]:
    return {layer: toy_targets(f"toy {layer}", layer, target) for layer in layers}


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> type[_Toy]:
    """The toy study and its backbone in place of real ones; everything else is the real thing."""
    study = type("Toy", (_Toy,), {})
    monkeypatch.setattr(run, "open_study", study)
    backbone = SimpleNamespace(layers=LAYERS, name="toy", shapes={})
    backbone.to = lambda device: backbone
    monkeypatch.setattr(run, "load_backbone", lambda config: backbone)
    monkeypatch.setattr(run, "training_targets", _targets)
    return study


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of training rows of every real fit."""
    calls: list[int] = []

    def counting(config: Config, x: Any, *args: Any, **options: Any) -> Any:
        calls.append(len(x))
        return fit(config, x, *args, **options)

    monkeypatch.setattr(align.training.training_set, "fit", counting)
    return calls


PAIRS = [
    *("encoder.width=16", "train.epochs=3", "train.lr=1e-2", "train.batch_size=32"),
    *("target.components=10", "sweep.seeds=1", "sweep.folds=2"),
]


def walk(folder: Path, name: str = "shallow_alignment", *pairs: str, overwrite: bool = False) -> dict[str, Any]:
    every = [*PAIRS, "sweep.layers=[0,1]", f"run_dir={folder}", f"cache_dir={folder / 'cache'}", *pairs]
    return run.reproduce(name, None, every, adapt=True, progress=False, overwrite=overwrite)


def test_the_clean_number_is_that_of_a_fit_stopped_there(toy: type[_Toy], tmp_path: Path) -> None:
    result = walk(tmp_path)
    for row in result["rows"]:
        layer, epoch = row["clean"]["layer"], row["clean"]["epoch"]
        recording = _Toy(Config()).recording(row["subject"])
        config = load_recipe("shallow_alignment", None, [*PAIRS, f"train.epochs={epoch}"]).config
        train, test = recording.train.averaged(), recording.test.averaged()
        aligner = fit(
            config,
            train.x,
            toy_tokens(layer),
            train.stimulus,
            groups=np.asarray(recording.stimuli.groups)[train.stimulus],
        )
        similarity = retrieval.scores(
            aligner.predict(test.x)["embeds"], aligner.embed_images(toy_tokens(layer)[test.stimulus])
        )
        hits = similarity.argmax(1) == np.arange(N_TEST)
        assert row["clean"]["top1"] == pytest.approx(hits.mean())
    assert (
        result["choices"]["clean"]["layer"] == "1"
        and "set by hand: train.epochs=3" in result["stand_ins"]
        and result["mean"]["clean"]["top1"] > 4 / N_TEST
    )
    assert result["mean"]["oracle"]["top1"] >= max(result["mean"][name]["top1"] for name in ("clean", "own_rule"))


def test_the_choice_is_stored_before_a_test_row_is_read_and_never_depends_on_one(
    toy: type[_Toy], tmp_path: Path
) -> None:
    asked = []

    def guard() -> None:
        asked.append((tmp_path / "a" / "choice.json").is_file())

    toy.guard = staticmethod(guard)
    first = walk(tmp_path / "a")
    assert asked and all(asked)
    toy.guard, toy.shift = staticmethod(lambda: None), 5
    other = walk(tmp_path / "b")
    assert other["choices"]["clean"] == first["choices"]["clean"]
    assert other["mean"]["clean"]["top1"] < first["mean"]["clean"]["top1"]
    assert first["choices"]["own_rule"]["on_test"] and not first["choices"]["clean"]["on_test"]


def test_a_killed_walk_loses_one_fit(toy: type[_Toy], fits: list[int], tmp_path: Path, monkeypatch: Any) -> None:
    whole = walk(tmp_path / "whole")
    total = len(fits)
    assert total == 2 * 2 * (2 + 1)  # subjects x layers x (folds + refit)
    assert fits == [N_TRAIN // 2] * 8 + [N_TRAIN] * 4, "folds first, then all training rows"
    assert walk(tmp_path / "whole")["rows"] == whole["rows"] and len(fits) == total
    real = align.training.training_set.fit

    def killed(*args: Any, **options: Any) -> Any:
        if len(fits) == total + 5:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(align.training.training_set, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        walk(tmp_path / "part")
    monkeypatch.setattr(align.training.training_set, "fit", real)
    assert walk(tmp_path / "part")["rows"] == whole["rows"] and len(fits) == 2 * total
    walk(tmp_path / "part", "shallow_alignment", "train.lr=1e-3", "subjects=[01]", overwrite=True)
    assert len(fits) == 2.5 * total, "another recipe in the same folder is fitted anew"


@pytest.mark.parametrize("other", ["train.lr=1e-3", "subjects=[01]", "sweep.layers=[0]", "sweep.folds=3"])
def test_a_reproduction_of_another_configuration_stays(toy: type[_Toy], tmp_path: Path, other: str) -> None:
    walk(tmp_path, "shallow_alignment")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    fails(
        "reproduction.json of another configuration.*run_dir=FOLDER", lambda: walk(tmp_path, "shallow_alignment", other)
    )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_reproduction_that_is_stopped_leaves_what_it_would_have_replaced(
    toy: type[_Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk(tmp_path)
    names = ("reproduction.json", "reproduction.md", "choice.json", "made_with.json")
    before = {name: (tmp_path / name).read_bytes() for name in names}

    def stopped(*_: object) -> None:
        assert (tmp_path / "next_choice.json").is_file(), "the choice is stored before a test row is read"
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(run, "_test", stopped)
        walk(tmp_path, "shallow_alignment", "train.lr=1e-3", overwrite=True)
    assert {name: (tmp_path / name).read_bytes() for name in names} == before
    walk(tmp_path, "shallow_alignment", "train.lr=1e-3", overwrite=True)
    assert not (tmp_path / "next_choice.json").exists()
    assert all((tmp_path / name).read_bytes() != before[name] for name in ("reproduction.json", "made_with.json"))


def test_folds_share_no_group_and_hold_every_picture_out_once() -> None:
    config = load_recipe("atm", None, ["sweep.folds=3"]).config
    side = training_side(_Toy(config), config, "01")
    assert len(side.train) == 2 * N_TRAIN == 2 * len(side.averaged), "single trials to fit on, averages to validate on"
    held_out = []
    for number in range(3):
        rows, held = side.fold(number)
        groups = [set(side.stimuli.groups[stimulus]) for stimulus in (side.train.stimulus[rows], held.stimulus)]
        assert not groups[0] & groups[1] and len(rows) + 2 * len(held) == 2 * N_TRAIN
        held_out += list(held.stimulus)
    assert sorted(held_out) == list(range(N_TRAIN))


def test_a_fixed_layer_stays_and_the_table_marks_the_oracle(toy: type[_Toy], tmp_path: Path) -> None:
    result = walk(tmp_path, "atm", "encoder.name=mlp", "target.layer=2")
    assert result["layers"] == ["2"] and {
        row[name]["layer"] for row in result["rows"] for name in ("own_rule", "clean", "oracle")
    } == {"2"}
    assert result["rows"][0]["own_rule"] == result["rows"][0]["oracle"], "ATM's own rule is the best test epoch"
    text = (tmp_path / "reproduction.md").read_text()
    assert "ORACLE (chosen on test)" in text and "Test rows chose: no clean number." in text
    assert "published on things_eeg2: 26.1/55.3 top-1/top-5; proceedings, cited [not read in its source]" in text
    stored = read_json(tmp_path / "reproduction.json")
    assert stored["rows"] == result["rows"] and markdown(stored) + "\n" == text
    assert {"published", "choices", "price", "mean", "stand_ins"} <= set(stored)
    assert "| 28.6 on things_eeg2 |" in text and stored["paper"]["published"][0]["top1"] == 28.64
    for study, told in (("things_eeg2", "| 01 | 0 | 75.0 |"), ("toy", "| 01 | 0 | – |")):
        shown = {**stored, "study": study, "published": {**stored["published"], "subjects": {"01": 75.0}}}
        assert told in markdown(shown)


# --- views: the toy study seen by the real small backbone ---


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What fits are given (tokens, and those of the views), and what is ranked in every stage."""
    study = type("Toy", (_Pictured,), {})
    monkeypatch.setattr(run, "open_study", study)
    found: dict[str, list[Any]] = {"fitted": [], "ranked": []}

    def watched(config: Config, x: Any, tokens: Any, *args: Any, view_tokens: Any, **options: Any) -> Any:
        found["fitted"].append([rows.all().numpy() for rows in (tokens, *view_tokens)])
        return fit(config, x, tokens, *args, view_tokens=view_tokens, **options)

    real = Aligner.embed_images

    def embedded(self: Aligner, tokens: np.ndarray, **options: Any) -> np.ndarray:
        found["ranked"].append(tokens)
        return real(self, tokens, **options)

    monkeypatch.setattr(align.training.training_set, "fit", watched)
    monkeypatch.setattr(Aligner, "embed_images", embedded)
    return found


class _Pictured(_Toy):
    """The toy's signals beside pictures with something to blur."""

    def recording(self, subject: str) -> Any:
        made = self.read(subject)
        noise = np.random.default_rng(0).integers(0, 256, (N_TRAIN + N_TEST, 16, 16, 3)).astype(np.uint8)
        made.stimuli = replace(made.stimuli, load=lambda i: noise[i])
        return made


RECIPE_VIEWS = {  # what is learnt first, then the other views
    "neurobridge": [["blur:15", "noise:25", "lowres:0.1", "mosaic:5"]],
    "ubp": [["foveal:51"], ["foveal:45"], ["foveal:57"]],
    "samga": [[]],
}


@pytest.mark.parametrize(
    ("name", "alike"),
    [
        pytest.param("neurobridge", True, marks=pytest.mark.long),
        pytest.param("ubp", True, marks=pytest.mark.long),
        ("ubp", False),
        ("samga", True),
    ],
)
def test_views_reach_every_stage(name: str, alike: bool, seen: dict[str, list[Any]], tmp_path: Path) -> None:
    pairs = [*PAIRS, "train.epochs=1", "subjects=[01]", f"run_dir={tmp_path}", f"cache_dir={tmp_path / 'cache'}"]
    pairs += [f"target.candidate_views={'true' if alike else 'false'}", "target.pooling=mean"]
    result = run.reproduce(name, None, pairs, adapt=True, progress=False)
    assert {row["subject"] for row in result["rows"]} == {"01"}
    recording, backbone = _Pictured(Config()).recording("01"), load_backbone(Config().backbone)
    (layer,) = result["layers"]

    def tokens(views: list[str]) -> np.ndarray:
        found = layer_targets(backbone, recording.stimuli, [layer], "mean", tmp_path / "cache", False, views)
        return found[layer].tokens.astype(np.float32)

    learnt, ranked = [tokens(views) for views in RECIPE_VIEWS[name]], tokens(RECIPE_VIEWS[name][0] if alike else [])
    assert len(seen["fitted"]) == len(seen["ranked"]) == 3, "two folds, then the refit that every rule reads"
    for given in seen["fitted"]:
        assert len(given) == len(learnt)
        rows = [int(np.abs(learnt[0] - row).sum((1, 2)).argmin()) for row in given[0]]
        for part, expected in zip(given, learnt, strict=True):
            np.testing.assert_array_equal(part, expected[rows])
    for given in seen["ranked"][:2]:
        rows = [int(np.abs(ranked - row).sum((1, 2)).argmin()) for row in given]
        np.testing.assert_array_equal(given, ranked[rows])
    np.testing.assert_array_equal(seen["ranked"][2], ranked[N_TRAIN:])
    if name != "samga":
        assert np.abs(tokens([]) - learnt[0]).max() > 0.01
        assert all(np.abs(part - learnt[0]).max() > 0 for part in learnt[1:])


def test_what_is_smoothed_needs_time() -> None:
    config = load_recipe("samga", None, []).config
    line = fails("cannot be smoothed along time", lambda: adapted(config, (88,), SignalFacts(), 20_000, False, set()))
    assert "--adapt, which takes train.smooth=0 instead of 0.3" in line
    changed, said = adapted(config, (88,), SignalFacts(), 20_000, True, set())
    assert changed.train.smooth == 0 and said == ["train.smooth=0 instead of 0.3 (no time axis)"]
    assert adapted(config, (88,), SignalFacts(), 20_000, True, {"train.smooth"})[0].train.smooth == 0.3
    assert adapted(config, (17, 50), SignalFacts(), 20_000, True, set()) == (config, [])


def test_published_options_are_in_the_recipes() -> None:
    samga, neurobridge, ubp = (load_recipe(name, THINGS, []).config for name in ("samga", "neurobridge", "ubp"))
    assert samga.target.router and samga.target.components == 5 * 1024 and samga.target.layer.count("+") == 4
    assert (samga.loss.mmd, samga.loss.mmd_end, samga.train.smooth) == (0.9, 0.5, 0.3)
    assert neurobridge.target.views == ["blur:15", "noise:25", "lowres:0.1", "mosaic:5"]
    assert (neurobridge.train.smooth, neurobridge.train.smooth_kernel) == (0.3, 5)
    assert ubp.target.uncertain_views == ["foveal:45", "foveal:51", "foveal:57"]
    assert (ubp.target.uncertain_alpha, ubp.target.uncertain_gamma, ubp.target.candidate_views) == (0.05, 0.3, True)
    for study in (None, V4):  # lent to another study, they stay
        assert load_recipe("ubp", study, []).config.target.uncertain_views == ubp.target.uncertain_views
        assert load_recipe("samga", study, []).config.target.router
        assert load_recipe("neurobridge", study, []).config.target.views == neurobridge.target.views


# --- mistakes ---


def test_mistakes_end_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["nicee"], "did you mean 'nice'"),
        (["nice", "train.epoch=3"], "train.epochs"),
        (["nice", "protocol=loso"], "within subjects only"),
        (["nice", "--config", str(tmp_path / "none.yaml")], "does not exist"),
        ([str(tmp_path / "none.yaml")], "does not exist"),
        (["nice", "sweep.seeds=0"], "sweep.seeds=0"),
        (["ubp", "encoder.name=ridge"], "acts in the contrastive part"),
        (["ubp", "target.views=[blur:15]"], "both say what is seen"),
        (["nice", "subjects=[1]"], "has no subject '1'"),
        (["nice", "study.name=simulatd"], "did you mean"),
    ):
        assert cli.main(["reproduce", *words]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error
    assert cli.parse(["reproduce", "ubp", "--adapt", "seed=1"]).overrides == ["seed=1"]


def test_broken_recipes_end_in_one_line(tmp_path: Path) -> None:
    whole = yaml.safe_load(find_recipe("nice").read_text())
    path = tmp_path / "mine.yaml"

    def broken(change: Callable[[dict[str, Any]], Any], words: str) -> None:
        tree = copy.deepcopy(whole)
        change(tree)
        path.write_text(json.dumps(tree))
        fails(words, lambda: load_recipe(str(path), None, []))

    broken(lambda tree: tree.pop("paper"), "its paper block is not whole")
    broken(lambda tree: tree["paper"].pop("rule"), "no 'rule'")
    broken(lambda tree: tree["paper"]["rule"].update(epoch="best"), "paper.rule.epoch 'best' is not one of last")
    broken(lambda tree: tree["paper"]["rule"].update(layer=3), "paper.rule.layer '3' is not one of fixed")
    broken(lambda tree: tree["paper"].update(published=[]), "no number with protocol intra")
    broken(lambda tree: tree["paper"].update(studies=[]), "paper.studies is empty")
    broken(lambda tree: tree["paper"]["published"][0].update(top1="high"), "could not convert")
    broken(lambda tree: tree["paper"]["published"][0].update(in_source="perhaps"), "not true or false")
    broken(lambda tree: tree["paper"]["published"][0].update(subjects=[1]), "not whole")
    broken(lambda tree: tree["train"].update(epoch=3), "unknown key 'train.epoch'")
    path.write_text("- a\n")
    fails("holds no keys", lambda: load_recipe(str(path), None, []))
    path.write_text("a: [\n")
    fails("is not valid YAML", lambda: load_recipe(str(path), None, []))


def test_an_encoder_in_closed_form_has_no_epochs(toy: type[_Toy], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="solved, not trained in epochs"):
        walk(tmp_path, "nice", "encoder.name=ridge")


# --- null calibration (benchmarks/null_calibration.py) ---


def calibration() -> ModuleType:
    """The benchmark, which lies outside the packages."""
    spec = importlib.util.spec_from_file_location("null_calibration", PROJECT / "benchmarks" / "null_calibration.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_p_values_of_shuffled_pairs_are_uniform() -> None:
    module, rng = calibration(), np.random.default_rng(0)
    latent = rng.normal(size=(160, 6))
    x = (latent @ rng.normal(size=(6, 15)) + rng.normal(size=(160, 15))).astype(np.float32)
    tokens = (latent @ rng.normal(size=(6, 24))).reshape(160, 3, 8).astype(np.float32)
    data = {"train_x": x[:100], "train_tokens": tokens[:100], "test_x": x[100:], "test_tokens": tokens[100:]}
    config = load_config(Config, None, [*module.RECIPE, "encoder.name=ridge", "encoder.alphas=[10]"])
    found = module.summary([module.draw(config, data, number) for number in range(60)], 60)
    assert found["p_pool"]["ks_p"] > 0.05 and found["p_randomised"]["ks_p"] > 0.05
    assert found["p_all"]["at_most_05"] <= 0.15 and 0.3 < found["p_true_pairs"]["mean"] < 0.7
    low, high = found["chance_interval"]
    assert low <= found["top1"] <= high and found["chance"] == 1 / 60
    real = fit(config, data["train_x"], data["train_tokens"], np.arange(100))
    similarity = retrieval.scores(real.predict(data["test_x"])["embeds"], real.embed_images(data["test_tokens"]))
    assert retrieval.retrieve(similarity, np.arange(60), n_boot=0)["p_permutation"] < 0.001, "the pairs hold a signal"


def test_the_summary_finds_p_values_that_are_not_uniform() -> None:
    module = calibration()
    p = np.random.default_rng(0).random(200)
    kinds = ("p_pool", "p_randomised", "p_all", "p_true_pairs")
    fair = module.summary([{"top1": 0.01, **dict.fromkeys(kinds, value)} for value in p], 100)
    small = module.summary([{"top1": 0.02, **dict.fromkeys(kinds, value**1.5)} for value in p], 100)
    assert fair["p_pool"]["ks_p"] > 0.05 > small["p_pool"]["ks_p"]
    assert fair["chance_interval"][1] < small["top1"]
    exact = stats.binom.interval(0.95, 20_000, 0.01)
    assert fair["chance_interval"] == pytest.approx([end / 20_000 for end in exact])
