"""Run folders: what is written comes back, what does not fit is refused, the right run is found."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from align.checkpoint import MODEL, find_run, load_run, save_run, tensors_hash, weights_hash
from align.config import Config, load_config
from align.errors import UserError
from align.files import read_json, read_tensors, save_tensors
from align.model.aligner import Aligner
from align.training.fit import fit

MANIFEST: dict[str, Any] = {
    "study": "folder",
    "subject": "010",
    "log": ["2 rows averaged"],
    "train": {"n_trials": 40, "ids": ["a", "b"], "hashes": ["1", "2"], "concepts": ["", ""], "groups": [0, 1]},
    "test": {"n_trials": 2, "ids": ["c"], "hashes": ["3"], "concepts": [""], "groups": [2]},
}
TARGETS = {"010": "0123"}
DATA = np.random.default_rng(0).normal(size=(40, 3, 5)).astype(np.float32)
TOKENS = np.random.default_rng(1).normal(size=(40, 2, 4)).astype(np.float32)


def _fitted(*overrides: str) -> tuple[Config, Aligner]:
    recipe = ["target.components=4", "encoder.width=8", "train.epochs=1", "subjects=[010]", "target.layer=6"]
    config = load_config(Config, None, [*recipe, "encoder.alphas=[1e2,3]", "target.chosen_on=folds", *overrides])
    return config, fit(config, DATA, TOKENS, np.arange(40))


def _saved(folder: Path, *overrides: str) -> tuple[Config, Aligner]:
    config, aligner = _fitted(*overrides)
    save_run(
        folder, aligner, config, MANIFEST, {"weights_hash": tensors_hash(aligner.state()), "targets": {"010": "0123"}}
    )
    return config, aligner


RECIPES = [
    ["encoder.name=mlp"],
    ["encoder.name=mlp", "encoder.components=4", "loss.regression=0"],
    ["encoder.name=ridge"],
    ["encoder.name=tsconv", "encoder.kernel=2", "encoder.pool=2", "encoder.stride=1", "encoder.filters=3"],
]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_a_run_comes_back(tmp_path: Path, recipe: list[str]) -> None:
    config, aligner = _saved(tmp_path, *recipe)
    run = load_run(tmp_path)
    assert run.config == config and run.config.subjects == ["010"] and run.path == tmp_path
    assert (run.study, run.subject, run.meta["chosen_on"], run.meta["targets"]) == (
        "folder",
        "010",
        "folds",
        {"010": "0123"},
    )
    for name, value in aligner.predict(DATA).items():
        np.testing.assert_array_equal(run.aligner.predict(DATA)[name], value)
    np.testing.assert_array_equal(run.aligner.embed_images(TOKENS), aligner.embed_images(TOKENS))
    fresh = Aligner(config, run.aligner.signals, run.aligner.targets).eval()
    assert not np.allclose(fresh.predict(DATA)["embeds"], aligner.predict(DATA)["embeds"])
    assert not run.aligner.training


def test_the_folder_is_the_record(tmp_path: Path) -> None:
    config, _ = _saved(tmp_path)
    assert load_config(Config, tmp_path / "config.yaml") == config
    assert read_json(tmp_path / "split.json") == MANIFEST
    card = (tmp_path / "README.md").read_text()
    for fact in ("folder", "010", "layer 6", "folds", "mlp", "40 trials of 2 pictures", weights_hash(tmp_path)):
        assert fact in card, fact
    metadata = read_tensors(tmp_path / MODEL)[1]
    assert json.loads(metadata["config"])["target"]["layer"] == "6" and metadata["subject"] == "010"
    assert not list(tmp_path.glob(".*")), "no temporary file is left"
    moved = tmp_path / "elsewhere.safetensors"
    shutil.copy(tmp_path / MODEL, moved)
    assert load_run(moved).config == config, "the weights carry their configuration"


def test_weights_hash_sees_weights_and_nothing_else(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(1)}
    save_tensors(tmp_path / "x.safetensors", tensors, {"note": "1"})
    save_tensors(tmp_path / "y.safetensors", dict(reversed(tensors.items())), {"note": "2"})
    assert weights_hash(tmp_path / "x.safetensors") == weights_hash(tmp_path / "y.safetensors") == tensors_hash(tensors)
    reference = tensors_hash(tensors)
    others = [
        {**tensors, "a": tensors["a"].reshape(3, 2)},
        {**tensors, "a": tensors["a"].nextafter(torch.tensor(9.0))},
        {**tensors, "b": torch.tensor(1, dtype=torch.int32)},
        {"c": tensors["a"], "b": tensors["b"]},
    ]
    assert len({reference, *map(tensors_hash, others)}) == 5


def _rewrite(path: Path, change: str) -> None:
    tensors, metadata = read_tensors(path)
    if change == "prefix":
        tensors = {f"module.{name}": value for name, value in tensors.items()}
    elif change == "missing":
        tensors.pop("network.token_head.bias")
    elif change == "unexpected":
        tensors["network.more"] = torch.zeros(1)
    elif change == "shape":
        tensors["signals.mean"] = tensors["signals.mean"][:2]
    elif change == "foreign":
        metadata = {}
    elif change == "cut":
        path.write_bytes(path.read_bytes()[:-100])
        return
    save_tensors(path, tensors, metadata)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("prefix", "'module.* comes from a wrapped model"),
        ("missing", "1 missing tensors.*token_head.bias"),
        ("unexpected", "1 unexpected tensors.*network.more"),
        ("shape", r"'signals.mean' has shape \(2, 5\), not \(3, 5\)"),
        ("foreign", "not the model of an alignment run"),
        ("cut", "not a whole safetensors file"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, change: str, message: str) -> None:
    _saved(tmp_path)
    _rewrite(tmp_path / MODEL, change)
    with pytest.raises(UserError, match=message):
        load_run(tmp_path)


def _runs(home: Path, *names: tuple[str, str, str]) -> None:
    for age, (name, study, subject) in enumerate(names):
        file = home / "runs" / "align" / name / MODEL
        save_tensors(file, {"a": torch.zeros(1)}, {"study": study, "subject": subject})
        os.utime(file, ns=(age * 10**9, age * 10**9))


def test_the_newest_run_of_the_subject_is_found(tmp_path: Path) -> None:
    _runs(tmp_path, ("z", "folder", "01"), ("b", "folder", "01"), ("c", "folder", "1"), ("d", "simulated", "02"))
    (tmp_path / "runs" / "other.safetensors").write_bytes(b"no tensors")
    (tmp_path / "runs" / MODEL).write_bytes(b"no tensors")
    assert find_run("01", tmp_path) == tmp_path / "runs" / "align" / "b"
    assert find_run("02", tmp_path).name == "d"


def test_no_run_or_runs_of_two_studies(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"recon train --subject 01 .*--run FOLDER"):
        find_run("01", tmp_path)
    _runs(tmp_path, ("a", "folder", "01"), ("b", "simulated", "01"))
    with pytest.raises(UserError, match=r"several studies.*--run.*/a \(folder\).*/b \(simulated\)"):
        find_run("01", tmp_path)
    with pytest.raises(UserError, match=r"holds no model\.safetensors; pass the folder of a run"):
        load_run(tmp_path)
    with pytest.raises(UserError, match=r"holds no model\.safetensors; pass one of its runs: .*/a, .*/b$"):
        load_run(tmp_path / "runs" / "align")
