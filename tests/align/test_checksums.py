"""One flipped bit in whatever we cache or store is noticed, and a cache is made again; older files are still read."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from align import files
from align.data.reading.convert import convert_folder
from align.data.reading.picture_hashes import picture_hashes
from align.data.signals import save_rows
from align.errors import Damaged, UserError
from align.files import (
    atomic_folder,
    atomic_path,
    beside,
    read_json,
    read_tensors,
    remove_strays,
    save_tensors,
    write_atomic,
    write_json,
    write_sealed,
)
from align.files.checksums import map_npy
from align.files.made_once import made_once

VALUES = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.tensor([1, -2]), "c": torch.tensor(2.5)}
TOLD = {"ids": json.dumps(["p1", "p2"]), "split": "test"}
ROWS = np.arange(24, dtype=np.float32).reshape(4, 3, 2)


def tensors_in(path: Path) -> object:
    tensors, told = read_tensors(path)
    return {name: value.tolist() for name, value in tensors.items()}, told


KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "x.safetensors": (lambda path: save_tensors(path, VALUES, TOLD), tensors_in),
    "x.json": (lambda path: write_sealed(path, {"top1": 0.75, "ids": ["p1"], "n": 3, "none": None}), read_json),
    "x.npy": (
        lambda path: save_rows(path, ROWS.shape, ROWS),
        lambda path: (map_npy(path).shape, map_npy(path).tobytes()),
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_flipped_byte_is_noticed(tmp_path: Path, name: str) -> None:
    write, read = KINDS[name]
    path = tmp_path / name
    write(path)
    whole, right = path.read_bytes(), read(path)
    silent = []
    for place in range(len(whole)):
        for flipped in (1 << place % 8, 0xFF):
            harmed = bytearray(whole)
            harmed[place] ^= flipped
            path.write_bytes(harmed)
            os.utime(path, ns=(place, 256 * place + flipped))  # so that every state is another
            try:
                found = read(path)
            except Damaged:
                continue
            if found != right:
                silent.append((place, flipped, found))
    assert not silent, f"{len(silent)} of {2 * len(whole)}, first {silent[0]}"
    for harmed in (whole[:-2], whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2), b""):
        path.write_bytes(harmed)
        with pytest.raises(Damaged) as caught:
            read(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_files_from_before_there_were_checksums_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(VALUES, tmp_path / "x.safetensors", TOLD)
    assert tensors_in(tmp_path / "x.safetensors")[1] == TOLD  # type: ignore[index]
    write_json(tmp_path / "x.json", {"top1": 0.75, "checksum": "of somebody else"})
    assert read_json(tmp_path / "x.json") == {"top1": 0.75, "checksum": "of somebody else"}
    np.save(tmp_path / "x.npy", ROWS)
    assert np.array_equal(map_npy(tmp_path / "x.npy"), ROWS)
    save_rows(tmp_path / "y.npy", ROWS.shape, ROWS)
    assert np.array_equal(np.load(tmp_path / "y.npy"), ROWS), "others read our files"
    assert np.array_equal(np.load(tmp_path / "y.npy", mmap_mode="r"), ROWS)


def test_a_cache_is_made_once_and_again_when_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, made = tmp_path / "cache" / "x.npy", []

    def make() -> None:
        made.append(1)
        save_rows(path, ROWS.shape, ROWS)

    for calls in (1, 1, 2, 2):
        if len(made) == 1 and calls == 2:
            harmed = bytearray(path.read_bytes())
            harmed[-40] ^= 1
            path.write_bytes(harmed)
        assert np.array_equal(made_once(path, lambda: map_npy(path), make, "rows"), ROWS)
        assert len(made) == calls
    assert [record.message for record in caplog.records if "made again" in record.message] == [
        f"{str(path)!r} is damaged: its content and its checksum differ; it is made again"
    ]
    assert [found.name for found in path.parent.iterdir()] == ["x.npy"], "no lock stays"


def _cached(folder: Path) -> tuple[Path, Callable[[], object]]:
    path = folder / "rows.npy"
    return path, lambda: made_once(path, lambda: map_npy(path), lambda: save_rows(path, ROWS.shape, ROWS), "rows")


def _hashed(folder: Path) -> tuple[Path, Callable[[], object]]:
    picture = folder / "a.png"
    Image.new("RGB", (8, 8), "red").save(picture)
    return folder / "pictures.json", lambda: picture_hashes([picture], folder)


def _converted(folder: Path) -> tuple[Path, Callable[[], object]]:
    pickled = folder / "a.npy"
    np.save(pickled, np.array({"rows": ROWS}, dtype=object), allow_pickle=True)
    return folder / "a.npy.clean", lambda: convert_folder(folder)


@pytest.mark.parametrize("kind", [_cached, _hashed, _converted])
def test_the_lock_of_a_process_killed_at_its_end_goes(
    tmp_path: Path, kind: Callable[[Path], tuple[Path, Callable[[], object]]]
) -> None:
    made, make = kind(tmp_path)
    make()
    whole = sorted(path.name for path in tmp_path.iterdir())
    files.beside(made, "lock").touch()
    make()
    assert sorted(path.name for path in tmp_path.iterdir()) == whole


def test_what_cannot_be_made_whole_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    with pytest.raises(Damaged):
        made_once(path, lambda: map_npy(path), lambda: path.write_bytes(b"a bad disk"), "rows")


@pytest.mark.parametrize("name", ["a" * 246 + ".npy", "ü" * 125 + ".npy", "n." + "s" * 248, "x"])
def test_a_name_that_is_legal_can_be_written(tmp_path: Path, name: str) -> None:
    assert len(name.encode()) <= 255
    with atomic_path(tmp_path / name) as temporary:
        temporary.write_bytes(b"1")
        assert temporary.parent == tmp_path and len(temporary.name.encode()) <= 255
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(beside(tmp_path / name, "lock").name.encode()) <= 255


def test_two_writers_of_one_process_have_files_of_their_own(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "x") as first, atomic_path(tmp_path / "x") as second:
        assert first != second
        first.write_bytes(b"1")
        second.write_bytes(b"2")
    assert (tmp_path / "x").read_bytes() == b"1"


def test_strays_of_killed_processes_alone_are_removed(tmp_path: Path) -> None:
    pid = os.fork() if hasattr(os, "fork") else pytest.skip("needs a process that has ended")
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    with atomic_path(tmp_path / "x.npy") as own:
        own.write_bytes(b"1")
        gone = own.with_name(own.name.replace(f"-{os.getpid()}-", f"-{pid}-"))
        gone.write_bytes(b"half")
        folder = gone.with_name(gone.name.removesuffix(".npy"))
        folder.mkdir()
        elsewhere = tmp_path / f".x.tmp-ffffff-{pid}-00000000.npy"
        elsewhere.write_bytes(b"of another computer")
        remove_strays(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {own.name, elsewhere.name}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process that is killed")
@pytest.mark.parametrize("name", ["x", "x.json", ".hidden", "x" * 200 + ".safetensors", "é" * 100])
def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path, name: str) -> None:
    """Also where nobody locks the folder: a command that is killed and given again leaves its file and no other."""

    def killed(write: Callable[[Path], Any]) -> None:
        pid = os.fork()
        if pid == 0:
            with write(tmp_path / name) as temporary:
                if not temporary.is_dir():
                    temporary.write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        assert list(tmp_path.glob(".*.tmp-*"))

    killed(atomic_path)
    write_atomic(tmp_path / name, "1")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    files._tidied.clear()  # as in a new process
    killed(atomic_folder)
    with atomic_folder(tmp_path / "folder"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {name, "folder"}


def test_damage_is_a_mistake_that_a_command_tells() -> None:
    assert issubclass(Damaged, UserError)
