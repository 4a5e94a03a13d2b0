"""Run folders: what is written comes back, what does not fit is refused, the right run is found."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from align.checkpoint import MODEL, find_run, load_run, save_run, tensors_hash, weights_hash
from align.config import Config, dump_yaml, load_config
from align.data.preparing.raw import Preparation, train_only
from align.data.signals import Recording, Stimuli
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
    assert read_json(tmp_path / "split.json") == {**MANIFEST, "weights": weights_hash(tmp_path)}
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


def test_other_weights_than_the_metadata_name_are_refused(tmp_path: Path) -> None:
    _saved(tmp_path)
    tensors, metadata = read_tensors(tmp_path / MODEL)
    tensors["signals.mean"] = tensors["signals.mean"] + 1
    save_tensors(tmp_path / MODEL, tensors, metadata)  # with a checksum that fits
    with pytest.raises(UserError, match="holds other weights than its metadata names"):
        load_run(tmp_path)


def _recording() -> Recording:
    rows = np.arange(40)
    stimuli = Stimuli(tuple(map(str, rows)), lambda i: DATA[i], rows, tuple(map(str, rows)), ("",) * 40)
    return train_only(DATA, rows, stimuli, "folder", "010")


def _save_new(folder: Path) -> None:
    """Another training over the one in ``folder``."""
    config, aligner = _fitted("seed=1")
    save_run(folder, aligner, config, MANIFEST, {"targets": TARGETS}, [_recording()])


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("stop_at", "how", "left"),
    [
        ("nothing", "", "new"),
        (".model", "no space", "old"),  # the temporary file of the weights
        (".model", "killed", "old"),
        ("split.json", "killed", "old"),
        ("config.yaml", "no space", "refused"),
        ("preparation_sub-010", "killed", "refused"),
        (MODEL, "killed", "refused"),
        (MODEL, "no space", "refused"),
    ],
)
def test_a_stopped_replacement_leaves_one_run_or_one_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: str, how: str, left: str
) -> None:
    """One file cannot be written, or no file gets its name from there on, as when the process is killed."""
    config, aligner = _fitted()
    save_run(tmp_path, aligner, config, MANIFEST, {"targets": TARGETS}, [_recording()])
    old, before, replace = _files(tmp_path), load_run(tmp_path).predict(DATA)["embeds"], os.replace
    stopped = []

    def stopping(source: Any, target: Any) -> None:
        if Path(target).name.startswith(stop_at):
            stopped.append(target)
        if stopped:
            raise OSError(errno.ENOSPC, "No space left", str(target)) if how == "no space" else KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", stopping)
        if left == "new":
            _save_new(tmp_path)
        else:
            with pytest.raises((OSError, KeyboardInterrupt)):
                _save_new(tmp_path)
    assert (_files(tmp_path) == old) == (left == "old")
    if left == "refused":
        with pytest.raises(UserError, match="is of another training than the weights beside it") as error:
            load_run(tmp_path)
        assert "--overwrite" in str(error.value) and "\n" not in str(error.value)
    else:
        after = load_run(tmp_path).predict(DATA)["embeds"]
        assert np.array_equal(after, before) == (left == "old")
    _save_new(tmp_path)
    assert not np.array_equal(load_run(tmp_path).predict(DATA)["embeds"], before)


@pytest.mark.parametrize("file", ["split.json", "config.yaml", "preparation_sub-010.safetensors"])
def test_files_of_another_training_are_refused(tmp_path: Path, file: str) -> None:
    for seed in (0, 1):
        config, aligner = _fitted(f"seed={seed}")
        save_run(tmp_path / str(seed), aligner, config, MANIFEST, {}, [_recording()])
        load_run(tmp_path / str(seed))
    shutil.copy(tmp_path / "1" / file, tmp_path / "0" / file)
    with pytest.raises(UserError, match=f"{file}' is of another training"):
        load_run(tmp_path / "0")


def test_runs_from_before_files_named_their_weights_are_read(tmp_path: Path) -> None:
    config, aligner = _fitted()
    save_run(tmp_path, aligner, config, MANIFEST, {}, [_recording()])
    Preparation.load(tmp_path / "preparation_sub-010.safetensors").save(tmp_path / "preparation_sub-010.safetensors")
    (tmp_path / "config.yaml").write_text(dump_yaml(config))
    (tmp_path / "split.json").write_text(json.dumps(MANIFEST))
    tensors, metadata = read_tensors(tmp_path / MODEL)
    meta = {key: value for key, value in json.loads(metadata["meta"]).items() if key != "weights_hash"}
    save_tensors(tmp_path / MODEL, tensors, {**metadata, "meta": json.dumps(meta)})
    load_run(tmp_path)
