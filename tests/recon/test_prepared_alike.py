"""A run prepares raw signals as its training did: what Python predicts is what the commands score, for every step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.checkpoint import load_run, preparation_path
from align.data.studies import open_study
from align.errors import UserError
from align.files import read_tensors, save_tensors
from align.train import train
from recon import Decoder, Study
from recon.decoding.predict import load_predictions, open_recording
from tests.one_line import fails
from tests.recon.api_study import CHANNELS, SFREQ, decoder, pictures, signals, stimulus

STEPS: dict[str, dict[str, Any]] = {
    "nothing": {"scale": "none"},
    "zscore": {"scale": "zscore"},
    "robust": {"scale": "robust"},
    "clamp": {"scale": "zscore", "preprocess__clamp": 1.2},
    "baseline": {"scale": "none", "preprocess__baseline": [-0.04, 0.0]},
    "window": {"scale": "none", "preprocess__tmin": 0.0, "preprocess__tmax": 0.1},
    "rate": {"scale": "none", "preprocess__sfreq": 50.0},
    "channels": {"scale": "none", "preprocess__channels": ["O.*", "P3"]},
    "whitened": {"scale": "none", "preprocess__mvnn": True},
    "all": {
        "scale": "robust",
        "preprocess__mvnn": True,
        "preprocess__baseline": [-0.04, 0.0],
        "preprocess__sfreq": 50.0,
        "preprocess__clamp": 2.0,
    },
    "study.channels": {"scale": "zscore", "study.channels": "^(O|P)"},
    "study.window": {"scale": "zscore", "study.window": "0:0.1"},
    "held out": {"scale": "zscore", "study.held_out": "6"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alike")


@pytest.fixture(scope="module")
def made(place: Path) -> Study:
    x = signals() * np.linspace(1, 9, len(CHANNELS), dtype=np.float32)[:, None] + 3  # scaling matters
    told: dict[str, Any] = {"sfreq": SFREQ, "ch_names": CHANNELS, "tmin": -0.04}
    return Study.from_arrays(x, pictures(), stimulus(), folder=place / "study", test=list(range(24, 36)), **told)


@pytest.fixture(scope="module")
def trained(place: Path, made: Study) -> Path:
    decoder(place, run_dir=place / "run", encoder="ridge", loss__contrastive=0.0).fit(made)
    return place / "run"


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_predictions_of_raw_trials_are_those_of_the_commands(
    steps: dict[str, Any], tmp_path: Path, place: Path, made: Study
) -> None:
    settings = {name: value for name, value in steps.items() if "." not in name}
    one = decoder(place, run_dir=tmp_path / "run", encoder="ridge", loss__contrastive=0.0, **settings)
    part = {name: value for name, value in steps.items() if "." in name}
    train(one._configured({**made.pairs, **part}), progress=False)
    run = load_run(tmp_path / "run")
    stored = load_predictions(run)
    study = open_study(run.config)
    raw = open_recording(run)
    test = study._as_stored("01")[0].test  # what somebody holds: trials as they were recorded
    order = [list(raw.stimuli.ids).index(name) for name in stored.ids]
    repeated = {i: np.flatnonzero(test.stimulus == i) for i in order}
    run.config.study.root = str(tmp_path / "elsewhere")  # the run's own folder says it
    told = np.stack([run.predict(test.x[repeated[i]])["embeds"].mean(0) for i in order])
    np.testing.assert_allclose(told, stored.embeds, rtol=0, atol=2e-4 * np.abs(stored.embeds).max())
    again = Decoder.load(tmp_path / "run").predict(test.x)
    np.testing.assert_array_equal(again[1], run.predict(test.x)["embeds"])
    if steps != {"scale": "none"}:
        assert run.preparation.steps == study._as_stored("01")[1]


def test_a_run_without_the_file_asks_its_study(tmp_path: Path, trained: Path, made: Study) -> None:
    run, older = load_run(trained), tmp_path / "older"
    shutil.copytree(trained, older)
    preparation_path(older, "01").unlink()
    x = made.recording().test.x[:4]
    np.testing.assert_array_equal(load_run(older).predict(x)["embeds"], run.predict(x)["embeds"])
    gone = load_run(older)
    gone.config.study.root = str(tmp_path / "gone")
    fails(r"no preparation_sub-01.safetensors.*give study.root=FOLDER", lambda: gone.predict(x))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"roi": {"back": [0, 1, 4]}}, r"other channels or voxels in its regions \(roi\) than when run"),
        ({"sfreq": 200.0}, r"another sampling rate \(sfreq\)"),
        ({"tmin": -0.1}, r"another first sample \(tmin\)"),
        ({"ch_names": list(CHANNELS[::-1])}, r"other channel names \(ch_names\)"),
        ({}, ""),
    ],
    ids=["roi", "sfreq", "tmin", "ch_names", "nothing"],
)
def test_facts_that_changed_since_training_are_noticed(
    change: dict[str, Any], told: str, tmp_path: Path, place: Path, made: Study
) -> None:
    shutil.copytree(place / "study", tmp_path / "study")
    info = {**json.loads((tmp_path / "study" / "info.json").read_text()), "roi": {"back": [0, 1, 2]}}
    (tmp_path / "study" / "info.json").write_text(json.dumps(info))
    one = decoder(place, run_dir=tmp_path / "run", encoder="ridge", loss__contrastive=0.0)
    pairs = {"study.name": "folder", "study.root": str(tmp_path / "study"), "study.roi": "back"}
    train(one._configured(pairs), progress=False)
    run = load_run(tmp_path / "run")
    (tmp_path / "study" / "info.json").write_text(json.dumps({**info, **change}))
    if told:
        fails(f"folder subject 01 has .*{told}", lambda: open_recording(run))
        fails(told, lambda: load_predictions(run))
    else:
        assert len(open_recording(run).test) == 24 and len(load_predictions(run).ids) == 12


def test_the_steps_are_fitted_once(tmp_path: Path, place: Path, made: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    one = decoder(place, scale="robust", preprocess__clamp=1.7)
    study = open_study(one._configured(made.pairs))
    study.recording("01")

    def never(*_: Any) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr("align.data.preparing.raw.fit_chain", never)
    monkeypatch.setattr("align.data.preparing.preprocess.fit_chain", never)
    assert set(study.preparation("01").fitted) == {"centre", "spread"}
    recording = study.recording("01")
    assert recording.preparation is not None and recording.preparation.steps.clamp == 1.7


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t, m: ({**t, "centre": t["centre"] * float("nan")}, m), "not finite"),
        (lambda t, m: (t, {"preparation": "{"}), "not valid JSON"),
        (lambda t, m: (t, {"preparation": m["preparation"].replace('"tmin"', '"tmni"')}), "tmin"),
        (lambda t, m: (t, {"preparation": m["preparation"].replace("[8, 16]", "[8, -16]")}), "shape"),
        (lambda t, m: (t, {"preparation": m["preparation"].replace("zscore", "nothing")}), "scale"),
        (lambda t, m: (t, {}), "says nothing"),
    ],
    ids=["nan", "json", "field", "shape", "choice", "foreign"],
)
def test_a_changed_file_is_one_line(change: Any, told: str, tmp_path: Path, place: Path, made: Study) -> None:
    decoder(place, run_dir=tmp_path / "run", encoder="ridge", loss__contrastive=0.0).fit(made)
    file = preparation_path(tmp_path / "run", "01")
    save_tensors(file, *change(*read_tensors(file)))
    with pytest.raises(UserError, match=told):
        load_run(tmp_path / "run").predict(made.recording().test.x)


def test_an_encoder_for_two_people_prepares_each(tmp_path: Path, place: Path, made: Study) -> None:
    shutil.copytree(place / "study", tmp_path / "study")
    _second_person(tmp_path / "study")
    one = decoder(place, run_dir=tmp_path / "run", encoder="mlp")
    config = one._configured({"study.name": "folder", "study.root": str(tmp_path / "study")})
    config.protocol, config.run_dir, config.train.epochs = "pooled", str(tmp_path / "run"), 1
    train(config, progress=False)
    spreads = []
    for subject in ("01", "02"):
        run = load_run(tmp_path / "run", subject)
        recording = open_study(config).recording(subject)
        np.testing.assert_allclose(
            run.preparation(open_study(config).read(subject).test.x), recording.test.x, rtol=0, atol=1e-6
        )
        spreads.append(run.preparation.fitted["spread"].mean())
    assert spreads[1] == pytest.approx(7 * spreads[0], rel=1e-5)


def _second_person(root: Path) -> None:
    """The same trials once more, of somebody whose signals are seven times as large."""
    head, *lines = (root / "stimuli.csv").read_text(encoding="utf-8").splitlines()
    other = [line.split(",", 1) for line in lines]
    people = [head, *lines, *(f"{int(row) + len(lines)},{rest[:-2]}02" for row, rest in other)]
    (root / "stimuli.csv").write_text("\n".join(people) + "\n", encoding="utf-8")
    x = np.load(root / "signals.npy")
    np.save(root / "signals.npy", np.concatenate([x, x * 7]))
