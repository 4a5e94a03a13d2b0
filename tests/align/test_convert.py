"""Clean copies: the same tensors as the pickled file, mapped, whole or absent, and only for the file they are of."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.config import Config, load_config
from align.data.reading import convert
from align.data.reading.containers import read_container
from align.data.reading.convert import convert_file, convert_folder, open_container
from align.data.reading.stored_array import StoredArray
from align.data.signals import Recording, mapped_file
from align.data.studies import open_study
from tests.align import fixture_things as things
from tests.one_line import fails

EEG = tuple(things.WRITERS)
MEG = ("atm", "ubp", "neurobridge")
CASES = [*(("things_eeg2", name) for name in EEG), *(("things_meg", name) for name in MEG)]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    found = {}
    recorded = things.epochs()
    for name, write in things.WRITERS.items():
        found["things_eeg2", name] = tmp_path_factory.mktemp(name)
        write(found["things_eeg2", name], recorded)
        things.write_pictures(found["things_eeg2", name])
    fif = tmp_path_factory.mktemp("fif")
    things.write_meg(fif)
    for name in MEG:
        found["things_meg", name] = tmp_path_factory.mktemp(name)
        things.write_meg_repack(fif, found["things_meg", name], name)
    return found


def read(name: str, root: Path) -> Recording:
    return open_study(load_config(Config, None, [f"study.name={name}", f"study.root={root}"])).read("01")


def recordings(root: Path) -> list[Path]:
    """The signal files of subject 01, without those of clean copies."""
    return [path for path in root.rglob("sub-01/*") if path.is_file()]


def scribble(path: Path) -> None:
    """Make the numbers of a file wrong, but neither its size, nor its time, nor its beginning."""
    stat = path.stat()
    half = stat.st_size // 2
    path.write_bytes(path.read_bytes()[:half] + b"\xff" * (stat.st_size - half))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("elsewhere", [False, True], ids=["beside", "out"])
@pytest.mark.parametrize(("study", "variant"), CASES)
def test_a_converted_copy_gives_identical_mapped_tensors(
    study: str, variant: str, elsewhere: bool, published: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    root = shutil.copytree(published[study, variant], tmp_path / "root", symlinks=True)
    original = read(study, root)
    expected = [np.array(part.x) for part in (original.train, original.test)]
    plain = study == "things_eeg2" and variant == "neurobridge"
    base = tmp_path / "out" if elsewhere else root
    written, kept = convert_folder(root, tmp_path / "out" if elsewhere else None)
    assert kept == [] and len(written) == (0 if plain else 2) + (study == "things_eeg2")
    assert all(path.is_relative_to(base) for path in written)
    assert elsewhere == (not list(root.rglob("*.clean")))
    if not plain:
        for path in recordings(root):
            scribble(path)
    found = read(study, base)
    for part, x in zip((found.train, found.test), expected, strict=True):
        np.testing.assert_array_equal(part.x, x)
        assert part.x.dtype == x.dtype and mapped_file(part.x) is not None
    assert (found.ch_names, found.sfreq, found.tmin) == (original.ch_names, original.sfreq, original.tmin)
    assert found.stimuli.ids == original.stimuli.ids
    np.testing.assert_array_equal(found.stimuli.load(3), original.stimuli.load(3))
    for one, other in ((original.train, found.train), (original.test, found.test)):
        np.testing.assert_array_equal(one.stimulus, other.stimulus)
        assert (one.session is None) == (other.session is None)
        if one.session is not None and other.session is not None:
            np.testing.assert_array_equal(one.session, other.session)


def test_raw_recordings_are_epoched_from_their_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(things, "TRAIN", things.TRAIN[:4])
    monkeypatch.setattr(things, "TEST", things.TEST[:2])
    monkeypatch.chdir(tmp_path)
    things.write_raw(tmp_path / "root", n_train=4, n_test=2)
    things.write_pictures(tmp_path / "root")
    expected = np.array(read("things_eeg2", tmp_path / "root").train.x)
    written, _ = convert_folder(tmp_path / "root")
    assert len(written) == 9
    shutil.rmtree(tmp_path / "cache")
    for path in (tmp_path / "root").rglob("raw_eeg_*.npy"):
        scribble(path)
    np.testing.assert_array_equal(read("things_eeg2", tmp_path / "root").train.x, expected)


def nice(root: Path) -> Path:
    things.write_nice(root, things.epochs(train=10, test=2))
    return root / "Preprocessed_data_250Hz" / "sub-01" / "preprocessed_eeg_training.npy"


def test_converting_again_does_nothing(tmp_path: Path) -> None:
    nice(tmp_path)
    written, _ = convert_folder(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again, kept = convert_folder(tmp_path)
    assert (again, kept) == ([], written) and len(written) == 2
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    (written[0] / "content.json").write_text("{}")
    assert convert_folder(tmp_path) == ([written[0]], [written[1]])


def test_a_second_root_can_be_made_again_and_taken_up(tmp_path: Path) -> None:
    path = nice(tmp_path / "root")
    first, _ = convert_folder(tmp_path / "root", tmp_path / "out")
    assert convert_folder(tmp_path / "root", tmp_path / "out") == ([], first)
    (path.parent / "notes.txt").write_text("new")
    convert_folder(tmp_path / "root", tmp_path / "out")
    linked = tmp_path / "out" / path.relative_to(tmp_path / "root").parent / "notes.txt"
    assert linked.is_symlink() and linked.read_text() == "new"
    assert not list((tmp_path / "root").rglob("*.clean"))


def test_linked_subjects_are_converted_too(tmp_path: Path) -> None:
    path = nice(tmp_path / "disk")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "sub-01").symlink_to(path.parent)
    (tmp_path / "root" / "loop").symlink_to(tmp_path / "root")
    written, _ = convert_folder(tmp_path / "root", tmp_path / "out")
    assert [folder.parent for folder in written] == [tmp_path / "out" / "sub-01"] * 2
    assert not list((tmp_path / "disk").rglob("*.clean"))


def test_a_plain_array_needs_no_copy(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(6.0))
    np.save(tmp_path / "texts.npy", np.array(["a", "bc"]))
    (tmp_path / ".hidden.pkl").write_bytes(b"nothing")
    (tmp_path / "readme.txt").write_text("nothing")
    assert convert_folder(tmp_path) == ([], [])


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_an_interrupted_conversion_leaves_nothing(
    fault: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = nice(tmp_path)
    save = StoredArray.save
    saved: list[Path] = []

    def broken(self: StoredArray, to: Path, of: str) -> None:
        if saved:
            to.write_bytes(b"half")
            raise fault
        saved.append(to)
        save(self, to, of)

    before = sorted(path.parent.iterdir())
    monkeypatch.setattr(StoredArray, "save", broken)
    if isinstance(fault, OSError):
        fails("cannot write .*No space left on device; make room", lambda: convert_file(path, f"{path}.clean"))
    else:
        with pytest.raises(KeyboardInterrupt):
            convert_file(path, f"{path}.clean")
    assert len(saved) == 1 and sorted(path.parent.iterdir()) == before
    monkeypatch.undo()
    assert convert_file(path, f"{path}.clean").is_dir()


def test_a_full_disk_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = nice(tmp_path)
    stored = read_container(path)["preprocessed_eeg_data"].nbytes
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=stored))
    fails(
        r"needs [\d.]+ kB, and the disk of .* has [\d.]+ kB left; make room or",
        lambda: convert_file(path, f"{path}.clean"),
    )
    assert not list(path.parent.glob("*.clean"))


def test_a_file_that_changed_is_read_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"x": np.zeros(2000)}))
    convert_file(path, f"{path}.clean")
    path.write_bytes(pickle.dumps({"x": np.ones(2000)}))
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with caplog.at_level("WARNING", logger=convert.__name__):
        assert open_container(path)["x"].open().tolist() == [1.0] * 2000
    assert "changed since it was converted" in caplog.text
    assert convert_folder(tmp_path) == ([tmp_path / "x.pkl.clean"], [])
    caplog.clear()
    assert open_container(path)["x"].open().tolist() == [1.0] * 2000 and not caplog.records


def test_everything_plain_survives(tmp_path: Path) -> None:
    objects = np.empty((2, 2), dtype=object)
    objects[:] = [["a", "b"], ["c", "d"]]
    lists = np.empty(2, dtype=object)
    lists[0], lists[1] = [1, 2], [3, 4]
    content: dict[str, Any] = {
        "texts": ["a", "ü"],
        "none": None,
        "nested": {"x": [1, 2.5, True], "y": np.arange(6, dtype=">i2").reshape(2, 3)},
        "nested.y": np.array([9.0, 8.0]),  # called like the one inside
        "a/b": np.array([1.0, 2.0], np.float32),
        "a_b": np.array([3.0, 4.0], np.float32),
        "objects": np.asfortranarray(objects),
        "lists": lists,
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "empty": np.zeros((0, 3)),
    }
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(content))
    np.testing.assert_array_equal(read_container(path)["objects"].open(), objects)
    convert_file(path, f"{path}.clean")
    found = open_container(path)
    for key in ("texts", "none"):
        assert found[key] == content[key]
    assert found["nested"]["x"] == [1, 2.5, True]
    for stored, array in [(found["nested"]["y"], content["nested"]["y"])] + [
        (found[key], content[key]) for key in ("nested.y", "a/b", "a_b", "objects", "lists", "fortran", "empty")
    ]:
        np.testing.assert_array_equal(stored.open(), array)
        assert stored.open().dtype == array.dtype


def test_what_cannot_be_converted_is_named_and_keeps_nothing_else_back(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({1: np.zeros(3)}))
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"x": np.zeros(3)}))
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(os.getcwd))
    fails(
        "2 of 3 files cannot be converted, the others are: .*keys that are no texts", lambda: convert_folder(tmp_path)
    )
    assert [path.name for path in tmp_path.glob("*.clean")] == ["b.pkl.clean"]


def test_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    nice(tmp_path / "root")
    fails("lie in one another", lambda: convert_folder(tmp_path / "root", tmp_path / "root" / "out"))
    fails("lie in one another", lambda: convert_folder(tmp_path / "root", tmp_path))
    (tmp_path / "out").mkdir()
    (tmp_path / "root" / "notes.txt").write_text("theirs")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    fails("is there already and no link", lambda: convert_folder(tmp_path / "root", tmp_path / "out"))
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    fails("is not a folder", lambda: convert_folder(tmp_path / "nowhere"))


def test_of_a_damaged_copy_the_file_itself_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"x": np.arange(3000.0), "t": ["a"]}))
    clean = convert_file(path, f"{path}.clean")
    sound = json.loads((clean / "content.json").read_text())

    def read_itself(why: str) -> None:
        caplog.clear()
        found = open_container(path)
        assert found["x"].open()[2999] == 2999 and found["t"] == ["a"]
        (record,) = caplog.records
        assert why in record.message and "is read itself" in record.message and "\n" not in record.message

    changes: list[dict[str, Any]] = [
        {"arrays": {"x": "../x.pkl"}},
        {"arrays": {"x": str(tmp_path / "x.npy")}},
        {"arrays": {"x": 3}},
        {"arrays": []},
        {"content": {"array": "y"}},
        {"content": {"dict": 3}},
        {"content": []},
        {"content": {}},
        {"content": {"objects": [], "shape": [2]}},
    ]
    for change in changes:
        (clean / "content.json").write_text(json.dumps({**sound, **change}))
        read_itself("not a whole clean copy")
    for text in ("", "[]", "[" * 100_000, '{"arrays": {}}'):
        (clean / "content.json").write_text(text)
        read_itself("not a whole clean copy")
    (clean / "content.json").write_text(json.dumps(sound))
    array = next(clean.glob("*.npy"))
    values = array.read_bytes()
    array.write_bytes(values[:-1])
    read_itself("truncated")
    array.write_bytes(values[:-40] + bytes([values[-40] ^ 1]) + values[-39:])
    read_itself("differ")
    assert convert_folder(tmp_path)[0] == [clean]


def test_arrays_of_another_copy_are_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files of two people hold arrays of the same names and shapes."""
    copies = []
    for name, value in (("a.pkl", 1.0), ("b.pkl", 2.0)):
        path = tmp_path / name
        path.write_bytes(pickle.dumps({"x": np.full(3000, value)}))
        os.utime(path, ns=(0, int(value)))
        copies.append(convert_file(path, f"{path}.clean"))
    (one, other) = (next(copy.glob("*.npy")) for copy in copies)
    one.write_bytes(other.read_bytes())
    with caplog.at_level("WARNING", logger=convert.__name__):
        assert open_container(tmp_path / "a.pkl")["x"].open()[0] == 1.0
    assert "differ; " in caplog.text and "is read itself" in caplog.text
    assert convert_folder(tmp_path)[0] == [copies[0]]


def test_what_is_no_clean_copy_stays_where_one_is_due(tmp_path: Path) -> None:
    path = nice(tmp_path)
    clean = path.with_name(f"{path.name}.clean")
    clean.mkdir()
    (clean / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    fails("is no clean copy of recon data convert and stays as it is", lambda: convert_file(path, clean))
    assert sorted(tmp_path.rglob("*")) == before and (clean / "notes.txt").read_text() == "mine"
