"""`recon data import`: its grammar, embeddings, the older importers behind it, and what the writer refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from align.data.importing import layout
from align.data.importing.layout import Pieces, Shown, write_layout
from align.errors import UserError
from tests.align.fixture_import import imported, read_folder, shown, write_pictures, write_table
from tests.align.fixture_studies import picture
from tests.one_line import fails

NAMES = ["a.png", "b.png", "c.png", "d.png"]
ORDER = ["c.png", "d.png", "a.png", "b.png", "c.png"]


def test_grammar_imports_nothing_heavy() -> None:
    code = (
        "import sys, argparse; from align.data.importing import command\n"
        "command.add_arguments(argparse.ArgumentParser())\n"
        "print(sorted({'numpy', 'PIL', 'mne', 'nibabel', 'h5py', 'pandas', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def words(tmp_path: Path) -> list[object]:
    """A complete import of embeddings without --out."""
    np.save(tmp_path / "E.npy", np.random.default_rng(0).normal(size=(5, 6)))
    split = ["Test" if name == "d.png" else "train" for name in ORDER]
    ids = write_table(tmp_path / "ids.csv", {"id": ORDER, "split": split, "concept": ["p", "q", "r", "s", "p"]})
    images = write_pictures(tmp_path / "pictures", NAMES)
    return ["--embeddings", tmp_path / "E.npy", "--ids", ids, "--images", images]


@pytest.mark.parametrize("ending", [".npy", ".h5", ".mat"])
def test_embeddings_are_signals(
    words: list[object], tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "PIECE", 2 * 8 * 6)  # two rows at a time
    x = np.load(tmp_path / "E.npy")
    words[1] = tmp_path / f"E{ending}"
    if ending == ".h5":
        with h5py.File(words[1], "w") as file:
            file["embeddings"] = x
    elif ending == ".mat":
        savemat(words[1], {"embeddings": x})
    imported(*words, "--out", tmp_path / "new" / "out")
    recording = read_folder(tmp_path / "new" / "out")
    np.testing.assert_array_equal(recording.train.x, x[[0, 2, 3, 4]].astype(np.float32))
    np.testing.assert_array_equal(recording.test.x, x[[1]].astype(np.float32))
    assert shown(recording, "train") == ["c.png", "a.png", "b.png", "c.png"]
    assert [recording.stimuli.concepts[i] for i in recording.train.stimulus] == ["p", "r", "s", "p"]
    assert np.load(tmp_path / "new/out/signals.npy").dtype == np.float32
    fails("exists already", lambda: imported(*words, "--out", tmp_path / "new" / "out"))


def test_rows_in_another_order(words: list[object], tmp_path: Path) -> None:
    rows = [4, 0, 3, 1, 2]
    split = ["test" if name == "d.png" else "train" for name in ORDER]
    words[3] = write_table(tmp_path / "ids.csv", {"row": rows, "id": ORDER, "split": split})
    imported(*words, "--out", tmp_path / "out")
    x = np.load(tmp_path / "E.npy").astype(np.float32)
    recording = read_folder(tmp_path / "out")
    np.testing.assert_array_equal(recording.train.x, x[[4, 3, 1, 2]])
    np.testing.assert_array_equal(recording.test.x, x[[0]])
    write_table(tmp_path / "ids.csv", {"row": [4, 0, 3, 1, 1], "id": ORDER, "split": split})
    fails("every number from 0 to 4 once", lambda: imported(*words, "--out", tmp_path / "x"))


def test_faults_of_embeddings_are_one_line(words: list[object], tmp_path: Path) -> None:
    def again(x: Any) -> Any:
        np.save(tmp_path / "E.npy", x)
        return lambda: imported(*words, "--out", tmp_path / "out")

    fails("has 4 rows, .* 5 lines", again(np.zeros((4, 6))))
    fails(r"has shape \(5,\)", again(np.zeros(5)))
    fails("holds text", again(np.full((5, 6), "a")))
    fails("needs pickle", again(np.array([[object()]] * 5)))
    fails(r"row 2 of the signals \(picture 'a.png'\)", again(np.full((5, 6), [[0], [0], [1e39], [0], [0]])))
    (tmp_path / "E.npy").write_bytes((tmp_path / "E.npy").read_bytes()[:-8])
    fails("is truncated", lambda: imported(*words, "--out", tmp_path / "out"))
    words[3] = tmp_path / "none.csv"
    fails("none.csv' does not exist", again(np.zeros((5, 6))))
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["0", "1", "2", "3", "5"], "column 'row' holds '5' in line 5, which is no row: they go from 0 to 4"),
        (["0", "1", "2", "3", "x"], "holds 'x' in line 5"),
        (["0", "1", "2", "1", "4"], "column 'row' holds '1' in lines 2 and 4"),
    ],
)
def test_rows_that_are_not_there_are_named(words: list[object], rows: list[str], told: str, tmp_path: Path) -> None:
    split = ["test" if name == "d.png" else "train" for name in ORDER]
    words[3] = write_table(tmp_path / "rows.csv", {"id": ORDER, "split": split, "row": rows})
    fails(told, lambda: imported(*words, "--out", tmp_path / "out"))


def test_whole_numbers_may_have_a_decimal_point(words: list[object], tmp_path: Path) -> None:
    """As pandas writes a column of whole numbers with gaps."""
    words[5] = write_pictures(tmp_path / "numbered", ["0.png", "1.png", "2.png"])
    table = {"id": ["0.0", "2.0", "1.0", "0.0", ""], "row": ["4.0", "1.0", "2.0", "3.0", "0.0"], "test": list("01000")}
    words[3] = write_table(tmp_path / "whole.csv", table)
    x = np.load(tmp_path / "E.npy").astype(np.float32)
    assert imported(*words, "--test-column", "test", "--out", tmp_path / "out")["trials"] == 4
    recording = read_folder(tmp_path / "out")
    assert shown(recording, "train") == ["0.png", "1.png", "0.png"] and shown(recording, "test") == ["2.png"]
    np.testing.assert_array_equal(recording.train.x, x[[4, 2, 3]])
    words[3] = write_table(tmp_path / "part.csv", {**table, "id": ["0.0", "2.0", "1.0", "0.5", ""]})
    fails("first '0.0'", lambda: imported(*words, "--test-column", "test", "--out", tmp_path / "other"))


def test_options_that_do_not_belong_are_refused(words: list[object], tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out")
    fails("--embeddings needs --images too", lambda: imported(*words[:4], *out))
    fails("--embeddings does not use --mask; leave it out", lambda: imported(*words, *out, "--mask", "m.nii"))
    fails("--mat does not use --link", lambda: imported("--mat", "m.mat", "--link", *out))
    fails("--betas needs --mask too", lambda: imported("--betas", "b.nii", *out))
    fails("--subject 'a/b' is no label", lambda: imported(*words, *out, "--subject", "a/b"))
    with pytest.raises(SystemExit):
        imported(*words, *out, "--mat", "m.mat")


def test_bdpy_and_mat_behind_the_command(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(4, 3))
    columns = np.column_stack([x, [1, 2, 1, 3], [1, 1, 2, 1], [7, 7, 8, 8], [1, 1, 1, 2]])
    keys = ["VoxelData", "stimulus_id", "DataType", "Session", "SubjectID"]
    values = np.full((5, 7), np.nan)
    values[0, :3] = values[1, 3] = values[2, 4] = values[3, 5] = values[4, 6] = 1
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["dataset"], file["metadata/key"], file["metadata/value"] = columns, keys, values
    images = write_pictures(tmp_path / "pictures", ["1.png", "2.png", "3.png"])
    fails("column 'SubjectID' names 2 people .*write a file for each", lambda: _bdpy(tmp_path, images))
    with h5py.File(tmp_path / "s.h5", "r+") as file:
        file["dataset"][3, 6] = 1
    fails("share 1 pictures, first '1.png'", lambda: _bdpy(tmp_path, images))
    with h5py.File(tmp_path / "s.h5", "r+") as file:
        file["dataset"][2, 3] = 3
        file["dataset"][3, 3] = 2
    assert _bdpy(tmp_path, images)["shape"] == [4, 3]
    recording = read_folder(tmp_path / "god")
    np.testing.assert_array_equal(recording.train.x, x[[0, 1, 3]].astype(np.float32))
    assert shown(recording, "train") == ["../pictures/1.png", "../pictures/2.png", "../pictures/2.png"]
    assert recording.train.session.tolist() == ["7", "7", "8"]

    content: dict[str, Any] = {}
    for suffix, n in (("Trn", 3), ("Test", 2)):
        pixels = np.stack([np.asarray(picture(n * 10 + i, 4))[..., 0].reshape(-1) for i in range(n)])
        content |= {f"fmri{suffix}": np.ones((n, 2)) * n, f"stim{suffix}": pixels, f"label{suffix}": np.ones((n, 1))}
    savemat(tmp_path / "d.mat", content)
    said = imported("--mat", tmp_path / "d.mat", "--out", tmp_path / "digits")
    assert (said["train"], said["test"], said["shape"]) == (3, 2, [5, 2])
    assert (read_folder(tmp_path / "digits").train.x == 3).all()


def _bdpy(folder: Path, images: Path) -> dict[str, Any]:
    return imported("--bdpy", folder / "s.h5", "--images", images, "--out", folder / "god", "--link")


def test_links_lead_from_where_the_folder_really_is(words: list[object], tmp_path: Path) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "near").symlink_to(tmp_path / "far" / "away")
    imported(*words, "--out", tmp_path / "near" / "out", "--link")
    recording = read_folder(tmp_path / "near" / "out")
    assert shown(recording, "test") == ["../../../pictures/d.png"]
    np.testing.assert_array_equal(recording.stimuli.load(1), np.asarray(picture(503)))


def test_writer_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images: dict[str, Any] = {name: np.asarray(picture(i)) for i, name in enumerate(("a.png", "b.png"))}
    trials = [Shown("a.png", "train", "01"), Shown("b.png", "test", "01")]
    out = tmp_path / "out"

    def broken() -> Any:
        yield np.zeros((1, 3))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_layout(out, Pieces((2, 3), broken()), trials, images)
    fails(
        "1 rows of signals were found, 2 announced",
        lambda: write_layout(out, Pieces((2, 3), [np.zeros((1, 3))]), trials, images),
    )
    fails(r"trial 0 has shape \(4,\)", lambda: write_layout(out, Pieces((2, 3), [np.zeros((2, 4))]), trials, images))
    fails("3 rows of signals but 2 trials", lambda: write_layout(out, np.zeros((3, 3)), trials, images))
    fails(r"signals have shape \(2, 0\)", lambda: write_layout(out, np.zeros((2, 0)), trials, images))
    with pytest.raises(ValueError, match="JSON"):
        write_layout(out, np.zeros((2, 3)), trials, images, {"tmin": np.nan})
    monkeypatch.setattr(layout.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 20}))
    fails(
        "the signals need 24 B, and the disk of .* has 20 B left; make room or",
        lambda: write_layout(out, np.zeros((2, 3)), trials, images),
    )
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert write_layout(out, np.zeros((2, 3)), trials, images) == out


def test_folder_needs_the_session_of_all_lines_or_none(words: list[object], tmp_path: Path) -> None:
    imported(*words, "--out", tmp_path / "out")
    assert read_folder(tmp_path / "out").train.session is None
    table = tmp_path / "out" / "stimuli.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(f"{line},{'session' if i == 0 else i}" for i, line in enumerate(lines)))
    recording = read_folder(tmp_path / "out")
    assert recording.train.session.tolist() == ["1", "3", "4", "5"] and recording.test.session.tolist() == ["2"]
    table.write_text("\n".join(f"{line},{('session', 1, '', 1, 1, 1)[i]}" for i, line in enumerate(lines)))
    with pytest.raises(UserError, match="line 3: session is empty, line 2 names one"):
        read_folder(tmp_path / "out")
