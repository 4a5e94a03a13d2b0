"""Several people, several files and later files in one folder study; people that nobody tells apart are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.data.importing import parts
from tests.align.fixture_import import imported, read_folder, shown, write_pictures, write_table
from tests.one_line import fails

NAMES = ["a.png", "b.png", "c.png", "d.png"]  # d is the test
IDS = ["a.png", "d.png", "b.png", "c.png"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures", NAMES)


def write(folder: Path, name: str, seed: int, width: int = 3, **columns: Any) -> list[Path]:
    """Embeddings (4, width) and their table."""
    folder.mkdir(exist_ok=True)
    x = np.random.default_rng(seed).normal(size=(len(columns.get("id", IDS)), width)).astype(np.float32)
    np.save(folder / f"{name}.npy", x)
    ids = columns.pop("id", IDS)
    split = ["test" if one == "d.png" else "train" for one in ids]
    return [folder / f"{name}.npy", write_table(folder / f"{name}.csv", {"id": ids, "split": split, **columns})]


def words(files: list[list[Path]], images: Path, out: Path, *more: object) -> list[object]:
    return [
        *("--embeddings", *(x for x, _ in files), "--ids", *(ids for _, ids in files)),
        *("--images", images, "--out", out, *more),
    ]


COLUMNS = ["subject", "Subject", "participant_id", "sub", "subject_nr", "monkey", "Person"]
COLUMNS += ["pid", "ID_subject", "participantNumber", "subj", "ppt", "vp_nr", "patients", "volunteer code"]


@pytest.mark.parametrize("column", COLUMNS)
def test_several_people_in_one_file_are_refused_until_told(column: str, tmp_path: Path, images: Path) -> None:
    people = ["01", "01", "02", "02"]
    one = write(tmp_path / "in", "x", 0, id=["a.png", "d.png", "b.png", "d.png"], **{column: people})
    out = tmp_path / "out"
    for more in ([], ["--subject", "01"]):
        fails(
            rf"column '{column}' names 2 people \(01, 02\).*--subject-column {column}",
            lambda m=more: imported(*words([one], images, out, *m)),
        )
    assert not out.exists()
    said = imported(*words([one], images, out, "--subject-column", column))
    assert said["subject"] == "01, 02" and said["trials"] == 4
    x = np.load(one[0])
    for subject, rows in (("01", [0, 1]), ("02", [2, 3])):
        recording = read_folder(out, subject)
        np.testing.assert_array_equal(np.concatenate([recording.train.x, recording.test.x]), x[rows])
        assert set(recording.train.repetition) == {0}
    only = imported(*words([one], images, tmp_path / "one", "--subject-column", column, "--subject", "02"))
    assert only["subject"] == "02" and only["trials"] == 2
    fails(
        "has no '03', but 01, 02",
        lambda: imported(*words([one], images, out, "--subject-column", column, "--subject", "03")),
    )


@pytest.mark.parametrize("column", ["subject_seen", "age", "session", "object", "subway", "pidgin", "ids"])
def test_other_columns_are_nobody(column: str, tmp_path: Path, images: Path) -> None:
    one = write(tmp_path / "in", "x", 0, **{column: ["1", "1", "2", "2"]})
    assert imported(*words([one], images, tmp_path / "out"))["subject"] == "01"


def test_a_person_inside_the_column_that_was_named_is_refused_too(tmp_path: Path, images: Path) -> None:
    people = {"site": ["x", "x", "y", "y"], "pid": ["1", "2", "3", "3"]}
    one = write(tmp_path / "in", "x", 0, id=["a.png", "d.png", "b.png", "d.png"], **people)
    fails(
        "column 'pid' names 2 people under 'x' of column 'site' .*give --subject-column pid",
        lambda: imported(*words([one], images, tmp_path / "out", "--subject-column", "site")),
    )


def test_columns_of_what_was_shown_are_nobody(tmp_path: Path, images: Path) -> None:
    numbers = ["1", "2", "3", "4"]
    for i, (more, told) in enumerate([({"pid": numbers}, []), ({"animal": ["ox", "ant", "ant", "ox"]}, ["animal"])]):
        one = write(tmp_path / "in", f"x{i}", 0, **more)
        options = ["--concept-column", *told] if told else []
        assert imported(*words([one], images, tmp_path / f"out{i}", *options))["subject"] == "01"


def test_files_of_two_people_under_one_label_are_refused(tmp_path: Path, images: Path) -> None:
    files = [write(tmp_path / "in", f"{i}", i, participant=[f"{i % 2}"] * 4) for i in range(3)]
    more = ["--subject", "01"]
    fails(
        "are given one label, '01', but their tables name '0' and '1'",
        lambda: imported(*words(files[:2], images, tmp_path / "out", *more)),
    )
    assert imported(*words([files[0], files[2]], images, tmp_path / "one", *more))["trials"] == 8
    assert imported(*words(files[:2], images, tmp_path / "two", "--subject", "A", "B"))["subject"] == "A, B"


def test_a_column_of_one_person_names_him(tmp_path: Path, images: Path) -> None:
    one = write(tmp_path / "in", "x", 0, subject=["07"] * 4)
    assert imported(*words([one], images, tmp_path / "out"))["subject"] == "07"
    assert imported(*words([one], images, tmp_path / "told", "--subject", "A"))["subject"] == "A"
    missing = write(tmp_path / "in", "y", 0, subject=["07", "", "07", "07"])
    fails(
        "names nobody for trial 2",
        lambda: imported(*words([missing], images, tmp_path / "z", "--subject-column", "subject")),
    )


def test_several_files_are_of_one_person_or_of_several(tmp_path: Path, images: Path) -> None:
    files = [write(tmp_path / "in", f"{i}", i) for i in range(2)]
    fails(
        r"2 files, and nobody says whose.*--subject 01 \(all of one person\), --subject 01 02",
        lambda: imported(*words(files, images, tmp_path / "out")),
    )
    imported(*words(files, images, tmp_path / "two", "--subject", "01", "02"))
    imported(*words(files, images, tmp_path / "one", "--subject", "01"))
    x = [np.load(file) for file, _ in files]
    for i, subject in enumerate(("01", "02")):
        np.testing.assert_array_equal(read_folder(tmp_path / "two", subject).train.x, x[i][[0, 2, 3]])
    joined = read_folder(tmp_path / "one")
    np.testing.assert_array_equal(joined.train.x, np.concatenate([x[0][[0, 2, 3]], x[1][[0, 2, 3]]]))
    assert joined.train.repetition.tolist() == [0, 0, 0, 1, 1, 1]
    fails("3 labels for 2 files", lambda: imported(*words(files, images, tmp_path / "x", "--subject", "1", "2", "3")))
    lone = ["--embeddings", files[0][0], files[1][0], "--ids", files[0][1], "--images", images, "--subject", "1"]
    fails("--ids names 1 tables for 2 files", lambda: imported(*lone, "--out", tmp_path / "x"))


def test_people_with_other_voxels_get_folders_of_their_own(tmp_path: Path, images: Path) -> None:
    files = [write(tmp_path / "in", f"{i}", i, width=3 + i) for i in range(2)]
    fails(
        r"have other voxels \(3 and 4\).*a folder of its own.*recon table",
        lambda: imported(*words(files, images, tmp_path / "out", "--subject", "01", "02")),
    )
    assert not (tmp_path / "out").exists()


def test_later_trials_are_added_and_the_old_ones_stay(tmp_path: Path, images: Path) -> None:
    out, first = tmp_path / "out", write(tmp_path / "in", "0", 0)
    imported(*words([first], images, out))
    second = write(tmp_path / "in", "1", 1)
    fails("exists already", lambda: imported(*words([second], images, out, "--subject", "02")))
    fails("say whose: --subject LABEL", lambda: imported(*words([second], images, out, "--append")))
    said = imported(*words([second], images, out, "--append", "--subject", "02"))
    assert (said["subject"], said["trials"], said["images"]) == ("01, 02", 8, 4)
    np.testing.assert_array_equal(np.load(out / "signals.npy"), np.concatenate([np.load(first[0]), np.load(second[0])]))
    new = write_pictures(tmp_path / "more", ["x.png", "y.png", "d2.png", "a2.png"])
    (new / "d2.png").write_bytes((images / "d.png").read_bytes())  # known pictures under other names
    (new / "a2.png").write_bytes((images / "a.png").read_bytes())
    third = write(tmp_path / "in", "2", 2, id=["a2.png", "d2.png", "d2.png", "a2.png"])
    table = (tmp_path / "in" / "2.csv").read_text().replace("d2.png,train", "d2.png,test")
    (tmp_path / "in" / "2.csv").write_text(table)
    imported(*words([third], new, out, "--append", "--subject", "02"))
    recording = read_folder(out, "02")
    assert shown(recording, "train") == ["a.png", "b.png", "c.png", "a.png", "a.png"] and len(recording.test) == 3
    np.testing.assert_array_equal(read_folder(out, "01").train.x, np.load(first[0])[[0, 2, 3]])
    assert sorted(path.name for path in (out / "images").iterdir()) == NAMES


def test_what_does_not_fit_leaves_the_folder_as_it_was(tmp_path: Path, images: Path) -> None:
    out = tmp_path / "out"
    imported(*words([write(tmp_path / "in", "0", 0)], images, out))
    before = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    other = write_pictures(tmp_path / "other", ["q.png", *NAMES])  # the same names, other pictures
    more = ["--append", "--subject", "02"]
    for told, files, folder in (
        ("have other voxels", write(tmp_path / "in", "1", 1, width=5), images),
        ("'d.png' of .* is another one than before", write(tmp_path / "in", "2", 1), other),
        ("training and test share", _swapped(tmp_path / "in"), images),
    ):
        fails(told, lambda f=files, d=folder: imported(*words([f], d, out, *more)))
        assert {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()} == before
    (out / "stimuli.csv").write_text(
        (out / "stimuli.csv").read_text().replace("subject", "subject,mine", 1).replace(",01", ",01,x")
    )
    fails(
        "column 'mine', which an import does not write",
        lambda: imported(*words([write(tmp_path / "in", "3", 1)], images, out, *more)),
    )


def _swapped(folder: Path) -> list[Path]:
    files = write(folder, "s", 3)
    text = files[1].read_text().replace("a.png,train", "a.png,test")
    files[1].write_text(text)
    return files


def test_a_killed_append_is_mended_by_the_next(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    imported(*words([write(tmp_path / "in", "0", 0)], images, out))
    second = write(tmp_path / "in", "1", 1)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(parts, "write_atomic", killed)  # the signals are written, the table is not
        with pytest.raises(KeyboardInterrupt):
            imported(*words([second], images, out, "--append", "--subject", "02"))
    fails(r"8 rows of signals .* lists 4; if recon data import --append was stopped", lambda: read_folder(out))
    assert imported(*words([second], images, out, "--append", "--subject", "02"))["trials"] == 8
    np.testing.assert_array_equal(read_folder(out, "02").train.x, np.load(second[0])[[0, 2, 3]])


def test_a_file_that_is_there_already_is_not_added_again(tmp_path: Path, images: Path) -> None:
    """Under any label, whole or in part, and also within one import."""
    out, file = tmp_path / "out", write(tmp_path / "in", "0", 0)
    imported(*words([file], images, out))
    before = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    part = write(tmp_path / "in", "1", 1)
    x = np.load(part[0])
    x[1:3] = np.load(file[0])[2:]
    np.save(part[0], x)
    lines = file[1].read_text().splitlines()
    np.save(tmp_path / "in" / "2.npy", np.load(file[0])[::-1])
    (tmp_path / "in" / "2.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    turned = [tmp_path / "in" / "2.npy", tmp_path / "in" / "2.csv"]
    for files, label, told in (
        ([file], "01", "4 of 4 trials of .*0.npy.* are in .* already"),
        ([file], "02", "4 of 4 trials of"),
        ([turned], "01", "4 of 4 trials of"),
        ([part], "01", r"2 of 4 trials of .*first: row 2\); nothing is added"),
        ([write(tmp_path / "in", "3", 3), file], "01", "4 of 8 trials of 2 files"),
    ):
        more = ["--append", "--subject", label]
        fails(told, lambda f=files, m=more: imported(*words(f, images, out, *m)))
        assert {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()} == before
    fails(
        "subject 02: all 4 trials hold the very numbers of trials of subject 01",
        lambda: imported(*words([file, file], images, tmp_path / "two", "--subject", "01", "02")),
    )
    fails(
        "one recording counted as several",
        lambda: imported(*words([file, file], images, tmp_path / "y", "--subject", "1")),
    )
    assert imported(*words([write(tmp_path / "in", "4", 4)], images, out, "--append", "--subject", "02"))["trials"] == 8
