"""Where results lie: default folders that name what was asked for, and no replacement of another configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from align.checkpoint import MODEL, stored_facts, tensors_hash, weights_id
from align.config import Config, load_config, to_dict
from align.data.places import MADE_WITH, Claim, claim, differences, made_with
from align.errors import UserError
from align.files import read_json, save_tensors
from align.sweep import run as sweep
from align.sweep.run import folder_of
from align.train import require_own, run_folder
from align.training.protocols import Job, plan_jobs
from align.training.run_folder import refuse_mixed
from recon.commands.timecourse import _default_folder
from tests.align.fixture_sweep import Toy, toy, toy_config
from tests.one_line import fails

__all__ = ["toy"]

ASKED = {
    "another person": ["subjects=[02]"],
    "a region": ["study.roi=[V1]"],
    "two regions": ["study.roi=[V1,V2]"],
    "channels": ["study.channels=^O"],
    "a window": ["study.window=0.1:0.3"],
    "another study": ["study.root=people/other"],
    "a part of the name": ["study.roi=[V1_V2]"],
}


def _config(*pairs: str) -> Config:
    return load_config(Config, None, ["study.name=folder", "study.root=people/one", *pairs], check=False)


def _folders(*pairs: str) -> tuple[Path, Path, Path]:
    config = _config(*pairs)
    job = plan_jobs("intra", config.subjects or ["01"])[0]
    return run_folder(config, job, alone=False), folder_of(config), _default_folder(config, False)


def test_default_folders_say_whose_and_which_part() -> None:
    every = {name: _folders(*pairs) for name, pairs in {"plain": [], **ASKED}.items()}
    for folders in zip(*every.values(), strict=True):
        assert len(set(map(str, folders))) == len(every)
    assert [folder.name for folder in every["plain"]] == [
        "folder_one_sub-01_mlp_1_seed-0",
        "folder_one_mini",
        "folder_one",
    ]
    assert [folder.name for folder in _folders("subjects=[02]")][1] == "folder_one_sub-02_mini"


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        (["train.epochs=7"], "train.epochs=50 instead of 7"),
        (["study.root=people/two"], "study.root="),
        (["study.roi=[V1]"], "study.roi=[] instead of [V1]"),
        (["preprocess.scale=zscore"], "preprocess.scale=none instead of zscore"),
        (["encoder.name=ridge", "seed=3"], "encoder.name=mlp instead of ridge, seed=0 instead of 3"),
    ],
)
def test_differences_are_named(pairs: list[str], told: str) -> None:
    assert told in ", ".join(differences(to_dict(_config()), to_dict(_config(*pairs))))


def test_places_and_pace_are_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = to_dict(_config())
    for pair in (
        "cache_dir=elsewhere",
        "run_dir=x",
        "train.checkpoint_every=3",
        "target.chosen_on=by hand",
        "sweep.seeds=9",
    ):
        assert not differences(before, to_dict(_config(pair)))
    assert not differences(before, to_dict(_config(f"study.root={Path.cwd()}/people/../people/one")))
    del before["preprocess"]  # an older version knew no such section
    assert not differences(before, to_dict(_config("preprocess.scale=zscore")))


def _weights(folder: Path, config: Config, **meta: Any) -> None:
    """A file of weights as far as its facts go."""
    import json

    tensors = {"w": torch.zeros(1)}
    facts = {"study": "folder", "subject": "01", "in_shape": [3], "signal_components": None, "token_shape": [1, 2]}
    facts |= {"components": 2, "weights_hash": tensors_hash(tensors), **meta}
    folder.mkdir(exist_ok=True)
    texts = {"format": "1", "meta": json.dumps(facts), "config": json.dumps(to_dict(config)), "study": "folder"}
    save_tensors(folder / MODEL, tensors, texts)


def test_weights_of_another_configuration_stay(tmp_path: Path) -> None:
    job = Job(("01",), ("01",))
    require_own(tmp_path / "none", _config(), job)
    _weights(tmp_path / "run", _config("train.epochs=9"))
    before = (tmp_path / "run" / MODEL).read_bytes()
    require_own(tmp_path / "run", _config("train.epochs=9"), job)
    fails(
        r"holds weights of another configuration \(train.epochs=9 instead of 50\).*run_dir=FOLDER.*--overwrite",
        lambda: require_own(tmp_path / "run", _config(), job),
    )
    require_own(tmp_path / "run", _config(), job, overwrite=True)
    with pytest.raises(UserError, match=r"people\.subjects"):
        require_own(tmp_path / "run", _config("train.epochs=9"), Job(("02",), ("02",)))
    assert (tmp_path / "run" / MODEL).read_bytes() == before
    assert weights_id(tmp_path / "run", "01") == f"folder_sub-01@{tensors_hash({'w': torch.zeros(1)})[:12]}"
    assert weights_id(tmp_path / "run", "02") is None and weights_id(tmp_path, "01") is None
    (tmp_path / "run" / MODEL).write_bytes(before[:50])
    assert stored_facts(tmp_path / "run") is None  # a damaged file may be trained anew


def test_weights_and_runs_of_people_do_not_mix(tmp_path: Path) -> None:
    study, one = tmp_path / "study", tmp_path / "one"
    study.mkdir()
    for several in (False, True):
        refuse_mixed(study, several)
    for name in ("sub-annika", "sub-bob"):
        _weights(study / name, _config())
    _weights(one, _config())
    (one / "sub-nothing").mkdir()
    refuse_mixed(study, several=True)
    refuse_mixed(study / "sub-annika", several=False)
    refuse_mixed(one, several=False)
    fails(r"runs of its own for sub-annika, sub-bob.*run_dir=\S*sub-annika", lambda: refuse_mixed(study, several=False))
    fails("holds weights itself.*also not with --overwrite", lambda: refuse_mixed(one, several=True))


def test_a_claim_holds_where_there_are_results(tmp_path: Path) -> None:
    assert not claim(tmp_path, "result.json", _config(), "Elsewhere", {"width": 0.1})
    assert not claim(tmp_path, "result.json", _config("seed=4"), "Elsewhere", {"width": 0.1})  # no result came of it
    (tmp_path / "result.json").write_text("{}")
    assert not claim(tmp_path, "result.json", _config("seed=4"), "Elsewhere", {"width": 0.1})
    for pairs, width in ((["seed=5"], 0.1), (["seed=4"], 0.2), (["seed=4", "study.root=q"], 0.1)):
        with pytest.raises(UserError, match="of another configuration"):
            claim(tmp_path, "result.json", _config(*pairs), "Elsewhere", {"width": width})
    assert read_json(tmp_path / MADE_WITH)["seed"] == 4
    assert claim(tmp_path, "result.json", _config("seed=5"), "Elsewhere", {"width": 0.1}, overwrite=True)


@pytest.mark.parametrize(
    "told",
    [None, "{}", '{"asked": 3}', '{"asked": 3, "seed": 0}', '{"study": 1}', "[1]", "not", '{"seed": 0, "beside": 1}'],
)
def test_results_of_which_nothing_says_what_they_were_made_with_stay(tmp_path: Path, told: str | None) -> None:
    (tmp_path / "result.json").write_text("{}")
    if told is not None:
        (tmp_path / MADE_WITH).write_text(told)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    one = Claim(tmp_path, "result.json", _config(), "Elsewhere", {"width": 0.1}, former=("*.csv",))
    for work in (one.check, one.take, lambda: claim(tmp_path, "result.json", _config(), "Elsewhere", {"width": 0.1})):
        fails("no made_with.json that says what it was made with.*Elsewhere, or replace it with --overwr", work)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "table.csv").write_text("")
    replace(one, overwrite=True).take()  # what nobody knows anything of goes like that of another configuration
    assert [path.name for path in tmp_path.iterdir()] == [MADE_WITH]


def test_a_folder_in_the_place_of_results_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "result.json").mkdir()
    one = Claim(tmp_path, "result.json", _config(), "Choose another folder (--out FOLDER)", {}, overwrite=True)
    fails(r"result.json' is a folder; move it away\. Choose another folder", one.check)


def test_results_of_several_commands_in_one_folder_are_told_apart(tmp_path: Path) -> None:
    for name, seed in (("one.json", "seed=1"), ("two.json", "seed=2")):
        assert not claim(tmp_path, name, _config(seed), "Elsewhere", {})
        (tmp_path / name).write_text("{}")
    for name, own, other in (("one.json", "seed=1", "seed=2"), ("two.json", "seed=2", "seed=1")):
        assert not claim(tmp_path, name, _config(own), "Elsewhere", {})
        fails(f"{name} of another", lambda name=name, other=other: claim(tmp_path, name, _config(other), "Else", {}))
    assert {name: told["seed"] for name, told in made_with(tmp_path).items()} == {"one.json": 1, "two.json": 2}
    assert not list(tmp_path.glob(".*"))


def test_the_file_of_earlier_versions_is_read(tmp_path: Path) -> None:
    for name in ("result.json", MADE_WITH):
        (tmp_path / name).write_text('{"seed": 1}')
    fails("seed=1 instead of 2", lambda: claim(tmp_path, "result.json", _config("seed=2"), "Elsewhere", {}))
    assert not claim(tmp_path, "result.json", _config("seed=1"), "Elsewhere", {})
    assert made_with(tmp_path).keys() == {"result.json"}


def test_a_folder_is_taken_when_the_results_are_there(tmp_path: Path) -> None:
    place, former = (tmp_path / "out", "result.json"), ("table_*.csv", "pictures_*/*.png")
    first = Claim(*place, _config(), "Elsewhere", {}, former=former)
    (tmp_path / "out" / "pictures_a").mkdir(parents=True)
    first.check()
    assert not (tmp_path / "out" / MADE_WITH).exists()
    first.take()
    for name in ("result.json", "table_a.csv", "pictures_a/x.png", "own.csv"):
        (tmp_path / "out" / name).write_text("{}")
    first.take()  # the same once more: nothing goes
    other = Claim(*place, _config("seed=4"), "Elsewhere", {}, overwrite=True, former=former)
    with pytest.raises(UserError, match="of another configuration"):
        replace(other, overwrite=False).check()
    other.check()
    assert read_json(tmp_path / "out" / MADE_WITH)["seed"] == 0 and len(list(tmp_path.rglob("*.*"))) == 5
    other.take()
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == [MADE_WITH, "own.csv"]
    assert read_json(tmp_path / "out" / MADE_WITH)["seed"] == 4
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.png").write_text("")
    (tmp_path / "out" / "pictures_b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out" / "result.json").write_text("{}")
    fails("a link that leads out", lambda: replace(first, overwrite=True).take())
    assert (tmp_path / "elsewhere" / "x.png").exists()


def test_a_sweep_is_not_replaced_unannounced(toy: type[Toy], tmp_path: Path) -> None:
    one = toy_config()
    sweep.run(one, out=tmp_path, progress=False, test=False)
    (tmp_path / "scaling.png").write_bytes(b"old")
    kept = {name: (tmp_path / name).read_bytes() for name in ("best.yaml", "choice.json")}
    other = replace(one, target=replace(one.target, components=9))
    fails("choice.json of another configuration.*--out FOLDER", lambda: sweep.run(other, out=tmp_path, progress=False))
    assert kept == {name: (tmp_path / name).read_bytes() for name in kept}
    sweep.run(one, layers=["0"], out=tmp_path, progress=False, test=False)  # a later choice
    sweep.run(other, out=tmp_path, progress=False, test=False, overwrite=True)
    assert not (tmp_path / "scaling.png").exists() and (tmp_path / "best.yaml").read_bytes() != kept["best.yaml"]
    assert np.isin("components: 9", (tmp_path / "best.yaml").read_text().replace("  ", "").splitlines())
