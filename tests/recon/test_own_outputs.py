"""What our own commands write is what our own commands read: pictures of generate, ids of repeated recordings."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.errors import UserError
from recon import cli
from recon.scoring.opening import open_pair
from recon.scoring.retrieval import score
from tests.one_line import fails
from tests.recon.tiny_pictures import smooth, write_folder

TRUTH = smooth(4)
NAMES = ("ant", "bee", "cow_2", "dog")


def targets(folder: Path, names: tuple[str, ...] = NAMES, suffix: str = ".png") -> Path:
    pictures = {f"{name}{suffix}": pixels for name, pixels in zip(names, TRUTH, strict=False)}
    return write_folder(folder / "targets", pictures)


def drawn(folder: Path, ids: tuple[str, ...], index: bool, seeds: tuple[int, ...] = (0, 3)) -> Path:
    """As `recon generate` names its files: the id, with its ending, and the seed."""
    files = {f"{name.replace('/', '%2F')}_seed-{seed}.png": i for i, name in enumerate(ids) for seed in seeds}
    write_folder(folder, {file: (TRUTH[i] // 2).astype(np.uint8) for file, i in files.items()})
    if index:
        with (folder / "index.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["stimulus_id", "file", "seed"])
            writer.writerows([ids[i], name, name.rsplit("-", 1)[1][:-4]] for name, i in files.items())
    return folder


@pytest.mark.parametrize("index", [True, False], ids=["index", "names"])
@pytest.mark.parametrize("ending", ["", ".png", ".jpg", ".JPG", ".jpeg"])
def test_pictures_of_generate_meet_their_targets(ending: str, index: bool, tmp_path: Path) -> None:
    told, truth = open_pair(drawn(tmp_path / "told", tuple(name + ending for name in NAMES), index), targets(tmp_path))
    assert told.ids == truth.ids == NAMES and told.samples == 2
    np.testing.assert_array_equal(told.read(range(4), 0), TRUTH // 2)


def test_ids_with_folders_meet_their_names(tmp_path: Path) -> None:
    told, truth = open_pair(
        drawn(tmp_path / "told", tuple(f"set/{name}.png" for name in NAMES), True), targets(tmp_path)
    )
    assert told.ids == truth.ids == NAMES
    two = tuple(f"{side}/a.png" for side in "xy")  # two pictures of one name: nothing is guessed
    fails("holds no picture of", lambda: open_pair(drawn(tmp_path / "two", two, True), targets(tmp_path)))


def test_more_targets_are_told_not_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told = drawn(tmp_path / "told", ("bee.png", "dog.png", "ant.png"), True)
    with caplog.at_level(logging.WARNING, logger="recon"):
        own, truth = open_pair(told, targets(tmp_path))
    assert truth.ids == own.ids == ("ant", "bee", "dog")
    np.testing.assert_array_equal(truth.read(range(3), 0), TRUTH[[0, 1, 3]])
    assert "3 of 4 pictures have a reconstruction" in caplog.text
    fails(
        "holds no picture of 'bee'",
        lambda: open_pair(drawn(tmp_path / "eel", ("ant.png", "eel.png"), True), targets(tmp_path)),
    )


def test_the_command_scores_what_generate_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = drawn(tmp_path / "told", tuple(f"{name}.png" for name in NAMES[:3]), True)
    words = ["evaluate-images", "--reconstructions", str(told), "--targets", str(targets(tmp_path))]
    assert cli.main([*words, "--metrics", "PixCorr", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_stimuli"] == 3


def _score(folder: Path, ids: list[str], x: np.ndarray, z: np.ndarray, capsys: Any, *more: str) -> dict[str, Any]:
    np.save(folder / "E.npy", x)
    np.save(folder / "Z.npy", z)
    (folder / "ids.csv").write_text("id\n" + "\n".join(ids) + "\n", encoding="utf-8")
    words = [
        "score",
        "--brain",
        str(folder / "E.npy"),
        "--images",
        str(folder / "Z.npy"),
        "--ids",
        str(folder / "ids.csv"),
    ]
    assert cli.main([*words, *more, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("kind", ["rows", "names", "numbers"])
def test_repeated_ids_are_averaged(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(12, 5))
    shown = np.repeat(np.arange(12), 3) if kind == "names" else np.tile(np.arange(11, -1, -1), 3)
    x = z[shown] + 0.1 * rng.normal(size=(36, 5))
    ids = [f"p{row:02d}" if kind == "names" else str(row) for row in shown]
    found = _score(tmp_path, ids, x, z, capsys)
    assert found["brain_to_image"]["top1"] == 1 and found["n_stimuli"] == 12


def test_ids_that_leave_a_doubt_are_refused() -> None:
    rng = np.random.default_rng(0)
    x, z = rng.normal(size=(8, 5)), rng.normal(size=(4, 5))
    fails("give --image-ids", lambda: score(x, z, ids=["b", "a", "d", "c"] * 2))
    fails("give --image-ids", lambda: score(x, z, ids=["a", "b", "c", "c"] * 2))
    assert score(x, z, ids=["b", "a", "d", "c"] * 2, image_ids=list("abcd"), n_boot=10, n_perm=10)["n_stimuli"] == 4
    with pytest.raises(UserError):
        score(x, z, ids=["a"] * 7)
