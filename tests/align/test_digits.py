"""Foreign fMRI files to the `folder` layout: a .mat of pixel columns (digits), bdpy's HDF5 (GOD, Deeprecon)."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from align import train as script
from align.config import Config, load_config
from align.data.importing.bdpy import Columns, import_bdpy
from align.data.importing.mat_columns import import_columns
from align.data.signals import Recording, Trials
from align.data.studies import open_study
from recon import cli
from tests.align.fixture_studies import picture
from tests.conftest import PROJECT, shared_path
from tests.one_line import fails

CONFIG = PROJECT / "configs" / "align" / "digits69.yaml"
VOXELS = 30


def six(seed: int) -> np.ndarray:
    """uint8 (28, 28): a stem at the upper left and a ring below it; place, size and thickness by ``seed``."""
    rng = np.random.default_rng(seed)
    row, column, radius, width = rng.uniform((17, 10, 4, 0.8), (20, 17, 7, 2.5))
    y, x = np.mgrid[:28, :28] - np.array([row, column])[:, None, None]
    ring = np.abs(np.hypot(x, y) - radius) < width
    stem = (np.abs(x + radius) < width) & (y < 0) & (y > -14)
    return np.where(ring | stem, 255 - rng.integers(0, 40), 0).astype(np.uint8)


def digits(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (n, 28, 28), first the sixes, then the nines (sixes upside down), and labels (n, 1) 1 and 2."""
    sixes = [six(seed + i) for i in range(n // 2)]
    nines = [six(seed + 100 + i)[::-1, ::-1] for i in range(n // 2)]
    return np.stack(sixes + nines), np.repeat([1, 2], n // 2).astype(np.uint8)[:, None]


def mat_content() -> dict[str, Any]:
    """The keys, types and shapes of digit69_28x28.mat, with fewer voxels: linear in the pixels, plus noise."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(784, VOXELS)) / 5000
    content: dict[str, Any] = {}
    for suffix, n, seed in (("Trn", 40, 0), ("Test", 10, 1000)):
        pictures, labels = digits(n, seed)
        columns = pictures.transpose(0, 2, 1).reshape(n, 784)  # column by column
        content[f"stim{suffix}"], content[f"label{suffix}"] = columns, labels
        content[f"fmri{suffix}"] = columns @ weights + 0.01 * rng.normal(size=(n, VOXELS))
    return content


@pytest.fixture
def mat(tmp_path: Path) -> Path:
    savemat(tmp_path / "digit69_28x28.mat", mat_content())
    return tmp_path / "digit69_28x28.mat"


def read_folder(root: Path) -> Recording:
    return open_study(load_config(Config, None, ["study.name=folder", f"study.root={root}"])).recording("01")


def test_mat_becomes_a_folder_with_upright_pictures(mat: Path, tmp_path: Path) -> None:
    recording = read_folder(import_columns(mat, tmp_path / "out"))
    content = mat_content()
    np.testing.assert_allclose(recording.train.x, content["fmriTrn"], rtol=1e-6)
    np.testing.assert_allclose(recording.test.x, content["fmriTest"], rtol=1e-6)
    expected = np.concatenate([digits(40, 0)[0], digits(10, 1000)[0]])
    shown = [*recording.train.stimulus, *recording.test.stimulus]
    for picture_, i in zip(expected, shown, strict=True):
        np.testing.assert_array_equal(recording.stimuli.load(int(i)), np.repeat(picture_[..., None], 3, 2))
        upper, lower = picture_[:14].sum(dtype=int), picture_[14:].sum(dtype=int)
        assert recording.stimuli.captions[i] == ("6" if lower > upper else "9")
    assert set(recording.stimuli.concepts) == {""}  # two concepts could not be dealt into folds


def test_mat_faults_are_one_line(mat: Path, tmp_path: Path) -> None:
    content = mat_content()

    def again(**changes: Any) -> Callable[[], object]:
        savemat(mat, {name: value for name, value in (content | changes).items() if value is not None})
        return lambda: import_columns(mat, tmp_path / "out")

    spoiled = content["fmriTrn"].copy()
    spoiled[3, 4] = np.inf
    fails("no array 'stimTrn'", again(stimTrn=None))
    fails("fmriTrn: 1 values are NaN or infinite", again(fmriTrn=spoiled))
    fails(r"stimTest is uint8 \(10, 783\)", again(stimTest=content["stimTest"][:, 1:]))
    fails("stimTrn is float64", again(stimTrn=content["stimTrn"] / 255))
    fails("test: 9 responses, 10 pictures, 10 labels", again(fmriTest=content["fmriTest"][1:]))
    fails("fmriTest has 29 voxels, fmriTrn 30", again(fmriTest=content["fmriTest"][:, 1:]))
    fails("label 3; known labels: 1, 2", again(labelTrn=content["labelTrn"] + 1))
    assert not (tmp_path / "out").exists()
    again()()
    fails("exists already", lambda: import_columns(mat, tmp_path / "out"))


def test_mat_command(mat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "import", "--mat"]
    assert cli.main([*command, str(mat), "--out", str(tmp_path / "out")]) == 0
    assert f"out: {tmp_path / 'out'}" in capsys.readouterr().out
    assert cli.main([*command, str(tmp_path / "none.mat"), "--out", str(tmp_path / "other")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    run = [
        "--config",
        str(CONFIG),
        f"study.root={tmp_path / 'out'}",
        f"cache_dir={tmp_path}",
        f"run_dir={tmp_path / 'r'}",
    ]
    assert script.main(run) == 0
    assert "40 training rows" in capsys.readouterr().out


def benchmark() -> ModuleType:
    """benchmarks/digits69.py, which lies outside the packages."""
    spec = importlib.util.spec_from_file_location("digits69", PROJECT / "benchmarks" / "digits69.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["digits69"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_benchmark_tables(mat: Path) -> None:
    module = benchmark()
    found = module.run(mat, ["target.components=20"])
    given, folds, control = found.values()
    assert [len(parts) for parts in found.values()] == [1, 10, 10]
    for parts in (folds, control):
        assert sum(len(part.digit) for part in parts) == 50 and {len(part.digit) for part in parts} <= {4, 5, 6}
    lines = {what: (value, chance) for what, value, chance, _, _ in module.scores(given)}
    assert lines["top-1 over both digits"][1] == 0.1 and lines["top-1 within a digit"][1] == 0.2
    assert lines["digit of the best picture"] == (1.0, 0.5)
    real, shuffled = ({line[0]: line[1] for line in module.scores(parts)} for parts in (folds, control))
    assert real["two-way within a digit"] > 0.75 and real["digit of the best picture"] > 0.9
    assert abs(shuffled["two-way within a digit"] - 0.5) < 0.2 and shuffled["digit of the best picture"] > 0.8


def test_benchmark_scores_by_hand() -> None:
    module = benchmark()
    similarity = np.array([[3, 1, 9, 0], [2, 2, 0, 1], [0, 5, 7, 8], [0, 0, 1, 2]], dtype=float)
    part = module.HeldOut(similarity, np.array(["6", "6", "9", "9"]))
    lines = {what: (value, chance) for what, value, chance, _, _ in module.scores([part])}
    assert lines["top-1 over both digits"] == ((0 + 0.5 + 0 + 1) / 4, 0.25)
    assert lines["two-way over both digits"] == (pytest.approx((2 + 2.5 + 2 + 3) / 12), 0.5)
    assert lines["top-1 within a digit"] == ((1 + 0.5 + 0 + 1) / 4, 0.5)
    assert lines["two-way within a digit"] == ((1 + 0.5 + 0 + 1) / 4, 0.5)
    assert lines["digit of the best picture"][0] == (0 + 1 + 1 + 1) / 4


def test_folds_hold_every_row_once_and_both_digits() -> None:
    module = benchmark()
    labels = np.repeat(["6", "9"], 50)
    folds = module.digit_folds(labels, 10, 3)
    assert sorted(np.concatenate(folds).tolist()) == list(range(100))
    assert all((labels[rows] == "6").sum() == 5 for rows in folds)
    stimulus = np.arange(100)[::-1].copy()
    shuffled = module.mispaired(stimulus, labels, 0)
    assert (labels[shuffled] == labels[stimulus]).all() and (shuffled != stimulus).mean() > 0.8


def test_real_digits_given_split_and_ten_folds() -> None:
    module = benchmark()
    found = module.run(shared_path("data/digits69/digit69_28x28.mat"), [])
    given, folds, control = ({line[0]: line[1] for line in module.scores(parts)} for parts in found.values())
    assert given["digit of the best picture"] >= 0.9 and folds["digit of the best picture"] >= 0.9
    assert folds["top-1 over both digits"] > 0.5 and folds["top-1 within a digit"] > 0.5  # chance .1 and .2
    assert control["digit of the best picture"] > 0.75  # the digit can still be learnt, which six it is cannot
    assert abs(control["top-1 within a digit"] - 0.2) < 0.12 and abs(control["two-way within a digit"] - 0.5) < 0.1


NAMES = {1518878.005958: "n01518878_5958", 1443537.022563: "n01443537_22563", 1677366.018182: "n01677366_18182"}


def write_bdpy(
    path: Path, stimulus: np.ndarray, split: np.ndarray | None, old: bool = False, vmap: dict[float, str] | None = None
) -> np.ndarray:
    """bdpy's HDF5: 6 voxel columns around the others, of which 4 are VC; returns the voxels (n, 6)."""
    n = len(stimulus)
    x = np.random.default_rng(n).normal(size=(n, 6))
    others = {"Session": np.arange(n) // 4 + 1, "Run": np.ones(n), "stimulus_id": stimulus}
    others |= {} if split is None else {"DataType": split}
    columns = np.column_stack([x[:, :3], *others.values(), x[:, 3:]])
    voxels = [0, 1, 2, *range(columns.shape[1] - 3, columns.shape[1])]
    values = {name: np.full(columns.shape[1], np.nan) for name in ("VoxelData", "ROI_VC", "voxel_x", *others)}
    values["VoxelData"][voxels] = 1
    values["ROI_VC"][voxels] = [1, 1, 0, 0, 1, 1]
    values["voxel_x"][voxels] = 1  # coordinates are metadata too
    for i, name in enumerate(others):
        values[name][3 + i] = 1
    with h5py.File(path, "w") as file:
        file.create_dataset("/dataSet" if old else "/dataset", data=columns)
        group = "/metaData" if old else "/metadata"
        file.create_dataset(f"{group}/key", data=list(values))
        file.create_dataset(f"{group}/description", data=[""] * len(values))
        file.create_dataset(f"{group}/value", data=np.stack(list(values.values())))
        for number, label in (vmap or {}).items():
            file.create_dataset(f"/vmap/stimulus_id/{number}", data=label)
    return x


def write_pictures(folder: Path, names: list[str]) -> Path:
    (folder / "training").mkdir(parents=True)
    for i, name in enumerate(names):
        picture(i).save(folder / "training" / f"{name}.JPEG")
    return folder


@pytest.mark.parametrize("old", [False, True])
def test_god_in_one_file(tmp_path: Path, old: bool) -> None:
    first, second, third = NAMES
    stimulus = np.array([first, second, third, second, third, first, third, second])
    split = np.array([1, 1, 2, 1, 2, 1, 3, 1])  # 3 = imagery, left out
    x = write_bdpy(tmp_path / "Subject1.h5", stimulus, split, old)
    images = write_pictures(tmp_path / "images", list(NAMES.values()))
    recording = read_folder(import_bdpy(tmp_path / "Subject1.h5", images, tmp_path / "out"))
    np.testing.assert_allclose(recording.train.x, x[split == 1], rtol=1e-6)
    np.testing.assert_allclose(recording.test.x, x[split == 2], rtol=1e-6)
    ids = [recording.stimuli.ids[i] for i in recording.train.stimulus]
    assert ids == [f"{NAMES[number]}.JPEG" for number in stimulus[split == 1]]
    assert recording.stimuli.concepts[recording.train.stimulus[0]] == "n01518878"
    assert recording.test.repetition.tolist() == [0, 1]
    with Image.open(images / "training" / "n01518878_5958.JPEG") as image:
        np.testing.assert_array_equal(recording.stimuli.load(int(recording.train.stimulus[0])), np.asarray(image))
    table = (tmp_path / "out" / "stimuli.csv").read_text().splitlines()
    assert table[0] == "row,image,split,subject,concept,session" and table[-1].endswith(",2")


def test_deeprecon_in_two_files_with_labels(tmp_path: Path) -> None:
    vmap = {1.0: "n01443537_22563", 2.0: "shape_red_ring", 3.0: "letter_a"}
    x = write_bdpy(tmp_path / "train.h5", np.array([2, 1, 2, 1, 2]), None, vmap=vmap)
    held_out = write_bdpy(tmp_path / "test.h5", np.array([3, 3, 3, 3]), None, vmap=vmap)
    images = write_pictures(tmp_path / "images", list(vmap.values()))
    place = [tmp_path / "train.h5", images, tmp_path / "out", tmp_path / "test.h5"]
    recording = read_folder(import_bdpy(*place, columns=Columns(voxels="ROI_VC")))
    np.testing.assert_allclose(recording.train.x, x[:, [0, 1, 4, 5]], rtol=1e-6)
    np.testing.assert_allclose(recording.test.x, held_out[:, [0, 1, 4, 5]], rtol=1e-6)
    ids = [recording.stimuli.ids[i] for i in recording.train.stimulus]
    assert ids == [f"{vmap[number]}.JPEG" for number in (2.0, 1.0, 2.0, 1.0, 2.0)]


def test_bdpy_faults_are_one_line(tmp_path: Path) -> None:
    path, images = tmp_path / "s.h5", write_pictures(tmp_path / "images", ["7", "8"])
    write_bdpy(path, np.array([7, 8, 9]), np.array([1, 2, 1]))

    def read(columns: Columns | None = None, test: Path | None = None) -> Callable[[], object]:
        return lambda: import_bdpy(path, images, tmp_path / "out", test, columns=columns)

    fails("lacks 1 of 3 pictures, first '9'", read())
    fails("no column 'ROI_V1'; it has: VoxelData, ROI_VC", read(Columns(voxels="ROI_V1")))
    fails("no column 'image_index'", read(Columns(stimulus="image_index")))
    fails("no column 'Split'; give the test samples as a second file", read(Columns(split="Split")))
    write_bdpy(tmp_path / "t.h5", np.array([7, np.nan]), None)
    fails("stimulus_id: 1 values are NaN", read(test=tmp_path / "t.h5"))
    with h5py.File(path, "r+") as file:
        file["dataset"][1, 0] = np.nan
    fails("VoxelData: 1 values are NaN", read())
    with h5py.File(path, "w") as file:
        file["metadata"] = h5py.ExternalLink(str(tmp_path / "t.h5"), "metadata")
        file["dataset"] = np.zeros((2, 9))
    fails("'metadata/value' is a link", read())
    with h5py.File(path, "w") as file:
        file["dataset"], file["metadata/key"], file["metadata/value"] = np.zeros((2, 9)), ["a"], np.zeros((1, 8))
    fails("is no bdpy file", read())
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    fails("truncated or not HDF5", read())
    picture(9).save(images / "7.png")
    write_bdpy(path, np.array([7, 8]), np.array([1, 2]))
    fails("two pictures are called '7'", read())
    assert not (tmp_path / "out").exists()


def test_bdpy_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bdpy(tmp_path / "s.h5", np.array([7, 8]), np.array([1, 2]))
    images = write_pictures(tmp_path / "images", ["7", "8"])
    words = ["data", "import", "--bdpy", str(tmp_path / "s.h5"), "--out"]
    assert cli.main([*words, str(tmp_path / "out"), "--images", str(images), "--voxels", "ROI_VC"]) == 0
    assert np.load(tmp_path / "out" / "signals.npy").shape == (2, 4)
    assert cli.main([*words, str(tmp_path / "two"), "--images", str(tmp_path / "none")]) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_held_out_rows_are_not_trained_on(mat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, seen = benchmark(), []

    def recorded(config: Config, train: Trials, test: Trials, tokens: np.ndarray, labels: np.ndarray) -> Any:
        seen.append((train, test))
        return module.HeldOut(np.eye(len(test)), labels[test.stimulus])

    monkeypatch.setattr(module, "held_out", recorded)
    module.run(mat, [])
    assert len(seen) == 1 + 10 + 10
    for train, test in seen:
        assert not set(train.stimulus) & set(test.stimulus) and len(train) + len(test) == 50
    held = [test.stimulus for _, test in seen[1:11]]
    assert sorted(np.concatenate(held).tolist()) == list(range(50))
