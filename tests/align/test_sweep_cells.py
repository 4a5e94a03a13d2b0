"""Cells of a sweep: numbers for commands, measures beside retrieval, weights of backbones, choices without test."""

from __future__ import annotations

import csv
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from align.config import Config, load_config
from align.errors import UserError
from align.files import read_json
from align.sweep import grid
from align.sweep import run as sweep
from align.sweep.measures import concept_level, held_out_loss
from align.training import training_set
from align.training.fit import fit
from recon.cli import parse
from tests.align.fixture_sweep import Toy, toy, toy_config

__all__ = ["toy"]


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The recipe of every real fit."""
    calls: list[Config] = []

    def counting(config: Config, *args: Any, **options: Any) -> Any:
        calls.append(config)
        return fit(config, *args, **options)

    monkeypatch.setattr(training_set, "fit", counting)
    return calls


def test_a_sweep_finds_what_single_cells_have_computed(toy: type[Toy], tmp_path: Path, fits: list[Config]) -> None:
    listed = sweep.list_cells(toy_config())
    assert len(listed) == len(set(listed)) == 3 * 2 * 3  # layers x subjects x folds
    whole = sweep.run(toy_config(), out=tmp_path / "whole", progress=False, test=False).summary
    assert len(fits) == len(listed)
    for number in (4, 0, 17):
        alone = sweep.compute_cells(toy_config(), [number, number], tmp_path / "cells", progress=False)
        assert list(alone["validation_top1"]) == [str(listed[number])]
        assert (fits[-1].target.layer, fits[-1].seed) == (listed[number].variant.layer, listed[number].seed)
    assert len(fits) == len(listed) + 3
    later = sweep.run(toy_config(), out=tmp_path / "cells", progress=False, test=False).summary
    assert len(fits) == 2 * len(listed)
    assert later["curves"] == whole["curves"]
    with pytest.raises(UserError, match="no cell 18; this sweep has cells 0 to 17"):
        sweep.compute_cells(toy_config(), [18], tmp_path / "cells", progress=False)


def test_single_cells_read_their_subject_only(toy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = toy.recording
    monkeypatch.setattr(toy, "recording", lambda self, name: (read.append(name), real(self, name))[1])
    number = next(i for i, cell in enumerate(sweep.list_cells(toy_config())) if cell.subject == "02")
    assert not read
    sweep.compute_cells(toy_config(), [number], tmp_path, progress=False)
    assert set(read) == {"02"}


def test_listed_commands_compute_what_they_say(
    toy: type[Toy], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from recon.cli import main

    recipe = ["study.name=folder", "target.pooling=grid:2", "encoder.name=ridge", f"run_dir={tmp_path / 'a b'}"]
    assert main(["sweep", *recipe, "--list", "--layers", "1", "2", "--encoders", "ridge,mlp"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * 2 * 3 * (1 + 3)  # layers x subjects x folds x (ridge: one seed, mlp: three)
    words = shlex.split(lines[1], comments=True)
    assert words[0] == "recon" and "--list" not in words
    args = parse(words[1:])
    assert args.cell == [1] and args.layers == ["1", "2"] and args.overrides == recipe
    assert main(words[1:]) == 0
    (stored,) = (tmp_path / "a b" / "cells").glob("*.json")
    cell = read_json(stored)
    said = f"{cell['backbone']} {cell['encoder']} {cell['layer']}, subject {cell['subject']}, seed {cell['seed']}, fold"
    assert f"# {said} {cell['fold']}" in lines[1]


def test_the_choice_can_be_made_long_before_the_test(toy: type[Toy], tmp_path: Path, fits: list[Config]) -> None:
    def guard() -> None:
        raise AssertionError("test rows were read")

    toy.guard = staticmethod(guard)
    first = sweep.run(toy_config(), out=tmp_path, progress=False, test=False)
    assert first.summary["final"] is None and not first.summary["test_read"]
    assert not (tmp_path / "test").exists() and not read_json(tmp_path / "choice.json")["test_read"]
    assert "test rows were not read" in first.table()
    assert load_config(Config, tmp_path / "best.yaml").target.layer == "1"
    sweep.run(toy_config(), layers=["0"], out=tmp_path, progress=False, test=False)

    toy.guard = staticmethod(lambda: None)
    n = len(fits)
    later = sweep.run(toy_config(), out=tmp_path, progress=False).summary
    assert len(fits) == n + 2 * 2, "the chosen and the last layer, two subjects"
    assert later["earlier_choices"] == 0, "choices whose test rows nobody has seen do not count"
    assert later["final"]["top1"] > later["last_layer"]["top1"]
    unread = sweep.run(toy_config(), out=tmp_path, progress=False, test=False).summary
    assert unread["earlier_choices"] == 0 and read_json(tmp_path / "choice.json")["test_read"]
    other = sweep.run(toy_config(), layers=["0"], out=tmp_path, progress=False, test=False).summary
    assert other["earlier_choices"] == 1, "those of the first choice were seen"


def test_seeds_can_share_the_folds(toy: type[Toy], tmp_path: Path, fits: list[Config]) -> None:
    config = toy_config(rotate=True, seeds=3)
    listed = [(cell.seed, cell.fold) for cell in sweep.list_cells(replace(config, seed=5))]
    assert set(listed) == {(5, 0), (5, 1), (5, 2)}, "ridge knows no seeds: one stands for all"
    config = replace(config, encoder=replace(config.encoder, name="mlp"))
    listed = [(cell.seed, cell.fold) for cell in sweep.list_cells(replace(config, seed=5))]
    assert set(listed) == {(5, 0), (6, 1), (7, 2)} and len(listed) == 3 * 2 * 3
    found = sweep.run(config, layers=["1"], out=tmp_path, progress=False, test=False).summary
    assert (found["curves"][0]["points"][0]["n"], len(fits)) == (2 * 30, 2 * 3)
    assert "one fold per seed" in load_config(Config, tmp_path / "best.yaml").target.chosen_on


def test_backbones_bring_their_weights(toy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = ["backbone.name=mini", "backbone.weights=own.st", "backbone.image_size=32"]
    config = load_config(Config, None, pairs, check=False)  # files that are not there
    config = sweep.settled(config, backbones=["mini", "torchvision/a@folder/a.st", "timm/b"])
    found = grid.backbones_of(config)
    assert list(found) == ["mini", "torchvision/a", "timm/b"]
    assert (found["mini"].weights, found["mini"].image_size) == ("own.st", 32)
    assert (found["torchvision/a"].weights, found["torchvision/a"].image_size) == ("folder/a.st", None)
    assert found["timm/b"].weights is None
    with pytest.raises(UserError, match="'timm/b' stands twice"):
        grid.backbones_of(sweep.settled(config, backbones=["timm/b", "timm/b@c"]))
    swept = sweep.settled(toy_config(), backbones=["mini", "timm/b@cc"], layers=["0", "1"])
    swept = replace(swept, encoder=replace(swept.encoder, alphas=[10.0]), sweep=replace(swept.sweep, folds=2))
    result = sweep.run(swept, out=tmp_path, progress=False, test=False).summary
    assert {name: entry["parameters"] for name, entry in result["backbones"].items()} == {"mini": 12, "timm/b": 1002}
    assert [point["depth"] for point in result["curves"][1]["points"]] == [0.0, 0.5]
    assert result["scaling"]["ridge"]["pearson"] == {"depth": None, "top1": None, "last_top1": None}
    assert result["scaling"]["ridge"]["points"][1]["parameters"] == 1002
    best = load_config(Config, tmp_path / "best.yaml").backbone
    assert best.weights == {"mini": None, "timm/b": "cc"}[best.name]


def test_keys_stand_for_content_not_for_places(toy: type[Toy], tmp_path: Path, fits: list[Config]) -> None:
    config = replace(toy_config(), subjects=["01"])
    sweep.run(config, layers=["1"], out=tmp_path, progress=False, test=False)
    moved = replace(config, backbone=replace(config.backbone, weights="w"), study=replace(config.study, root="r"))
    n = len(fits)
    asked = {"layers": ["1"], "out": tmp_path, "progress": False, "overwrite": True}
    sweep.run(replace(moved, cache_dir="c"), **asked, test=False)
    assert len(fits) == n, "the toy's targets and signals are the same wherever they lie"
    sweep.run(replace(config, target=replace(config.target, root=True)), **asked)
    assert len(fits) > n


def test_an_encoder_that_cannot_read_the_trials_is_refused_before_a_target_is_extracted(
    toy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "_targets", lambda *given: pytest.fail("too late"))
    with pytest.raises(UserError, match=r"'tsconv' needs trials of shape"):
        sweep.run(toy_config(), encoders=["ridge", "tsconv"], out=tmp_path, progress=False)


def test_other_protocols_are_refused(toy: type[Toy], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"protocol='pooled'.*use intra"):
        sweep.run(replace(toy_config(), protocol="pooled"), out=tmp_path, progress=False)
    with pytest.raises(UserError, match="0 processes"):
        sweep.run(toy_config(), out=tmp_path, progress=False, processes=0)


def test_concepts_are_told_apart_by_the_mean_over_their_pictures(toy: type[Toy]) -> None:
    rng = np.random.default_rng(3)
    stimuli = toy(toy_config()).recording("01").stimuli
    shown = rng.permutation(30)[:26]  # concepts of one to three pictures
    similarity = rng.normal(size=(26, 26)) + 1.2 * (shown[:, None] // 3 == shown[None] // 3)
    hits = 0
    for row in range(26):
        means = {
            group: np.mean([similarity[row, j] for j in range(26) if shown[j] // 3 == group]) for group in range(10)
        }
        hits += max(means, key=lambda group: means[group]) == shown[row] // 3
    found = concept_level(similarity, stimuli, shown)
    assert np.mean(found.pop("hits")) == pytest.approx(hits / 26)
    assert found == {"kind": "scene", "top1": pytest.approx(hits / 26), "chance_top1": 0.1, "candidates": 10}
    assert 5 < hits < 26
    named = replace(stimuli, concepts=tuple(f"c{i % 2}" for i in range(len(stimuli))))
    found = concept_level(similarity, named, shown)
    assert (found["kind"], found["candidates"], found["chance_top1"]) == ("concept", 2, 0.5)
    alone = concept_level(similarity, replace(stimuli, groups=np.arange(len(stimuli))), shown)
    assert alone["top1"] == pytest.approx(np.mean(similarity.argmax(1) == np.arange(26)))


def test_held_out_loss_is_the_loss_without_augmentation() -> None:
    rng = np.random.default_rng(0)
    x, tokens = rng.normal(size=(40, 6)).astype(np.float32), rng.normal(size=(40, 4, 5)).astype(np.float32)
    pairs = ["encoder.name=mlp", "encoder.width=16", "train.epochs=2", "train.batch_size=10", "target.components=8"]
    pairs += ["train.noise=5", "train.mixup=1", "loss.regression=0.5", "target.spread=0", "encoder.dropout=0.9"]
    aligner = fit(load_config(Config, None, pairs), x, tokens, np.arange(40))
    new_x, new_tokens = x[:20][::-1].copy(), rng.normal(size=(20, 4, 5)).astype(np.float32)
    expected = []
    for rows in (slice(0, 10), slice(10, 20)):
        brain = torch.from_numpy(aligner.predict(new_x[rows])["embeds"])
        image = F.normalize(torch.from_numpy(aligner.embed_images(new_tokens[rows])), dim=1)
        logits = float(aligner.network.logit_scale.detach().exp()) * brain @ image.T
        own = torch.arange(10)
        contrastive = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        with torch.no_grad():
            error = aligner.network.token_head(brain) - aligner.targets.encode(torch.from_numpy(new_tokens[rows]))
        expected.append(float(contrastive + 0.5 * error.square().mean()))
    found = held_out_loss(aligner, new_x, new_tokens)
    assert found == pytest.approx(np.mean(expected), rel=1e-5)
    assert held_out_loss(aligner, new_x, new_tokens) == found


def test_losses_and_levels_are_in_the_table(toy: type[Toy], tmp_path: Path) -> None:
    config = replace(toy_config(seeds=1), subjects=["01"])
    found = sweep.run(config, layers=["1"], encoders=["ridge", "mlp"], out=tmp_path, progress=False, test=False).summary
    rows = list(csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines()))
    mlp, ridge = ([row for row in rows if row["encoder"] == name] for name in ("mlp", "ridge"))
    assert all(float(row["train_loss"]) > 0 and float(row["validation_loss"]) > 0 for row in mlp)
    assert all(row["train_loss"] == row["validation_loss"] == "" for row in ridge)
    by_encoder = {curve["encoder"]: curve["points"][0] for curve in found["curves"]}
    assert by_encoder["ridge"]["loss"] is None
    assert by_encoder["mlp"]["loss"]["train"] == pytest.approx(np.mean([float(row["train_loss"]) for row in mlp]))
    scenes = [row for row in ridge if row["level"] == "scene"]
    assert (
        len(scenes) == 3 and {row["candidates"] for row in scenes} == {"10"} and {row["top5"] for row in scenes} == {""}
    )
    assert by_encoder["ridge"]["concept"]["top1"] == pytest.approx(np.mean([float(row["top1"]) for row in scenes]))
    assert {row["depth"] for row in rows} == {"0.5"}


def test_cells_under_each_other_s_names_are_computed_again(
    toy: type[Toy], tmp_path: Path, fits: list[Config], caplog: pytest.LogCaptureFixture
) -> None:
    whole = sweep.run(toy_config(), out=tmp_path, progress=False, test=False).summary
    count = len(fits)
    one, other = sorted((tmp_path / "cells").glob("*.json"))[:2]
    kept = one.read_bytes(), other.read_bytes()
    one.write_bytes(kept[1])
    other.write_bytes(kept[0])
    again = sweep.run(toy_config(), out=tmp_path, progress=False, test=False, overwrite=True).summary
    assert len(fits) == count + 2 and again["curves"] == whole["curves"]
    assert caplog.text.count("is of another cell; this cell is computed again") == 2
    assert [read_json(path)["key"][:32] for path in (one, other)] == [one.stem, other.stem]
