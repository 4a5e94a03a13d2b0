"""One flipped bit in whatever we cache or store is noticed, as is a file of another name; caches are made again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
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
    read_made_for,
    read_tensors,
    remove_strays,
    save_tensors,
    strays,
    write_atomic,
    write_json,
    write_sealed,
)
from align.files.checksums import MADE_FOR, TRAILER, map_npy
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
    save_rows(tmp_path / "y.npy", ROWS.shape, ROWS)
    assert np.array_equal(np.load(tmp_path / "y.npy"), ROWS), "others read our files"
    assert np.array_equal(np.load(tmp_path / "y.npy", mmap_mode="r"), ROWS)


def test_a_cache_that_lost_its_checksum_or_has_another_s_name_is_made_again(tmp_path: Path) -> None:
    own, other = tmp_path / "own.npy", tmp_path / "other.npy"

    def make() -> None:
        save_rows(own, ROWS.shape, ROWS)

    def cut() -> None:
        make()
        os.truncate(own, own.stat().st_size - TRAILER)

    def swap() -> None:
        save_rows(other, ROWS.shape, ROWS + 1)
        other.replace(own)

    harms: list[tuple[Callable[[], object], str]] = [(lambda: np.save(own, ROWS), "no checksum")]  # before checksums
    for harm, said in [*harms, (cut, "no checksum"), (swap, "differ")]:
        harm()
        with pytest.raises(Damaged, match=said):
            map_npy(own)
        assert np.array_equal(made_once(own, lambda: map_npy(own), make, "rows"), ROWS)
    save_rows(own, ROWS.shape, ROWS, "a/own.npy")  # whose folder has the key
    assert np.array_equal(map_npy(own, "a/own.npy"), ROWS)
    with pytest.raises(Damaged):
        map_npy(own, "b/own.npy")
    save_tensors(tmp_path / "x.safetensors", VALUES, {MADE_FOR: "a"})
    assert read_made_for(tmp_path / "x.safetensors", "a").keys() == VALUES.keys()
    for told in ({MADE_FOR: "b"}, {}):
        save_tensors(tmp_path / "x.safetensors", VALUES, told)
        with pytest.raises(Damaged, match="does not say that it is"):
            read_made_for(tmp_path / "x.safetensors", "a")


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
        elsewhere = tmp_path / f".x.tmp-ffffffffff-{pid}-00000000.npy"
        elsewhere.write_bytes(b"of another computer or container, whose numbers mean nothing here")
        remove_strays(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {own.name, elsewhere.name}
        for age, stays in ((strays.ABANDONED - 60, True), (strays.ABANDONED + 60, False)):
            os.utime(elsewhere, (time.time() - age,) * 2)
            remove_strays(tmp_path)
            assert elsewhere.exists() == stays


def test_a_folder_of_another_system_is_as_old_as_the_newest_file_in_it(tmp_path: Path) -> None:
    folder = tmp_path / ".x.tmp-ffffffffff-1-00000000"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_bytes(b"1")
    long_ago = time.time() - 2 * strays.ABANDONED
    for path in (folder / "deep", folder):
        os.utime(path, (long_ago,) * 2)
    remove_strays(tmp_path)
    assert (folder / "deep" / "file").exists()
    os.utime(folder / "deep" / "file", (long_ago,) * 2)
    remove_strays(tmp_path)
    assert not folder.exists()


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_living_writer_of_another_container_keeps_its_file(tmp_path: Path) -> None:
    """There it has a number that nobody has here."""
    text = (
        "import os, sys\nfrom align.files import atomic_path\nused = sys.argv[2].split()\n"
        "while os.fork():\n"  # until a child has a number that is free outside
        "    if os.waitstatus_to_exitcode(os.wait()[1]) != 7:\n        sys.exit()\n"
        "if str(os.getpid()) in used:\n    os._exit(7)\n"
        "with atomic_path(sys.argv[1]) as part:\n    part.write_text('half')\n    print(part, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    used = " ".join(path.name for path in Path("/proc").iterdir() if path.name.isdigit())
    apart = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("no container may be made here")
    command = [*apart, sys.executable, "-c", text, str(tmp_path / "x"), used]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        part = Path(process.stdout.readline().strip())
        remove_strays(tmp_path)
        assert part.read_text() == "half"
        process.stdin.close()
        assert process.wait(60) == 0
    assert (tmp_path / "x").read_text() == "half"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process that is killed")
def test_nothing_of_safetensors_stays_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own temporary file, which version 0.8 makes beside the target, lies in a folder of ours."""

    def killed(tensors: object, path: Path, metadata: object) -> None:
        (Path(path).parent / ".tmpAbCdEf").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        monkeypatch.setattr("safetensors.torch.save_file", killed)
        save_tensors(tmp_path / "x.safetensors", VALUES)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert list(tmp_path.iterdir())
    save_tensors(tmp_path / "x.safetensors", VALUES)
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


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
    strays._tidied.clear()  # as in a new process
    killed(atomic_folder)
    with atomic_folder(tmp_path / "folder"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {name, "folder"}


def test_damage_is_a_mistake_that_a_command_tells() -> None:
    assert issubclass(Damaged, UserError)


def test_equal_content_is_equal_bytes(tmp_path: Path) -> None:
    """The library orders metadata as it likes, from one call to the next."""
    told = {f"name {i}": f'wört "{i}" \\ \n' for i in range(12)}
    files = [tmp_path / f"{i}.safetensors" for i in range(6)]
    for path in files:
        save_tensors(path, {"x": torch.arange(5.0), "b": torch.ones(3, 2)}, told)
    assert len({path.read_bytes() for path in files}) == 1
    tensors, found = read_tensors(files[0])
    assert {name: found[name] for name in told} == told and torch.equal(tensors["x"], torch.arange(5.0))
