"""Tables of pictures that name files elsewhere, or files that changed: refused by everything that reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from align.errors import UserError
from recon.drawing.folders import (
    PictureFolders,
    find_folders,
    lowest_seed,
    read_index,
    read_pictures,
    read_seed,
    write_index,
    write_pictures,
)
from recon.evaluation.seeds import other_seeds
from recon.scoring.opening import open_pictures

IDS = ("a", "B", "b")


def folder_of(base: Path) -> Path:
    folder = base / "reconstructions" / "mini" / "sub-01"
    write_pictures(folder, IDS, torch.rand(3, 3, 16, 16), seed=0, run_id="r")
    return folder


def read_all(folder: Path) -> None:
    read_pictures(folder, read_seed(folder, 0), list(IDS))


READERS: dict[str, Callable[[Path], object]] = {
    "read_index": read_index,
    "read_pictures": read_all,
    "lowest_seed": lowest_seed,
    "seeds": lambda folder: other_seeds(folder, IDS, 0),
    "evaluate-images": lambda folder: open_pictures(folder, known=IDS),
}
ELSEWHERE = ["../../../../p.png", "/etc/hostname", "C:\\p.png", "..\\p.png", "sub/../../p.png", "NUL", ""]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("file", ELSEWHERE)
def test_every_reader_refuses_a_row_that_leaves_the_folder(tmp_path: Path, reader: str, file: str) -> None:
    folder = folder_of(tmp_path)
    rows = read_index(folder)
    rows[1]["file"] = file
    write_index(folder, rows)
    with pytest.raises(UserError, match=r"index.csv', row 2 names the file") as error:
        READERS[reader](folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_links(tmp_path: Path, reader: str) -> None:
    folder, secret = folder_of(tmp_path), tmp_path / "secret.png"
    (folder / "a_seed-0.png").rename(secret)
    try:
        (folder / "a_seed-0.png").symlink_to(secret)
    except OSError:
        pytest.skip("this system makes no links")
    with pytest.raises(UserError, match=r"row 1 names the file .* a link"):
        READERS[reader](folder)
    (folder / "a_seed-0.png").unlink()
    secret.rename(folder / "a_seed-0.png")
    READERS[reader](folder)
    (folder / "index.csv").rename(tmp_path / "index.csv")
    (folder / "index.csv").symlink_to(tmp_path / "index.csv")
    with pytest.raises(UserError, match="a link"):
        READERS[reader](folder)


@pytest.mark.parametrize("reader", ["read_pictures", "evaluate-images"])
@pytest.mark.parametrize("change", ["one bit", "cut", "other picture", "one byte more", "empty"])
def test_a_changed_picture_is_not_scored(tmp_path: Path, reader: str, change: str) -> None:
    folder = folder_of(tmp_path)
    path = folder / "a_seed-0.png"
    old = path.read_bytes()
    new = {
        "one bit": old[:-20] + bytes([old[-20] ^ 1]) + old[-19:],
        "cut": old[:-7],
        "other picture": (folder / "b_seed-0.png").read_bytes(),
        "one byte more": old + b"x",
        "empty": b"",
    }
    READERS[reader](folder)
    path.write_bytes(new[change])
    with pytest.raises(UserError, match="changed after it was drawn"):
        READERS[reader](folder)


def test_folders_of_a_run_that_are_links_are_refused(tmp_path: Path) -> None:
    folder_of(tmp_path / "run")
    run = SimpleNamespace(path=tmp_path / "run", subject="01")
    assert find_folders(run).generator == "mini"  # type: ignore[arg-type]
    (tmp_path / "run" / "reconstructions" / "mini").rename(tmp_path / "mini")
    (tmp_path / "run" / "reconstructions" / "mini").symlink_to(tmp_path / "mini")
    with pytest.raises(UserError, match="is a link"):
        find_folders(run)  # type: ignore[arg-type]


def test_subjects_never_share_a_folder_of_pictures(tmp_path: Path) -> None:
    labels = ["a b", "a-b", "a/b", "A B", "../../x", "con", "x" * 300, "", "ü"]
    found = [PictureFolders(tmp_path, "mini", label).control("oracle") for label in labels]
    assert len({str(path).casefold() for path in found}) == len(labels)
    assert {path.parent for path in found} == {tmp_path / "controls" / "oracle" / "mini"}


def test_names_in_the_index_bring_back_the_ids(tmp_path: Path) -> None:
    ids = ["a b", "A b", "../x", "con", "ü", "u\u0308", "x" * 300]
    write_pictures(tmp_path, ids, torch.from_numpy(np.random.rand(7, 3, 16, 16)).float(), seed=3, run_id="r")
    assert list(read_seed(tmp_path, 3)) == ids and len(list(tmp_path.glob("*.png"))) == 7
    assert max(len(path.name) for path in tmp_path.iterdir()) <= 170
