"""`align/train.py` from files to run folders, on a tiny folder study and a real, untrained SqueezeNet."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from align import train as script
from align.checkpoint import MODEL, find_run, load_run, weights_hash
from align.config import Config, load_config
from align.errors import UserError
from align.files import read_json, save_tensors
from align.training.protocols import plan_jobs
from tests.align.fixture_studies import write_folder
from tests.one_line import fails

PROJECT = Path(__file__).resolve().parents[2]
SUBJECTS = ("01", "010")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder study of two subjects (16 training pictures shown twice, 4 test pictures) and a backbone's weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the other library's imports
        from torchvision.models import squeezenet1_1
    root = tmp_path_factory.mktemp("study")
    rows: list[dict[str, object]] = []
    for subject in SUBJECTS:
        shown = [(i, "train") for i in range(16) for _ in range(2)] + [(i, "test") for i in range(16, 20)]
        for i, split in shown:
            rows.append({"row": len(rows), "image": f"pic{i:03d}.png", "split": split, "subject": subject})
    signals = np.random.default_rng(0).normal(size=(len(rows), 6)).astype(np.float32)
    write_folder(root / "data", signals, rows)
    torch.manual_seed(0)
    save_tensors(root / "weights.safetensors", squeezenet1_1(weights=None).state_dict())
    return root


def _arguments(place: Path, *more: str) -> list[str]:
    study = ["study.name=folder", f"study.root={place / 'data'}", f"cache_dir={place / 'cache'}"]
    backbone = ["backbone.name=torchvision/squeezenet1_1", f"backbone.weights={place / 'weights.safetensors'}"]
    target = ["backbone.image_size=48", "target.layer=features.4", "target.pooling=grid:2", "target.components=8"]
    recipe = ["encoder.width=16", "train.epochs=3", "train.batch_size=8", "target.chosen_on=a test"]
    return [*study, *backbone, *target, *recipe, *more]


def test_every_subject_gets_a_run(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_HOME", str(tmp_path))
    config = load_config(Config, None, _arguments(place, "seed=4"))
    found = script.train(config, progress=False)
    assert [one.subjects for one in found] == [(name,) for name in SUBJECTS]
    for one in found:
        name = f"folder_data_{one.label}_mlp_features.4_seed-4"
        assert one.path == tmp_path / "runs" / "align" / name == find_run(one.subjects[0], tmp_path)
        assert one.weights_hash == weights_hash(one.path) and one.weights_hash[:12] in str(one)
        files = {path.name for path in one.path.iterdir()}
        told = {
            "model.safetensors",
            "config.yaml",
            "metrics.jsonl",
            "split.json",
            "README.md",
            "state",
            script.MEASURED,
        }
        assert files == told | {f"preparation_{one.label}.safetensors"}
        run = load_run(one.path)
        assert run.meta["n_training_rows"] == 16 and run.meta["chosen_on"] == "a test"
        split = read_json(one.path / "split.json")
        assert len(split["train"]["ids"]) == 16 and not set(split["train"]["hashes"]) & set(split["test"]["hashes"])
        out = run.aligner.predict(np.zeros((2, 6), np.float32))
        assert out["embeds"].shape == (2, 16) and out["tokens"].shape == (2, 4, 128)
    assert found[0].weights_hash != found[1].weights_hash
    again = script.train(config, progress=False)
    assert [one.weights_hash for one in again] == [one.weights_hash for one in found]


def test_test_rows_have_no_influence(place: Path, tmp_path: Path) -> None:
    signals = np.load(place / "data" / "signals.npy")
    hashes = []
    for scale in (1, 100):
        spoiled = signals.copy()
        spoiled[32:36] *= scale  # the test rows of subject 01
        (tmp_path / "study").mkdir(exist_ok=True)
        if not (tmp_path / "study" / "images").exists():
            (tmp_path / "study" / "images").symlink_to(place / "data" / "images")
            (tmp_path / "study" / "stimuli.csv").write_bytes((place / "data" / "stimuli.csv").read_bytes())
        np.save(tmp_path / "study" / "signals.npy", spoiled)
        more = [f"study.root={tmp_path / 'study'}", "subjects=[01]", f"run_dir={tmp_path / str(scale)}"]
        (trained,) = script.train(load_config(Config, None, _arguments(place, *more)), progress=False)
        assert trained.path == tmp_path / str(scale)
        hashes.append(trained.weights_hash)
    assert hashes[0] == hashes[1]


def test_repetitions_can_be_kept_apart(place: Path, tmp_path: Path) -> None:
    more = ["subjects=[01]", f"run_dir={tmp_path}", "train.average_repetitions=false", "encoder.name=ridge"]
    (trained,) = script.train(load_config(Config, None, _arguments(place, *more)), progress=False)
    assert trained.n_trials == 32
    assert '"stage": "ridge"' in (tmp_path / "metrics.jsonl").read_text()


def test_several_subjects_in_one_run_dir(place: Path, tmp_path: Path) -> None:
    config = load_config(Config, None, _arguments(place, f"run_dir={tmp_path}"))
    (job,) = plan_jobs("intra", ["010"])
    assert script.run_folder(config, job, alone=False) == tmp_path / "sub-010"
    assert script.run_folder(config, job, alone=True) == tmp_path
    slash = load_config(Config, None, ["target.layer=a/b:c", "study.name=simulated"])
    assert script.run_folder(slash, job, alone=True).name == "simulated_sub-010_mlp_a%2Fb%3Ac_seed-0"


def test_no_weights_next_to_runs_of_people(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "run" / "sub-annika" / MODEL
    inside.parent.mkdir(parents=True)
    inside.write_bytes(b"weights")
    monkeypatch.setattr(script, "_train_job", lambda *args, **options: pytest.fail("trained"))
    arguments = _arguments(place, f"run_dir={tmp_path / 'run'}", "subjects=[01]")
    fails("runs of its own for sub-annika", lambda: script.train(load_config(Config, None, arguments), overwrite=True))
    assert [path for path in (tmp_path / "run").rglob("*") if path.is_file()] == [inside]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["subjects=[1]"], "has no subject '1'"),
        (["target.layer=features.44"], "features.4"),
        (["encoder.name=mlpp"], "did you mean 'mlp'"),
        (["train.schedule=sine"], "train.schedule='sine'"),
        (["train.epoch=3"], "did you mean 'train.epochs'"),
        (["study.root=/does/not/exist"], "is not a folder"),
    ],
)
def test_mistakes_end_in_one_line_and_leave_no_run(
    place: Path, tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = _arguments(place, "subjects=[01]", f"run_dir={tmp_path / 'run'}", *more)
    assert script.main(arguments) == 2
    err = capsys.readouterr().err.splitlines()
    lines = [line for line in err if line.startswith("error:")]
    assert len(lines) == 1 and message in lines[0], err
    assert not (tmp_path / "run" / "model.safetensors").exists()
    with pytest.raises(UserError):
        script.main(["--debug", *arguments])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["encoder.name=tsconv"], r"needs trials of shape \(C, T\)"),
        (["train.smooth=0.3"], r"train\.smooth is along time"),
        (["target.pooling=grid:40"], r"finer than the layer's own"),
        (["target.pooling=cls"], r"needs a backbone with a CLS token"),
        (["target.router=true"], r"is one; join two"),
        (
            ["target.router=true", "target.layer=features.3+features.4", "target.components=1"],
            r"less than one for each",
        ),
        (["train.precision=fp16"], r"fp16 is for GPUs"),
        (["tracker=dvclive"], r"pip install dvclive"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_target_is_extracted(
    place: Path, tmp_path: Path, more: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("align.vision.fused.cached_targets", _never)
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: ["tensorboard"])
    config = load_config(Config, None, _arguments(place, "subjects=[01]", f"run_dir={tmp_path / 'run'}", *more))
    fails(message, lambda: script.train(config, progress=False))


def _never(*given: object, **named: object) -> None:
    raise AssertionError("too late")


def test_a_test_picture_among_the_training_ones_is_refused(place: Path, tmp_path: Path) -> None:
    text = (place / "data" / "stimuli.csv").read_text().replace("pic017.png,test", "pic003.png,test")
    (tmp_path / "images").symlink_to(place / "data" / "images")
    (tmp_path / "signals.npy").write_bytes((place / "data" / "signals.npy").read_bytes())
    (tmp_path / "stimuli.csv").write_text(text)
    config = load_config(Config, None, _arguments(place, f"study.root={tmp_path}", f"run_dir={tmp_path / 'run'}"))
    with pytest.raises(UserError, match="pic003"):
        script.train(config, progress=False)


def test_the_command_prints_its_configuration_and_one_line_for_mistakes(place: Path) -> None:
    printed = _command("--print-config", "subjects=[01,010]", "train.lr=1e-4")
    assert printed.returncode == 0
    assert "- '010'" in printed.stdout and "lr: 0.0001" in printed.stdout
    wrong = _command("target.layr=3")
    assert wrong.returncode == 2 and wrong.stdout == ""
    assert wrong.stderr.strip() == "error: unknown key 'target.layr'; did you mean 'target.layer'?"


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "align.train", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT)
