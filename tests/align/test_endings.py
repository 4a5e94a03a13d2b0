"""What a terminal is shown, how a command ends, and where ``--out`` writes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from align.errors import UserError, one_line, printable, run_command
from align.files import (
    atomic_folder,
    atomic_path,
    locked,
    naming,
    read_tensors,
    save_tensors,
    write_atomic,
    write_json,
)
from recon.commands.info import describe
from recon.generation.conditioner import read_info

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and pipes of POSIX")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("a\rverified: yes", "a\\rverified: yes"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\x08\x08x", "abc\\x08\\x08x"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("a\u2028b", "a\\u2028b"),
        ("\x7f\x00", "\\x7f\\x00"),
        ("\ud800", "\\ud800"),
        ("café → ÷ 漢字 👩‍🔬\n\tx", "café → ÷ 漢字 👩‍🔬\n\tx"),
    ],
)
def test_control_characters_are_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def script(body: str, *, started: str = "", stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    text = (
        "import sys, time, signal\nfrom align.errors import run_command\nfrom align.files import atomic_path\n"
        # a suite in the background ignores these
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "if hasattr(signal, 'SIGHUP'):\n    signal.signal(signal.SIGHUP, signal.SIG_DFL)\n" + body
    )
    return subprocess.Popen([sys.executable, "-c", text], stdout=stdout, stderr=subprocess.PIPE, text=True)


def test_streams_escape_but_leave_progress_bars() -> None:
    body = "def work():\n  print('a\\x1b[2Jb\\r')\n  sys.stderr.write('\\r10%\\x1b[A\\x1b[2J')\n  return 0\n"
    out, said = script(body + "sys.exit(run_command('x', work))").communicate(timeout=60)
    assert out == "a\\x1b[2Jb\\r\n" and said == "\n10%\x1b[A\\x1b[2J"  # text mode reads \r as an end of line


@POSIX
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_signals_end_with_one_line_and_leave_nothing(number: int, code: int, tmp_path: Path) -> None:
    body = f"""
def work():
    with atomic_path({str(tmp_path / "x.json")!r}) as temporary:
        temporary.write_text('half')
        print('ready', flush=True)
        time.sleep(60)
