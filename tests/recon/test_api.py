"""`from recon import evaluate_images, load_run, score`: light to import, the same numbers as the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from align.checkpoint import Run
from align.errors import UserError
from align.files import read_tensors
from recon import cli, evaluate_images, load_run, score
from recon.decoding.predict import open_recording, split_trials
from tests.recon.tiny_run import make_run

NAMES = ("Decoder", "Pictures", "Study", "evaluate_images", "load_run", "score")
HEAVY = ("torch", "pandas", "skimage", "scipy", "PIL", "matplotlib")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("api"))


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_importing_recon_loads_nothing_heavy() -> None:
    assert python(f"import recon, sys; print(sorted(set({HEAVY}) & set(sys.modules)), dir(recon))").startswith("[] ")
    assert python("from recon import score; import sys; print('pandas' in sys.modules)") == "False"


def test_the_names_are_listed_and_callable() -> None:
    names = python("import recon; print([(n, callable(getattr(recon, n)), n in dir(recon)) for n in recon.__all__])")
    assert names == str([(name, True, True) for name in NAMES])
    with pytest.raises(ImportError):
        exec("from recon import scores")  # noqa: S102 - what a typing error in a notebook does


@pytest.mark.parametrize(
    "before",
    [
        "import recon.scoring.retrieval, recon.scoring.images",
        "from recon.scoring.retrieval import score_matrix",
        "import recon.commands.score, recon.commands.evaluate_images",
        "from recon import *",
    ],
)
def test_a_module_never_hides_the_function_of_its_name(before: str) -> None:
    code = f"{before}; import recon; from recon import score, evaluate_images; print(score is recon.score, {{}})"
    facts = "score.__module__, evaluate_images.__module__, type(score).__name__"
    assert python(code.format(facts)) == "True recon.scoring.retrieval recon.scoring.images function"


def test_score_equals_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(60, 12))
    brain = images + 1.5 * rng.normal(size=images.shape)
    np.save(tmp_path / "brain.npy", brain)
    np.save(tmp_path / "images.npy", images)
    words = ["--brain", str(tmp_path / "brain.npy"), "--images", str(tmp_path / "images.npy"), "--n-perm", "200"]
    assert cli.main(["score", *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    own = score(brain, images, n_perm=200)
    assert 0.05 < own["brain_to_image"]["top1"] < 0.95
    for key in ("brain_to_image", "image_to_brain", "transductive", "per_stimulus", "notes"):
        assert told[key] == json.loads(json.dumps(own[key])), key


def test_score_takes_torch_tensors() -> None:
    rng = np.random.default_rng(1)
    brain, images = (rng.normal(size=(30, 8)).astype(np.float32) for _ in range(2))
    assert score(torch.from_numpy(brain), torch.from_numpy(images), n_perm=50) == score(brain, images, n_perm=50)


def test_evaluate_images_equals_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    targets = rng.random((12, 32, 32, 3), dtype=np.float32)
    told = np.clip(targets + 0.3 * rng.normal(size=targets.shape), 0, 1).astype(np.float32)
    np.save(tmp_path / "recons.npy", told)
    np.save(tmp_path / "targets.npy", targets)
    words = ["--reconstructions", str(tmp_path / "recons.npy"), "--targets", str(tmp_path / "targets.npy")]
    assert cli.main(["evaluate-images", *words, "--metrics", "PixCorr", "SSIM", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["metrics"]
    table = evaluate_images(told, targets, metrics=["PixCorr", "SSIM"])
    assert list(table.index) == list(entries) == ["PixCorr", "SSIM"]
    for name, entry in entries.items():
        row = table.loc[name]
        assert entry["ci95"] == [row["ci95_low"], row["ci95_high"]]
        for key in ("value", "n", "shuffled", "grey", "p_shuffled"):
            assert entry[key] == row[key], (name, key)
        assert row["shuffled"] < row["value"] < 1


def test_predict_equals_the_command(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predict", "--subject", "01", "--run", str(run.path), "--json"]) == 0
    stored, facts = read_tensors(json.loads(capsys.readouterr().out)["predictions"])
    trials = split_trials(open_recording(run), "test")
    own = load_run(run.path).predict(trials.x)
    assert set(own) == {"embeds", "tokens"}
    assert len(json.loads(facts["ids"])) == len(own["embeds"]) > 1
    for name, value in own.items():
        np.testing.assert_array_equal(value, stored[name].numpy())
    assert np.ptp(own["embeds"], axis=0).max() > 0.01


def test_predict_takes_lists_tensors_and_one_trial(run: Run) -> None:
    signals = split_trials(open_recording(run), "test").x[:3]
    whole = run.predict(signals)["embeds"]
    np.testing.assert_array_equal(run.predict(signals.tolist())["embeds"], whole)
    np.testing.assert_array_equal(run.predict(torch.from_numpy(signals))["embeds"], whole)
    np.testing.assert_allclose(run.predict(signals[:1])["embeds"], whole[:1], atol=1e-5)
    assert run.predict(signals[:0])["embeds"].shape == (0, whole.shape[1])


@pytest.mark.parametrize(
    ("signals", "told"),
    [
        (np.zeros((2, 59)), "shape (2, 59)"),
        (np.zeros((2, 60, 1)), "shape (2, 60, 1)"),
        (np.zeros(60), "(60,); pass (n, channels"),
        (3.0, "(); pass (n, channels"),
        ([[1.0, 2.0], [3.0]], "numbers"),
        ("trials.npy", "numbers"),
        (np.full((2, 60), np.nan), "NaN"),
        (np.array([[1.0] * 59 + [np.inf]]), "index (0, 59)"),
    ],
)
def test_signals_that_do_not_fit_are_one_line(run: Run, signals: object, told: str) -> None:
    with pytest.raises(UserError) as error:
        run.predict(signals)
    text = one_line(error)
    assert told in text
    if "shape" in told:
        assert "pass (n, 60)" in text


def test_bad_input_of_the_other_two_is_one_line(tmp_path: Path) -> None:
    pictures = np.zeros((3, 32, 32, 3), np.float32)
    with pytest.raises(UserError) as error:
        evaluate_images(pictures[..., :2], pictures)
    assert "(3, 32, 32, 2)" in one_line(error)
    with pytest.raises(UserError) as error:
        score(np.ones((4, 3)), np.ones((4, 5)))
    assert "3" in one_line(error) and "5" in one_line(error)
    with pytest.raises(UserError) as error:
        load_run(tmp_path)
    assert "model.safetensors" in one_line(error)
