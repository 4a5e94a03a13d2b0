"""The wheel a stranger installs: complete, nothing beside the two packages, and its commands run outside the clone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import NO_NETWORK, PROJECT

PACKAGES = ("align", "recon")
LEFT_OUT = {"recon/gallery/example.png"}  # a picture of the README
SOURCES = (
    *PACKAGES,
    "tests",
    "benchmarks",
    "configs",
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
)


def require_backend() -> None:
    """Skip where the build backend of pyproject.toml is not installed."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    (needed,) = project["build-system"]["requires"]
    name, _, least = needed.partition(">=")
    try:
        found = version(name)
    except PackageNotFoundError:
        pytest.skip(f"the build backend {needed} is not installed: pip install '.[test]'")
    if int(found.split(".")[0]) < int(least):
        pytest.skip(f"the build backend is {name} {found}, {needed} is needed: pip install '.[test]'")


def pip(*words: str) -> None:
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-index", "--no-deps"]
    done = subprocess.run([sys.executable, "-m", "pip", *words, *quiet], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the clone; with a run folder such as users have."""
    require_backend()
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(PROJECT / name, source / name)
    for stray in ("runs/demo/model.safetensors", "recon/runs/x.txt", "recon/__pycache__/x.pyc"):
        (source / stray).parent.mkdir(parents=True, exist_ok=True)
        (source / stray).write_bytes(b"stray")
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", str(source), "--no-build-isolation", "--wheel-dir", str(out))
    (path,) = out.iterdir()
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    pip("install", "--no-compile", "--target", str(target), str(wheel))
    return target


def outside(installed: Path, folder: Path, *words: str) -> str:
    """Standard output of a Python command that knows the installed packages and not the clone."""
    keep = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "RECON_SHARED")}
    environment = {**keep, "PYTHONPATH": os.pathsep.join([str(installed), NO_NETWORK])}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_both_packages_whole_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    expected = {
        str(path.relative_to(PROJECT))
        for package in PACKAGES
        for path in (PROJECT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    } - LEFT_OUT
    configs = {f"align/{path.relative_to(PROJECT).as_posix()}" for path in (PROJECT / "configs").rglob("*.yaml")}
    assert {"align/configs/papers/nice.yaml", "align/configs/recon/conditioner.yaml"} <= configs
    expected |= configs
    for named in (
        "recon/gallery/page.html",
        "recon/gallery/page.css",
        "recon/gallery/page.js",
        "recon/voting/vote.html",
        "recon/voting/vote.css",
        "recon/voting/vote.js",
        "recon/py.typed",
        "align/py.typed",
        "recon/assets/mini/model_index.json",
    ):
        assert named in expected
    found = {name for name in names if ".dist-info/" not in name}
    assert found - expected == set(), "in the wheel, but not in the packages"
    assert expected - found == set(), "in the packages, but not in the wheel"
    beside = {name.split(".dist-info/")[1] for name in names if ".dist-info/" in name}
    assert beside == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE"}


def test_the_wheel_says_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("METADATA")]
        text = archive.read(name).decode()
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    named = re.findall(r"^Requires-Dist: ([\w.-]+)", text, re.MULTILINE)
    assert sorted(named) == sorted(re.match(r"[\w.-]+", line)[0] for line in [*project["dependencies"], *extras])
    assert "Requires-Python: <3.15,>=3.11" in text


def test_the_commands_run_outside_the_clone(installed: Path, tmp_path: Path) -> None:
    where = "import align, recon; print(align.__file__); print(recon.__file__)"
    for line in outside(installed, tmp_path, "-c", where).splitlines():
        assert Path(line).is_relative_to(installed)
    script = str(installed / "bin" / "recon")
    told = outside(installed, tmp_path, script, "--help")
    for name in ("score", "evaluate-images", "table", "audit", "demo"):
        assert re.search(rf"^    {name}\s", told, re.MULTILINE), name

    rng = np.random.default_rng(0)
    images = rng.normal(size=(20, 6))
    np.save(tmp_path / "Z.npy", images)
    np.save(tmp_path / "E.npy", 2 * images)
    words = ["score", "--brain", "E.npy", "--images", "Z.npy", "--n-perm", "99", "--n-boot", "99", "--json"]
    scored = json.loads(outside(installed, tmp_path, script, *words))
    assert scored["brain_to_image"]["top1"] == scored["image_to_brain"]["top1"] == 1
    assert scored["n_stimuli"] == 20

    pictures = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "pictures.npy", pictures)
    np.save(tmp_path / "inverse.npy", 255 - pictures)
    words = ["evaluate-images", "--reconstructions", "inverse.npy", "--targets", "pictures.npy"]
    report = json.loads(outside(installed, tmp_path, script, *words, "--metrics", "PixCorr", "SSIM", "--json"))
    assert report["metrics"]["PixCorr"]["value"] == pytest.approx(-1, abs=1e-4)
    assert report["n_stimuli"] == 4


def test_recipes_and_configurations_are_found_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    code = "from recon.reproduce.recipe import load_recipe; print(load_recipe('nice', None, []).paper.title)"
    assert outside(installed, tmp_path, "-c", code).strip().endswith("(NICE)")
    code = "import sys; from recon.cli import main; sys.exit(main(['reproduce', 'nise']) - 2)"
    assert outside(installed, tmp_path, "-c", code) == ""
    words = ["--config", "configs/align/things_eeg2.yaml", "--config", "configs/backbones/dinov2_base.yaml"]
    told = outside(installed, tmp_path, "-m", "align.train", *words, "--print-config")
    assert "name: things_eeg2" in told and "name: transformers/facebook/dinov2-base" in told
    assert list(tmp_path.iterdir()) == []


def test_the_embedded_models_are_found_outside_the_clone(installed: Path, tmp_path: Path) -> None:
    code = (
        "from align.vision import mini_weights; from recon.metrics.reader import load_reader\n"
        "load_reader(); print(mini_weights() / 'model.safetensors')"
    )
    weights = Path(outside(installed, tmp_path, "-c", code).strip())
    assert weights.is_relative_to(installed) and weights.stat().st_size > 1e6