sys.exit(run_command('recon x', work, go_on='go on'))"""
    process = script(body)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert said.count("\n") == 1 and said.endswith("; go on\n") and said.startswith("recon x: ")
    assert list(tmp_path.iterdir()) == []


@POSIX
def test_nohup_is_respected() -> None:
    body = (
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\ndef work():\n  signal.raise_signal(signal.SIGHUP)\n  return 0\n"
    )
    process = script(body + "sys.exit(run_command('x', work))")
    assert process.communicate(timeout=60)[1] == "" and process.returncode == 0


@POSIX
@pytest.mark.parametrize("count", [1, 100_000])
def test_a_closed_pipe_ends_quietly(count: int) -> None:
    read, write = os.pipe()
    os.close(read)
    process = script(f"def work():\n  print('x' * {count})\n  return 0\nsys.exit(run_command('x', work))", stdout=write)
    os.close(write)
    assert process.communicate(timeout=60)[1] == "" and process.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as raised:
        write_json("/dev/full", {})
    assert raised.value.filename == "/dev/full"
    with open("/dev/full", "w") as full:
        process = script("def work():\n  print(1)\n  return 0\nsys.exit(run_command('x', work))", stdout=full.fileno())
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert said == "x: 'standard output': No space left on device; make room or write elsewhere\n"


def test_errors_without_a_file_get_one(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    for error in (OSError(errno.ENOSPC, "No space left on device"), OSError("1000 requested and 3 written")):
        with pytest.raises(OSError) as raised, naming(path):
            raise error
        assert one_line(raised.value).startswith(f"{str(path)!r}: No space left on device")
    with pytest.raises(OSError) as raised, atomic_path(path) as temporary:
        raise PermissionError(errno.EACCES, "Permission denied", str(temporary))
    assert raised.value.filename == str(path)


def test_messages_are_one_short_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: BaseException) -> int:
        raise error

    for error in (UserError("a\nb " * 5000), MemoryError("Unable to allocate 7 TiB"), FileNotFoundError(2, "no", "f")):
        assert run_command("x", lambda error=error: fail(error)) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and len(said) < 3100
    with pytest.raises(UserError):
        run_command("x", lambda: fail(UserError("x")), debug=True)


@POSIX
def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in ("pipe", "link"):
        got: list[str] = []
        reader = threading.Thread(target=lambda got=got: got.append((tmp_path / "pipe").read_text()))
        reader.start()
        write_atomic(tmp_path / name, "content")
        reader.join(30)
        assert got == ["content"] and (tmp_path / "pipe").is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="needs /dev/stdout")
def test_standard_output_as_a_file(tmp_path: Path) -> None:
    body = "def work():\n  with atomic_path('/dev/stdout') as t: t.write_text('x')\n  print('y')\n  return 0\n"
    body += "sys.exit(run_command('x', work))"
    assert script(body).communicate(timeout=60)[0] == "xy\n"
    with (tmp_path / "f").open("w") as file:
        assert script(body, stdout=file.fileno()).communicate(timeout=60)[1] == ""
    assert "x" in (tmp_path / "f").read_text() and Path("/dev/stdout").is_symlink()


@POSIX
def test_a_link_to_a_file_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "report.json").symlink_to(tmp_path / "victim")
    write_atomic(tmp_path / "report.json", "new")
    assert (tmp_path / "victim").read_text() == "mine"


@pytest.mark.parametrize("name", [".", "", "folder"])
def test_a_folder_is_no_file_to_write(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        write_atomic(Path(name), "x")


@POSIX
def test_a_reader_that_leaves_a_pipe_ends_the_command_quietly(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    body = f"def work():\n  with atomic_path({str(tmp_path / 'pipe')!r}) as t: t.write_bytes(bytes(1 << 22))\n"
    process = script(body + "  return 0\nsys.exit(run_command('x', work))")
    with (tmp_path / "pipe").open("rb") as pipe:
        pipe.read(10)
    assert process.communicate(timeout=60)[1] == "" and process.returncode == 141


@POSIX
def test_a_full_disk_is_not_called_standard_output(tmp_path: Path) -> None:
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    limit += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    body = f"def work():\n  with open({str(tmp_path / 'x')!r}, 'wb') as f: f.write(bytes(5000))\n  return 0\n"
    process = script(limit + body + "sys.exit(run_command('x', work))")
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert said == "x: a file could not be written: File too large; make room or write elsewhere\n"
    body = f"def work():\n  with atomic_folder({str(tmp_path / 'y')!r}) as f:\n    (f / 'a').write_bytes(bytes(5000))\n"
    process = script(f"{limit}from align.files import atomic_folder\n{body}sys.exit(run_command('x', work))")
    said = process.communicate(timeout=60)[1]
    assert said == f"x: {str(tmp_path / 'y')!r}: File too large; make room or write elsewhere\n"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("inside", ["x", "deep/er/x"])
def test_a_file_where_a_folder_is_due_is_named(inside: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    writers = (write_atomic(tmp_path / "file" / inside, "x") for _ in "1"), enter(tmp_path / "file" / inside)
    for write in writers:
        with pytest.raises(UserError, match="file' is a file, no folder, and files are to be written into") as raised:
            list(write)
        assert "\n" not in str(raised.value)
    assert (tmp_path / "file").read_text() == "mine"


def enter(path: Path) -> Iterator[None]:
    with locked(path, "writing"), atomic_folder(path):
        yield


def test_what_somebody_else_made_meanwhile_stays(tmp_path: Path) -> None:
    made = {
        "file": lambda path: path.write_text("theirs"),
        "link": lambda path: path.symlink_to(tmp_path / "nowhere"),
        "folder": lambda path: (path.mkdir(), (path / "a").write_text("theirs")),
        "empty": lambda path: path.mkdir(),
    }
    for name, make in made.items():
        path = tmp_path / name
        with pytest.raises(UserError, match="is there already, made by somebody") as raised, atomic_folder(path) as new:
            (new / "a").write_text("ours")
            make(path)
        (kept,) = (found for found in tmp_path.iterdir() if found.name.startswith(f"{name}.new-"))
        assert str(kept) in str(raised.value) and (kept / "a").read_text() == "ours"
        assert os.path.lexists(path) and not (path.is_dir() and (path / "a").exists() and name == "empty")
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "a").read_text() == "theirs"
    with atomic_folder(tmp_path / "folder", replaces=lambda old: (old / "a").is_file()) as new:
        (new / "a").write_text("ours")
    assert (tmp_path / "folder" / "a").read_text() == "ours"
    assert not list(tmp_path.glob(".*.tmp-*"))


def test_a_file_that_may_not_be_read_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(2)})
    real = Path.open

    def refusing(self: Path, *args: object, **options: object) -> object:
        if self.suffix == ".safetensors":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return real(self, *args, **options)

    monkeypatch.setattr(Path, "open", refusing)
    for read in (read_tensors, read_info, describe):
        with pytest.raises(UserError, match="cannot be read: Permission denied"):
            read(tmp_path / "x.safetensors")
    monkeypatch.undo()
    with pytest.raises(UserError, match="does not exist"):
        read_tensors(tmp_path / "y.safetensors")
