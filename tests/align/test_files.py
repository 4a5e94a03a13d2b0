"""Locks between processes, and text that every terminal takes."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import pytest

from align.errors import UserError, print_anywhere
from align.files import locked

HOLDER = """
import sys
import filelock
from align.files import locked
if sys.argv[2] == "soft":
    filelock.FileLock = filelock.SoftFileLock
with locked(sys.argv[1], "drawing"):
    print("inside", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(lock: Path, kind: str = "native") -> Iterator[subprocess.Popen[str]]:
    """Another process is inside until it is killed."""
    command = [sys.executable, "-c", HOLDER, str(lock), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "inside\n"
            yield process
        finally:
            process.kill()


@pytest.fixture(params=["native", "soft"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Locks of the system, and those of a disk that has none."""
    if request.param == "soft":
        monkeypatch.setattr(filelock, "FileLock", filelock.SoftFileLock)
    return str(request.param)


def test_a_lock_keeps_others_out_and_dies_with_its_process(tmp_path: Path, kind: str) -> None:
    lock = tmp_path / "made" / ".lock"
    with held_elsewhere(lock, kind) as process:
        with pytest.raises(UserError, match="another process is drawing") as caught, locked(lock, "drawing"):
            pytest.fail("two processes are inside")
        assert str(lock) in str(caught.value) and "\n" not in str(caught.value)
        process.kill()
        process.wait()
        assert lock.exists()
        with locked(lock, "drawing", wait=60):
            pass


def test_waiting_is_said_once_and_ends_with_the_other_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    said = threading.Event()
    order: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.set()

    def wait() -> None:
        with locked(tmp_path / ".lock", "drawing", wait=None):
            order.append("inside")

    listener = Listener()
    logging.getLogger("align.files").addHandler(listener)
    try:
        with held_elsewhere(tmp_path / ".lock") as process:
            thread = threading.Thread(target=wait)
            thread.start()
            assert said.wait(60)
            order.append("let in")
            process.kill()
            process.wait()  # until then it is still listed as a process, which holds a soft lock
            thread.join()
    finally:
        logging.getLogger("align.files").removeHandler(listener)
    assert order == ["let in", "inside"]
    assert [record.message for record in caplog.records] == ["waiting: another process is drawing"]


def test_a_lock_is_taken_again_inside_and_the_last_one_out_removes_it(tmp_path: Path, kind: str) -> None:
    lock = tmp_path / ".lock"
    with locked(lock, "drawing", keep=False):
        with locked(lock, "drawing", keep=False):
            assert lock.exists()
        assert lock.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_cannot_be_made_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="is a file, no folder"), locked(tmp_path / "file" / ".lock", "drawing"):
        pass
    (tmp_path / ".lock").mkdir()
    said = f"cannot write into {str(tmp_path)!r}: .*; it needs the lock '.lock' there"
    with pytest.raises(UserError, match=said), locked(tmp_path / ".lock", "drawing"):
        pass


def test_no_terminal_refuses_a_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_out = io.BytesIO()
    stream = io.TextIOWrapper(bytes_out, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    print_anywhere()
    print("3 × 4 → 12 … ± 1, Ω", flush=True)
    assert bytes_out.getvalue().decode("ascii").strip() == "3 x 4 -> 12 ... +- 1, \\u03a9"


def test_the_working_folder_has_a_name_and_the_root_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from align.files.strays import beside

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert beside(Path("."), "lock") == tmp_path / ".here.lock"
    with pytest.raises(UserError, match="is the root of a file system"):
        beside(Path("/"), "lock")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders here")
def test_tensors_are_not_waited_for_at_a_pipe(tmp_path: Path) -> None:
    """In a process of its own, which would wait for ever."""
    os.mkfifo(tmp_path / "x.safetensors")
    code = "import sys; from align.files import read_tensors; read_tensors(sys.argv[1])"
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.safetensors")], capture_output=True, text=True, timeout=60
    )
    assert "is no file" in found.stderr
