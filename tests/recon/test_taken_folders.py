"""Folders of results that are given again: nothing of others is lost, and what is refused changes nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from recon import cli
from tests.align.fixture_studies import picture, png
from tests.recon.test_universality import study

FEW = ["--components", "3", "--folds", "2", "--permutations", "3", "--shuffles", "3"]
WORDS: dict[str, list[str]] = {
    "universality": ["--backbones", "mini,mini@untrained", *FEW],
    "rsa": ["--backbones", "mini", "--boot", "3"],
    "sheet": ["--units", "0@0.12", "--folds", "2", "target.layer=1"],
    "encode": ["--folds", "2", "--permutations", "3", "target.layer=1"],
    "brain-score": ["--layers", "1", "--method", "ridge"],
    "timecourse": ["--width", "0.05", "--step", "0.05", "--permutations", "5", "target.layer=1"],
    "aligned-cut": [
        "--units",
        "0@0.12",
        "--clusters",
        "2",
        "--shuffles",
        "2",
        "target.layer=1",
        "target.pooling=grid:2",
    ],
    "sweep": ["--layers", "1", "--no-test", "sweep.seeds=1", "sweep.folds=2", "train.epochs=1", "encoder.name=ridge"],
    "maximize": [
        *("--units", "0@0.12", "--judge", "torchvision/squeezenet1_1@untrained", "--judge-layer", "features.3"),
        *("--patched", "1", "--rounds", "0", "--steps", "1", "target.layer=1", "target.pooling=grid:2"),
    ],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two people, and natural pictures."""
    root = tmp_path_factory.mktemp("taken")
    study(root / "study")
    shutil.copytree(root / "study", root / "broken")
    (root / "broken" / "images" / "pic001.png").write_bytes(b"")
    (root / "natural").mkdir()
    for i in range(20):
        (root / "natural" / f"{i:02d}.png").write_bytes(png(picture(500 + i)))
    return root


def call(root: Path, out: Path, command: str, subject: str, *more: str) -> int:
    """The command for one subject, tiny."""
    words = [command, *WORDS[command], "--out", str(out), "study.name=folder", f"study.root={root / 'study'}"]
    words += [f"cache_dir={root / 'cache'}", f"subjects=[{subject}]"]
    return cli.main([*words, *(["--pictures", str(root / "natural")] if command == "maximize" else []), *more])


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def claimed(out: Path, command: str, made_with: str) -> None:
    """What looks like results of the command that were made with something else."""
    name = {"encode": "encoding_pictures-to-responses", "brain-score": "encoding_pictures-to-responses"}
    name |= {"aligned-cut": "aligned_cut", "sweep": "choice"}
    out.mkdir()
    (out / f"{name.get(command, command)}.json").write_text("{}")
    (out / "made_with.json").write_text(made_with)


@pytest.mark.parametrize("command", WORDS)
def test_results_of_another_subject_are_not_replaced_unasked(
    root: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    claimed(tmp_path / "out", command, '{"asked": {"subjects": ["02"]}}')
    before = content(tmp_path / "out")
    assert call(root, tmp_path / "out", command, "01") == 2
    assert "of another configuration (asked.subjects=[02] instead of [01])" in capsys.readouterr().err
    assert content(tmp_path / "out") == before


def test_what_replaces_results_leaves_none_of_them(root: Path, tmp_path: Path) -> None:
    out, alone = tmp_path / "out", tmp_path / "alone"
    assert call(root, out, "sheet", "01") == 0 and call(root, out, "sheet", "02", "--overwrite") == 0
    assert call(root, alone, "sheet", "02") == 0
    assert set(content(out)) == set(content(alone)) and not any("sub-01" in name for name in content(out))


@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("sheet", ["--units", "none@0.12"]),
        ("encode", ["target.pooling=grid:63"]),
        ("rsa", ["--pictures", "8", "--areas", "nowhere"]),
        ("universality", ["--fit-images", "{root}/nowhere"]),
        ("maximize", ["--units", "0@9"]),
        ("timecourse", ["target.pooling=grid:63"]),
        ("aligned-cut", ["target.pooling=grid:63"]),
        ("sweep", ["target.pooling=grid:63"]),
        *((command, ["study.root={root}/broken"]) for command in WORDS),
    ],
)
def test_what_fails_half_way_leaves_the_former_results_and_their_configuration(
    root: Path, tmp_path: Path, command: str, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    claimed(tmp_path / "out", command, '{"seed": 7}')
    before = content(tmp_path / "out")
    given = [word.format(root=root) for word in more]
    assert call(root, tmp_path / "out", command, "01", *given, "--overwrite") == 2, capsys.readouterr().err
    assert content(tmp_path / "out") == before


def test_one_subject_and_many_layers_are_refused_before_anything_is_fitted(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(root, tmp_path / "out", "brain-score", "01", "--layers", "1", "2") == 2
    assert "cannot choose the layer of its own score" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_pictures_go_through_no_link(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "pictures_sub-01").symlink_to(tmp_path / "elsewhere")
    assert call(root, tmp_path / "out", "maximize", "01") == 2
    assert "is a link that leads out of" in capsys.readouterr().err
    assert not content(tmp_path / "elsewhere")
