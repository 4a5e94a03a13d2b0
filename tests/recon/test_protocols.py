"""One encoder for several subjects, and encoders tested on a subject they never saw, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from align import train
from align.checkpoint import load_run
from align.files import read_json
from recon import cli
from recon.decoding.predict import open_recording, picture_tokens
from recon.evaluation.recordings import RunData
from tests.align.fixture_studies import write_folder
from tests.one_line import fails

SUBJECTS = ("01", "02", "03")
SHAPE = (4, 5)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder study: three subjects, the same 24 training and 6 test pictures, two repetitions each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECON_HOME", str(tmp_path))
    rows = [
        {"row": 0, "image": f"pic{i:03d}.png", "split": "train" if i < 24 else "test", "subject": subject}
        for subject in SUBJECTS
        for i in range(30)
        for _ in range(2)
    ]
    rows = [{**row, "row": i} for i, row in enumerate(rows)]
    write_folder(tmp_path / "data", np.random.default_rng(0).normal(size=(len(rows), *SHAPE)), rows)
    return tmp_path


def _train(place: Path, *pairs: str) -> int:
    recipe = ["target.components=6", "encoder.width=16", "train.epochs=2", "train.batch_size=20"]
    study = ["study.name=folder", f"study.root={place / 'data'}", f"cache_dir={place / 'cache'}", "target.layer=2"]
    return train.main([*study, *recipe, *pairs])


def _retrieve(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    capsys.readouterr()
    assert cli.main(["retrieve", "--json", *arguments]) == 0
    report: dict[str, object] = json.loads(capsys.readouterr().out)
    return report


def test_one_encoder_for_all(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _train(place, "protocol=pooled") == 0
    assert "folder pooled_01-03: 72 training rows" in capsys.readouterr().out
    (run,) = (place / "runs" / "align").iterdir()
    hashes = set()
    for subject in SUBJECTS:
        report = _retrieve(capsys, "--subject", subject)
        assert report["subject"] == subject and report["n_stimuli"] == 6
        assert load_run(run, subject).subject == subject
        hashes.add((run / "predictions" / f"sub-{subject}_test.safetensors").read_bytes())
    assert len(hashes) == 3, "everyone has predictions of their own signals"
    assert "trained on | subject 01, 02, 03" in (run / "README.md").read_text()
    assert cli.main(["retrieve", "--subject", "04", "--run", str(run)]) == 2
    assert "is of subject 01, 02, 03, not '04'" in capsys.readouterr().err
    assert read_json(run / "split.json")["train"]["n_trials"] == 3 * 48


@pytest.mark.parametrize("protocol", ["pooled", "loso"])
def test_people_of_other_units_are_remarked_where_they_are_trained_together(
    protocol: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signals = np.load(place / "data" / "signals.npy")
    signals[:60] *= 1e6  # all that subject 01 has
    np.save(place / "data" / "signals.npy", signals)
    told = "signals of subject 01 are about 1"
    for name, pairs in {"raw": [], "scaled": ["preprocess.scale=zscore"]}.items():
        capsys.readouterr()
        assert _train(place, f"protocol={protocol}", f"run_dir={place / name}", *pairs) == 0
        run = place / name if protocol == "pooled" else place / name / "sub-02"
        lines = [line for line in capsys.readouterr().err.splitlines() if told in line]
        assert len(lines) == (0 if name == "scaled" else 1 if protocol == "pooled" else 3), "one line a training"
        notes = _retrieve(capsys, "--subject", "02", "--run", str(run))["notes"]
        assert isinstance(notes, list)
        assert [told in note and "preprocess.scale=zscore" in note for note in notes].count(True) == (name == "raw")


def test_a_folder_of_runs_says_whose_they_are(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _train(place, "subjects=[01,03]", f"run_dir={place / 'mine'}") == 0
    for command in ("retrieve", "gallery"):
        capsys.readouterr()
        assert cli.main([command, "--subject", "02", "--run", str(place / "mine")]) == 2
        told = capsys.readouterr().err
        assert "holds no run of subject '02' (sub-01 is of 01; sub-03 is of 03)" in told and told.count("\n") == 1
    (place / "mine" / "sub-03").rename(place / "mine" / "other")
    assert cli.main(["retrieve", "--subject", "03", "--run", str(place / "mine")]) == 2
    assert f"of subject '03': --run {place / 'mine' / 'other'}" in capsys.readouterr().err


def test_a_configuration_of_other_people_says_how_to_choose(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _train(place, "subjects=[annika]") == 2
    assert "no subject 'annika'; Known: 01, 02, 03; choose with subjects=[01]" in capsys.readouterr().err


def test_the_one_left_out_takes_no_part(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = {}
    for scale in (1.0, 100.0):
        assert _train(place, "protocol=loso", f"run_dir={place / f'runs/loso{scale:g}'}") == 0
        for subject in SUBJECTS:
            run = load_run(place / f"runs/loso{scale:g}" / f"sub-{subject}")
            weights[subject, scale] = run.meta["weights_hash"]
            others = [other for other in SUBJECTS if other != subject]
            assert run.meta["trained_on"] == others and run.subject == subject
        signals = np.load(place / "data" / "signals.npy")
        signals[:60] *= 100  # all that subject 01 has
        np.save(place / "data" / "signals.npy", signals)
    assert weights["01", 1.0] == weights["01", 100.0], "fitted on 02 and 03 alone, a fresh model"
    assert weights["02", 1.0] != weights["02", 100.0] and weights["03", 1.0] != weights["03", 100.0]
    assert len({weights[subject, 1.0] for subject in SUBJECTS}) == 3
    signals[:60] /= 100**2
    np.save(place / "data" / "signals.npy", signals)
    report = _retrieve(capsys, "--subject", "01", "--run", str(place / "runs" / "loso1"))
    assert report["subject"] == "01"


def test_a_router_weighs_layers_for_every_subject_it_was_trained_on(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    router = ["target.layer=2+4", "target.router=true", "train.epochs=20", "train.lr=1e-2"]
    assert _train(place, "protocol=pooled", *router) == 0
    (folder,) = (place / "runs" / "align").iterdir()
    tokens = np.random.default_rng(0).normal(size=(5, *load_run(folder, "01").aligner.targets.token_shape))
    told = {}
    for number, subject in enumerate(SUBJECTS):
        run = load_run(folder, subject)
        assert run.number == number
        run_data = RunData(run)
        vars(run_data)["_tokens"] = tokens
        told[subject] = run_data.picture_embeds(range(5))
        np.testing.assert_array_equal(told[subject], run.aligner.embed_images(tokens, subject=number))
        assert _retrieve(capsys, "--subject", subject, "--run", str(folder))["n_stimuli"] == 6
    assert np.abs(told["01"] - told["02"]).max() > 1e-4 and np.abs(told["01"] - told["03"]).max() > 1e-4
    shared = place / "runs" / "shared"
    assert _train(place, "protocol=loso", f"run_dir={shared}", *router) == 0
    left_out = load_run(shared / "sub-02")
    assert left_out.number is None and left_out.aligner.subjects == 2
    assert _retrieve(capsys, "--subject", "02", "--run", str(shared / "sub-02"))["subject"] == "02"


def test_views_by_uncertainty_are_trained_resumed_and_evaluated(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    views = ["target.uncertain_views=[blur:5,blur:15,blur:45]", "protocol=pooled", "train.epochs=4"]
    hashes = {}
    for name, more in (("a", []), ("plain", ["target.uncertain_views=[]", "target.views=[blur:15]"])):
        assert _train(place, *views, *more, f"run_dir={place / 'runs' / name}") == 0
        report = _retrieve(capsys, "--subject", "02", "--run", str(place / "runs" / name))
        hashes[name] = (load_run(place / "runs" / name, "02").meta["weights_hash"], report["n_stimuli"])
    assert hashes["a"][0] != hashes["plain"][0] and hashes["a"][1] == 6
    a, plain = (load_run(place / "runs" / name, "02") for name in ("a", "plain"))
    recording = open_recording(a)
    np.testing.assert_array_equal(picture_tokens(a, recording), picture_tokens(plain, recording))
    a.meta["targets"]["02"] = "another"
    fails("differ from those", lambda: picture_tokens(a, recording))
    assert _train(place, *views, "encoder.name=ridge") == 2
    assert "acts in the contrastive part" in capsys.readouterr().err


def test_mistakes_are_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _train(place, "protocol=inter") == 2
    assert "protocol='inter' is not known" in capsys.readouterr().err
    assert _train(place, "protocol=loso", "subjects=[01]") == 2
    assert "two subjects or more" in capsys.readouterr().err
