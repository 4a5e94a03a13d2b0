"""What a terminal is shown, how a command ends, and where ``--out`` writes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from align.errors import UserError, one_line, printable, run_command
from align.files import atomic_path, naming, write_atomic, write_json

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
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n" + body  # a suite in the background ignores it
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
    assert process.returncode == 2 and said == "x: 'standard output': No space left on device\n"


def test_errors_without_a_file_get_one(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    for error in (OSError(errno.ENOSPC, "No space left on device"), OSError("1000 requested and 3 written")):
        with pytest.raises(OSError) as raised, naming(path):
            raise error
        assert one_line(raised.value).startswith(f"{str(path)!r}: ")
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
