"""Downloads: every fault of a network and a disk, the list of what is published, the command."""

from __future__ import annotations

import argparse
import errno
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from align.config import Config, load_config
from align.data.download import command, part, records, sources
from align.data.download.part import RESERVE, hash_file, human
from align.data.download.sources import File, Page, Variant, catalogue, plan
from align.data.download.transfer import Patience, fetch
from align.data.studies import STUDIES, open_study
from align.data.studies.base import Study
from align.files import read_json
from recon import cli
from tests.align import fixture_nsd
from tests.align import fixture_things as things
from tests.align.fixture_http import Served, Server, serving, through
from tests.align.fixture_locked_zip import write_locked
from tests.conftest import PROJECT, shared_path
from tests.one_line import fails

URL = "http://data.example/files/signals.npy"
PATH = "/files/signals.npy"
BODY = np.random.default_rng(0).bytes(300_001)
SHA256 = hashlib.sha256(BODY).hexdigest()
HASTY = Patience(attempts=3, timeout=5.0, wait=0.001)


@pytest.fixture(autouse=True)
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk on which the declared sizes of the published archives fit, whatever this machine has left."""
    disk(monkeypatch, 1 << 40)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that every connection of this process ends at."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "socket") as running:
        connect = through(Path(folder) / "socket")
        monkeypatch.setattr(http.client.HTTPConnection, "connect", connect)
        monkeypatch.setattr(http.client.HTTPSConnection, "connect", connect)
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "data" / "signals.npy"


def get(target: Path, sha256: str | None = None, url: str = URL, patience: Patience = HASTY) -> Any:
    return fetch(url, target, sha256, patience)


def part_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def alone(target: Path) -> bool:
    """The file is there, and nothing but it."""
    return [path.name for path in target.parent.iterdir()] == [target.name]


def broken_off(server: Server, target: Path, at: int = 100_000, **served: Any) -> None:
    """Leave a part of ``at`` bytes behind."""
    server.files[PATH] = Served(BODY, cut=[at, 0, 0, 0], **served)
    fails("broke off", lambda: get(target))
    server.files[PATH] = Served(BODY, **served)
    server.asked.clear()


# -- one file


def test_a_file_arrives_whole_under_its_name(server: Server, target: Path) -> None:
    server.files[PATH] = Served(BODY)
    fetched = get(target, SHA256)
    assert target.read_bytes() == BODY and alone(target)
    assert (fetched.size, fetched.sha256, fetched.kept) == (len(BODY), SHA256, 0)
    assert server.asked[0][1]["accept-encoding"] == "identity"


def test_an_empty_file_arrives(server: Server, target: Path) -> None:
    server.files[PATH] = Served(b"")
    assert get(target).size == 0 and target.read_bytes() == b""


def test_cut_connections_are_taken_up_where_they_broke(server: Server, target: Path) -> None:
    server.files[PATH] = Served(BODY, cut=[1, 70_000, 0, 16_384])
    get(target)
    assert target.read_bytes() == BODY and alone(target)
    assert server.ranges_asked == [None, "bytes=1-", "bytes=70001-", "bytes=70001-", "bytes=86385-"]
    assert server.asked[1][1]["if-range"] == '"v1"'


def test_new_bytes_renew_the_patience(server: Server, target: Path) -> None:
    server.files[PATH] = Served(BODY, cut=[20_000] * 14)  # 15 requests, 3 attempts allowed
    get(target)
    assert target.read_bytes() == BODY


def test_without_new_bytes_it_ends_and_a_later_call_goes_on(server: Server, target: Path) -> None:
    server.files[PATH] = Served(BODY, cut=[100_000, 0, 0, 0])
    text = fails("broke off", lambda: get(target))
    assert "3 attempts" in text and "100 kB are kept" in text and not target.exists()
    assert part_of(target).read_bytes() == BODY[:100_000]
    server.files[PATH] = Served(BODY)
    assert get(target).kept == 100_000
    assert target.read_bytes() == BODY and alone(target)
    assert server.ranges_asked[-1] == "bytes=100000-"


def test_a_server_without_ranges_that_starts_again_and_again_is_given_up(server: Server, target: Path) -> None:
    server.files[PATH] = Served(BODY, ranges=False, cut=[50_000] * 9)
    fails("3 attempts", lambda: get(target))
    assert len(server.asked) == 4  # the first one brought bytes


def test_chunks_that_end_too_early_are_fetched_again(server: Server, target: Path) -> None:
    server.files[PATH] = Served(BODY, chunked=True, cut=[100_000])
    get(target)
    assert target.read_bytes() == BODY and server.ranges_asked == [None, "bytes=100000-"]


def test_silence_ends_an_attempt(server: Server, target: Path) -> None:
    over = threading.Event()

    def wait(sent: int) -> None:
        if sent > 50_000 and len(server.asked) == 1:
            over.wait()  # the first answer stays silent until the file is there

    server.files[PATH] = Served(BODY, wait=wait)
    try:
        get(target, patience=Patience(attempts=100, timeout=0.2, wait=0.001))
    finally:
        over.set()
    assert target.read_bytes() == BODY
    first, *others = server.ranges_asked  # one other, more where the machine is so busy that it too stays silent
    assert first is None and others and all(others)


def test_a_server_that_never_answers_is_given_up(server: Server, target: Path) -> None:
    over = threading.Event()
    server.files[PATH] = Served(BODY, wait=lambda sent: over.wait())
    try:
        fails("timed out", lambda: get(target, patience=Patience(attempts=2, timeout=0.05, wait=0.001)))
    finally:
        over.set()
    assert len(server.asked) <= 2


def test_a_wrong_checksum_leaves_nothing_behind(server: Server, target: Path) -> None:
    server.files[PATH] = Served(BODY[:-1] + b"!")
    text = fails("expected", lambda: get(target, SHA256))
    assert SHA256 in text and list(target.parent.iterdir()) == []
    server.files[PATH] = Served(BODY)
    assert get(target, SHA256.upper()).size == len(BODY)


def test_bytes_that_rot_between_two_calls_are_seen_by_the_checksum(server: Server, target: Path) -> None:
    broken_off(server, target)
    with part_of(target).open("r+b") as file:
        file.write(b"?")
    fails("expected", lambda: get(target, SHA256))
    get(target, SHA256)
    assert target.read_bytes() == BODY


def test_a_length_that_promises_too_much_is_given_up(server: Server, target: Path) -> None:
    server.files[PATH] = Served(BODY, length=len(BODY) + 7, ranges=False)
    fails(f"{len(BODY)} of {len(BODY) + 7}", lambda: get(target))
    assert not target.exists()


def test_a_length_that_promises_too_little_is_seen_by_the_checksum(server: Server, target: Path) -> None:
    server.files[PATH] = Served(BODY, length=len(BODY) - 7)
    fails("expected", lambda: get(target, SHA256))
    assert not target.exists()


# -- a file that is another one by now


def test_a_server_without_ranges_sends_it_all_again(server: Server, target: Path) -> None:
    broken_off(server, target, ranges=False)
    assert get(target).kept == 0
    assert target.read_bytes() == BODY and alone(target)


@pytest.mark.parametrize("heeds", [True, False], ids=["If-Range heeded", "If-Range ignored"])
@pytest.mark.parametrize("longer", [0, 5])
def test_a_file_changed_between_two_calls_is_not_mixed(server: Server, target: Path, heeds: bool, longer: int) -> None:
    broken_off(server, target)
    other = np.random.default_rng(1).bytes(len(BODY) + longer)
    server.files[PATH] = Served(other, etag='"v2"', heeds_if_range=heeds)
    assert get(target).kept == 0
    assert target.read_bytes() == other and alone(target)


def test_a_file_of_another_length_is_not_mixed_either(server: Server, target: Path) -> None:
    broken_off(server, target)
    other = np.random.default_rng(1).bytes(len(BODY) + 5)
    server.files[PATH] = Served(other, etag=None, heeds_if_range=False)
    assert get(target).kept == 0
    assert target.read_bytes() == other


def test_a_file_that_became_shorter_than_the_part(server: Server, target: Path) -> None:
    broken_off(server, target)
    server.files[PATH] = Served(BODY[:50_000], heeds_if_range=False)
    get(target)
    assert target.read_bytes() == BODY[:50_000]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_validator_only_a_checksum_allows_to_resume(server: Server, target: Path, etag: str | None) -> None:
    broken_off(server, target, etag=etag)
    get(target)
    assert server.ranges_asked == [None] and target.read_bytes() == BODY
    target.unlink()
    broken_off(server, target, etag=etag)
    assert get(target, SHA256).kept == 100_000
    assert server.ranges_asked == ["bytes=100000-"] and target.read_bytes() == BODY


def test_the_date_of_the_last_change_does_where_there_is_no_etag(server: Server, target: Path) -> None:
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    broken_off(server, target, etag=None, headers={"Last-Modified": date}, heeds_if_range=False)
    assert get(target).kept == 100_000
    assert server.asked[0][1]["if-range"] == date and target.read_bytes() == BODY


def test_a_part_of_another_address_is_dropped(server: Server, target: Path) -> None:
    broken_off(server, target)
    server.files["/other.npy"] = Served(BODY[::-1])
    assert get(target, url="http://data.example/other.npy").kept == 0
    assert target.read_bytes() == BODY[::-1]


@pytest.mark.parametrize("note", [None, "[]", "{", '{"url": 3}'])
def test_a_part_without_a_sound_note_is_dropped(server: Server, target: Path, note: str | None) -> None:
    broken_off(server, target)
    beside = target.with_name(f"{target.name}.part.json")
    beside.unlink() if note is None else beside.write_text(note)
    assert get(target, SHA256).kept == 0
    assert target.read_bytes() == BODY


def test_a_rest_that_begins_elsewhere_is_refused(server: Server, target: Path) -> None:
    broken_off(server, target)
    server.files[PATH] = Served(BODY, content_range=f"bytes 99999-300000/{len(BODY)}")
    get(target)
    assert target.read_bytes() == BODY and server.ranges_asked == ["bytes=100000-", None]


# -- answers that are not the file


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_a_refusal_is_one_line_at_once(server: Server, target: Path, status: int) -> None:
    server.files[PATH] = Served(BODY, status=[status])
    text = fails(str(status), lambda: get(target))
    assert "data.example" in text and len(server.asked) == 1 and not target.exists()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server: Server, target: Path, status: int) -> None:
    server.files[PATH] = Served(BODY, status=[status, status])
    get(target)
    assert target.read_bytes() == BODY and len(server.asked) == 3
    server.files[PATH] = Served(BODY, status=[status] * 9)
    target.unlink()
    fails(f"busy or broken .{status}", lambda: get(target))


def test_a_web_page_is_not_the_file(server: Server, target: Path) -> None:
    server.files[PATH] = Served(b"<html>Please log in", headers={"Content-Type": "text/html; charset=utf-8"})
    fails("web page", lambda: get(target))
    assert not target.exists()


def test_a_packed_answer_is_not_the_file(server: Server, target: Path) -> None:
    server.files[PATH] = Served(BODY, headers={"Content-Encoding": "gzip"})
    fails("packed", lambda: get(target))


def test_redirections_are_followed_with_their_range(server: Server, target: Path) -> None:
    broken_off(server, target)
    server.files["/store"] = server.files[PATH]
    server.files[PATH] = Served(b"", redirect="https://store.example/store?signature=1")
    assert get(target).kept == 100_000
    assert target.read_bytes() == BODY and server.asked[-1] == ("/store", server.asked[-1][1])
    assert server.ranges_asked == ["bytes=100000-"] * 2


@pytest.mark.parametrize("place", ["file:///etc/hostname", "ftp://data.example/x", "gopher://data.example/x"])
def test_redirections_leave_http_for_nothing(server: Server, target: Path, place: str) -> None:
    server.files[PATH] = Served(b"", redirect=place)
    fails("refused|not allowed", lambda: get(target))
    assert not target.exists()


def test_redirections_from_https_to_http_are_refused(server: Server, target: Path) -> None:
    server.files[PATH] = Served(b"", redirect="http://data.example/plain")
    server.files["/plain"] = Served(BODY)
    fails("only https is followed", lambda: get(target, url=URL.replace("http:", "https:")))
    assert get(target, url=URL).size == len(BODY)  # from http it may stay


def test_endless_redirections_end(server: Server, target: Path) -> None:
    server.files[PATH] = Served(b"", redirect=URL)
    fails("refused", lambda: get(target))


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://a/b", "data:,x", "/etc/hostname", "s3://openneuro.org/x"]
)
def test_other_addresses_are_refused(target: Path, url: str) -> None:
    fails("not an http or https address", lambda: get(target, url=url))
    assert not target.parent.exists()


# -- the disk, and other processes


def test_a_full_disk_keeps_what_arrived(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files[PATH] = Served(BODY)

    def write(file: io.FileIO, piece: bytes) -> None:
        room = 120_000 - os.fstat(file.fileno()).st_size
        file.write(piece[:room])
        if len(piece) > room:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(part, "write", write)
        text = fails("is full", lambda: get(target))
    assert "120 kB are kept" in text and "180 kB are missing" in text and not target.exists()
    assert part_of(target).read_bytes() == BODY[:120_000]
    assert get(target).kept == 120_000
    assert target.read_bytes() == BODY and server.ranges_asked == [None, "bytes=120000-"]


def test_a_short_write_is_continued(tmp_path: Path) -> None:
    class Slow(io.FileIO):
        def write(self, piece: Any) -> int:
            return super().write(piece[:7])

    with Slow(tmp_path / "x", "w") as file:
        part.write(file, BODY[:1000])
    assert (tmp_path / "x").read_bytes() == BODY[:1000]


def test_too_small_a_disk_is_seen_before_the_first_byte(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files[PATH] = Served(BODY)
    disk(monkeypatch, RESERVE + len(BODY) - 1)
    fails("needs 300 kB more, its disk has", lambda: get(target))
    assert part_of(target).stat().st_size == 0
    disk(monkeypatch, RESERVE + len(BODY))
    assert get(target).size == len(BODY)


def test_only_the_rest_needs_room(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_off(server, target)
    disk(monkeypatch, RESERVE + len(BODY) - 100_000)
    assert get(target).kept == 100_000


def disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free, 0, free))


def test_a_killed_process_is_continued(server: Server, target: Path, tmp_path: Path) -> None:
    go_on = threading.Event()
    held = 2_000_000  # bytes after which the server waits until the client is dead

    def wait(sent: int) -> None:
        if sent >= held and len(server.asked) == 1:
            go_on.wait()

    body = BODY * 12
    server.files[PATH] = Served(body, wait=wait)
    script = f"""
        import http.client
        from pathlib import Path
        from align.data.download.transfer import fetch
        from tests.align.fixture_http import through
        http.client.HTTPConnection.connect = through(Path({str(server.server_address)!r}))
        fetch({URL!r}, Path({str(target)!r}))
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    try:
        while not (part_of(target).exists() and part_of(target).stat().st_size >= held - 1):
            assert child.poll() is None
            time.sleep(0.01)
        fails("another process", lambda: get(target))
        child.kill()
        assert child.wait() != 0
    finally:
        child.kill()
        go_on.set()
    kept = part_of(target).stat().st_size
    assert 0 < kept < len(body) and not target.exists()
    assert get(target, hashlib.sha256(body).hexdigest()).kept == kept
    assert target.read_bytes() == body and alone(target)
    assert server.ranges_asked == [None, f"bytes={kept}-"]


def test_a_process_killed_before_the_rename_asks_for_nothing_more(server: Server, target: Path) -> None:
    broken_off(server, target)
    with part_of(target).open("ab") as file:
        file.write(BODY[100_000:])
    assert get(target, SHA256).kept == len(BODY)
    assert server.asked == [] and target.read_bytes() == BODY


@pytest.mark.network
def test_loopback_without_a_stand_in(tmp_path: Path) -> None:
    """A server of the standard library on 127.0.0.1, in a process that may use the network."""
    script = f"""
        import http.server, threading
        from functools import partial
        from pathlib import Path
        from align.data.download.transfer import fetch
        folder = Path({str(tmp_path)!r})
        (folder / "a.bin").write_bytes(b"x" * 3_000_000)
        handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            print(fetch(f"http://127.0.0.1:{{server.server_port}}/a.bin", folder / "b.bin").sha256)
            server.shutdown()
    """
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [hash_file(tmp_path / "a.bin")]
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()


# -- what is published

EVERY = [(study, variant) for study, variants in catalogue().items() for variant in variants]


@pytest.mark.parametrize(("study", "variant"), EVERY)
def test_every_plan_is_sound(study: str, variant: str) -> None:
    found = plan(study, variant)
    assert study in STUDIES and found.licence and (found.files or found.pages)
    targets = [file.target for file in found.files]
    assert len(set(targets)) == len(targets)
    hosts = {"huggingface.co", "s3.amazonaws.com", "osf.io", "raw.githubusercontent.com"}
    hosts |= {"files.osf.io", "files.de-1.osf.io"}
    for file in found.files:
        parts = urlsplit(file.url)
        assert parts.scheme == "https" and parts.netloc in hosts and parts.query in ("", "zip=")
        assert not Path(file.target).is_absolute() and ".." not in Path(file.target).parts
        assert file.size is None or file.size > 0
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert (file.unpack is not None) == (file.target.endswith(".zip") and study != "cowley2023_v4")
        assert (file.key is None) == (not file.terms)
    assert all(urlsplit(page.url).scheme == "https" and page.what and page.expects for page in found.pages)
    one = plan(study, variant, [found.subjects[0]])
    assert one.subjects == found.subjects[:1] and set(one.files) <= set(found.files)


def test_every_variant_a_study_reads_is_listed() -> None:
    from align.data.studies import nsd
    from align.data.studies.things import eeg2, meg

    assert set(catalogue()["things_eeg2"]) == set(eeg2.LAYOUTS)
    assert set(catalogue()["things_meg"]) == {*meg.LAYOUTS, meg.OPENNEURO}
    assert tuple(catalogue()["nsd"]) == (*nsd.VARIANTS, *nsd.LAYOUTS)


def test_sizes_of_nsd_are_those_the_host_shows() -> None:
    shown = {"01": 1.89, "02": 1.71, "03": 1.46, "04": 1.18, "05": 1.56, "06": 1.72, "07": 1.52, "08": 1.29}  # GB
    for file in plan("nsd").files:
        if file.target.startswith("betas"):
            assert file.size is not None and round(file.size / 1e9, 2) == shown[file.target[14:16]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("things_eeg",), "did you mean 'things_eeg2'"),
        (("folder",), "Known: things_eeg2"),
        (("things_eeg2", "nicer"), "did you mean 'nice'"),
        (("nsd", None, ["1"]), "Known: 01, 02"),
        (("cowley2023_v4", None, ["2103255"]), "did you mean '210325'"),
    ],
)
def test_unknown_names_get_the_nearest(arguments: tuple[Any, ...], words: str) -> None:
    fails(words, lambda: plan(*arguments))


def test_a_mirror_of_hugging_face_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    urls = [file.url for file in plan("nsd", "1-hour", ["01"]).files]
    assert all(url.startswith("https://mirror.example/datasets/pscotti/") and "/resolve/main/" in url for url in urls)


# -- the command


def download(*words: str, as_json: bool = False) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(words, argparse.Namespace(json=as_json)))


def publish(server: Server, wanted: sources.Plan, folder: Path) -> None:
    """Serve the files of a plan out of a study's folder; archives are made of the folders they hold."""
    for file in wanted.files:
        path = folder / file.target
        if file.unpack is not None:
            shutil.make_archive(str(path.with_suffix("")), "zip", folder, file.unpack)
        server.files[urlsplit(file.url).path] = Served(path.read_bytes())


def opened(name: str, root: Path, *pairs: str) -> Study:
    return open_study(load_config(Config, None, [f"study.name={name}", f"study.root={root}", *pairs]))


@pytest.fixture
def toy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A study "toy" of two subjects: one file with a published checksum, one without, one page."""
    pages = (Page("https://page.example", "the pictures", "**/pictures"),)
    variant = Variant(
        ("01", "02"),
        "Only for the tests.",
        shared=(File("https://data.example/known", "known.npy", len(BODY), SHA256),),
        own=lambda s: [File(f"https://data.example/{s}", f"sub-{s}/new.npy", None)],
        pages=pages,
    )
    monkeypatch.setattr(sources, "catalogue", lambda: {"toy": {"only": variant}})
    server.files = {"/known": Served(BODY), "/01": Served(b"one"), "/02": Served(b"two")}
    return server


def test_a_dry_run_tells_and_does_nothing(toy: Server, tmp_path: Path) -> None:
    root = tmp_path / "new" / "toy"
    result = download("toy", "--root", str(root), "--dry-run", "--subjects", "01")
    assert toy.asked == [] and list(tmp_path.iterdir()) == [] and result["exit_code"] == 0
    assert (result["bytes_missing"], result["of_unknown_size"]) == (len(BODY), 1)
    for words in (
        "300 kB",
        "Only for the tests.",
        "https://data.example/01",
        "https://page.example",
        "free:",
        "1 of 2",
    ):
        assert words in result["text"]
    assert f"afterwards: recon data check toy --root {root} 'subjects=[01]'" in result["text"]
    assert human(result["bytes_free"])[-2:] == "GB"


def test_a_dry_run_of_several_subjects_has_subtotals(toy: Server, tmp_path: Path) -> None:
    words = ("toy", "--root", str(tmp_path), "--dry-run")
    one, all_of_them = download(*words, "--subjects", "01"), download(*words)
    assert "to fetch, of these:" not in one["text"] and "to fetch, of these:" in all_of_them["text"]
    parts = all_of_them["subtotals"]
    assert list(parts) == ["01", "02", "share"]
    assert parts["share"] == {"bytes": len(BODY), "bytes_missing": len(BODY), "of_unknown_size": 0}
    assert parts["02"] == {"bytes": 0, "bytes_missing": 0, "of_unknown_size": 1}
    for key in ("bytes_missing", "of_unknown_size"):
        assert sum(part[key] for part in parts.values()) == all_of_them[key]
    assert "300 kB  shared by all subjects" in all_of_them["text"] and "subject 02 and 1 of" in all_of_them["text"]


@pytest.mark.parametrize("study", ["things_eeg2", "things_meg", "nsd", "cowley2023_v4"])
def test_subtotals_add_up(study: str, tmp_path: Path) -> None:
    for variant in sources.catalogue()[study]:
        result = download(study, "--variant", variant, "--root", str(tmp_path), "--dry-run")
        assert sum(part["bytes"] for part in result["subtotals"].values()) == result["bytes_missing"]
        assert len(result["subtotals"]) == len(result["subjects"]) + 1


def test_a_dry_run_of_nsd_says_what_its_signals_take(tmp_path: Path) -> None:
    words = ("nsd", "--root", str(tmp_path), "--dry-run", "--subjects", "01", "08")
    first, second = download(*words)["in_use"]
    assert first.startswith("subject 01: 27,000 training trials x 15,724 voxels 1.70 GB on disk, 3,000 test trials")
    assert second.startswith("subject 08: 20,312 training trials x 14,386 voxels 1.17 GB on disk")
    (hour, _) = download(*words, "--variant", "1-hour")["in_use"]
    assert hour.startswith("subject 01: 750 training trials x 15,724 voxels 0.05 GB in memory")
    assert "0.19 GB in memory" in first and "when used" in download(*words)["text"]


def test_a_study_is_fetched_once(toy: Server, tmp_path: Path) -> None:
    words = ("toy", "--root", str(tmp_path), "--yes")
    first = download(*words)
    assert [(tmp_path / f"sub-{s}/new.npy").read_bytes() for s in ("01", "02")] == [b"one", b"two"]
    assert first["exit_code"] == 2 and "https://page.example" in first["text"]  # the pictures are still to be fetched
    kept = read_json(tmp_path / "checksums.json")["files"]
    assert kept["known.npy"]["published"] and not kept["sub-01/new.npy"]["published"]
    assert kept["sub-02/new.npy"]["sha256"] == hashlib.sha256(b"two").hexdigest()
    (tmp_path / "pictures").mkdir()
    toy.asked.clear()
    second = download(*words)
    assert toy.asked == [] and second["exit_code"] == 0 and second["by_hand"] == []
    assert {file["state"] for file in second["files"]} == {"there"}


def test_subjects_are_lists_with_commas_or_blanks(toy: Server, tmp_path: Path) -> None:
    for words in (["01,02"], ["01", "02"], ["01", "02", "01"]):
        assert download("toy", "--root", str(tmp_path), "--dry-run", "--subjects", *words)["subjects"] == ["01", "02"]


def test_a_file_changed_after_its_download_is_seen(toy: Server, tmp_path: Path) -> None:
    words = ("toy", "--root", str(tmp_path), "--yes")
    download(*words)
    own = tmp_path / "sub-01/new.npy"
    own.touch()
    download(*words)  # another date, the same content
    own.write_bytes(b"eno")
    os.utime(own, ns=(1, 1))
    fails("its first download had", lambda: download(*words))
    own.write_bytes(b"one")
    (tmp_path / "known.npy").write_bytes(BODY[:-1])
    fails("its publisher states", lambda: download(*words))


def test_a_second_download_is_compared_with_the_first(toy: Server, tmp_path: Path) -> None:
    words = ("toy", "--root", str(tmp_path), "--yes")
    download(*words)
    (tmp_path / "sub-01/new.npy").unlink()
    toy.files["/01"] = Served(b"another")
    fails("changed at its source", lambda: download(*words))
    assert not (tmp_path / "sub-01/new.npy").exists()


def test_a_file_put_there_by_hand_is_taken_and_remembered(toy: Server, tmp_path: Path) -> None:
    (tmp_path / "sub-01").mkdir()
    (tmp_path / "sub-01/new.npy").write_bytes(b"by hand")
    download("toy", "--root", str(tmp_path), "--yes")
    assert toy.times_asked == {"/known": 1, "/02": 1}
    kept = read_json(tmp_path / "checksums.json")["files"]
    assert kept["sub-01/new.npy"]["sha256"] == hashlib.sha256(b"by hand").hexdigest()


@pytest.mark.parametrize("content", ["[]", '{"files": 3}', '{"files": {"a": 1}}', "{"])
def test_a_broken_list_of_checksums_is_one_line(toy: Server, tmp_path: Path, content: str) -> None:
    (tmp_path / "checksums.json").write_text(content)
    fails("checksums", lambda: download("toy", "--root", str(tmp_path), "--yes"))


def test_the_licence_must_be_accepted(
    toy: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stdin in (io.StringIO("y\n"), Terminal("\n"), Terminal("no\n"), None):
        monkeypatch.setattr(sys, "stdin", stdin)
        fails("not accepted, nothing was fetched; pass --yes", lambda: download("toy", "--root", str(tmp_path)))
        printed = capsys.readouterr()
        assert "Only for the tests." in printed.err and printed.out == ""
    assert toy.asked == []
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    download("toy", "--root", str(tmp_path))
    assert toy.times_asked == {"/known": 1, "/01": 1, "/02": 1}


def test_the_sum_must_fit_on_the_disk(toy: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch, RESERVE + len(BODY) - 1)
    fails("needs 300 kB more", lambda: download("toy", "--root", str(tmp_path), "--yes"))
    assert toy.asked == []


def test_json_holds_no_text_but_the_same_facts(toy: Server, tmp_path: Path) -> None:
    result = download("toy", "--root", str(tmp_path), "--yes", as_json=True)
    assert next(file["sha256"] for file in result["files"]) == SHA256
    assert all(file["sha256"] and file["state"] == "fetched" for file in result["files"])


def test_the_command_line(toy: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "download", "toy", "--root", str(tmp_path)]
    assert cli.main([*words, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][0]["state"] == "missing"
    assert cli.main([*words, "--subjects", "03", "--yes"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and "Known: 01, 02" in printed.err
    (tmp_path / "pictures").mkdir()
    assert cli.main([*words, "--yes"]) == 0
    assert "now: recon data check toy" in capsys.readouterr().out
    toy.files["/known"] = Served(BODY, status=[403])
    (tmp_path / "known.npy").unlink()
    assert cli.main([*words, "--yes"]) == 2
    assert "refuses the file (403)" in capsys.readouterr().err.splitlines()[-1]


def test_things_eeg2_is_readable_as_it_was_fetched(server: Server, tmp_path: Path) -> None:
    origin, root = tmp_path / "origin", tmp_path / "root"
    recorded = things.epochs()
    things.write_nice(origin, recorded)
    things.write_pictures(origin)
    wanted = plan("things_eeg2", "nice", ["01"])
    publish(server, wanted, origin)
    result = download("things_eeg2", "--root", str(root), "--subjects", "01", "--yes")
    assert result["exit_code"] == 0 and result["by_hand"] == []
    study = opened("things_eeg2", root, "study.variant=nice", f"cache_dir={tmp_path / 'cache'}")
    expected = recorded.train[..., things.BEFORE :]
    np.testing.assert_array_equal(study.read("01").train.x.reshape(expected.shape), expected)
    assert not list(root.glob("*.zip")) and "image_metadata" in " ".join(study.read("01").log)
    server.asked.clear()
    download("things_eeg2", "--root", str(root), "--subjects", "01", "--yes")
    assert server.asked == []


@pytest.mark.parametrize("inside", [True, False], ids=["folder in the archive", "no folder in the archive"])
def test_pictures_land_in_their_folder(tmp_path: Path, inside: bool) -> None:
    (tmp_path / "in/training_images/00001_a").mkdir(parents=True)
    (tmp_path / "in/training_images/00001_a/a_01.jpg").write_bytes(b"jpg")
    (tmp_path / "in/__MACOSX").mkdir()
    (tmp_path / "in/__MACOSX/x").write_bytes(b"x")
    shutil.make_archive(str(tmp_path / "p"), "zip", tmp_path / ("in" if inside else "in/training_images"))
    records.unpack(tmp_path / "p.zip", tmp_path / "out", "training_images")
    files = [str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files == ["training_images/00001_a/a_01.jpg"]


def test_an_interrupted_unpacking_is_done_again(server: Server, tmp_path: Path) -> None:
    origin, root = tmp_path / "origin", tmp_path / "root"
    things.write_nice(origin, things.epochs())
    things.write_pictures(origin)
    publish(server, plan("things_eeg2", "nice", ["01"]), origin)
    root.mkdir()
    shutil.copy(origin / "training_images.zip", root)
    (root / "training_images/00001_half").mkdir(parents=True)
    download("things_eeg2", "--root", str(root), "--subjects", "01", "--yes")
    pictures = {path.name for path in (origin / "training_images").rglob("*.jpg")}
    assert pictures == {path.name for path in (root / "training_images").rglob("*.jpg")}
    assert "/download/3v527/" not in server.times_asked and not (root / "training_images.zip").exists()


def test_an_archive_left_by_a_killed_download_is_compared_and_remembered(tmp_path: Path) -> None:
    (tmp_path / "in" / "pictures").mkdir(parents=True)
    (tmp_path / "in" / "pictures" / "a.jpg").write_bytes(BODY)
    archive, root = Path(shutil.make_archive(str(tmp_path / "p"), "zip", tmp_path / "in")), tmp_path / "root"
    for sha256, right in (("0" * 64, False), (hash_file(archive), True)):
        root.mkdir(exist_ok=True)
        shutil.copy(archive, root)
        known, file = records.Records(root), File("https://data.example/p", "p.zip", None, sha256, unpack="pictures")
        if right:
            known.get(file)
            assert known.entries["p.zip"]["sha256"] == sha256 and (root / "pictures" / "a.jpg").is_file()
        else:
            fails("its publisher states", partial(known.get, file))
            assert not (root / "pictures").exists()


def test_what_a_killed_download_left_beside_a_whole_file_goes(toy: Server, tmp_path: Path) -> None:
    download("toy", "--root", str(tmp_path), "--subjects", "01", "--yes")
    kept = sorted(path.name for path in tmp_path.rglob("*"))
    for name in (".known.npy.lock", "known.npy.part.json", "known.npy.part.lock", ".checksums.json.lock"):
        (tmp_path / name).write_text("{}")
    download("toy", "--root", str(tmp_path), "--subjects", "01", "--yes")
    assert sorted(path.name for path in tmp_path.rglob("*")) == kept


def test_nsd_is_readable_as_it_was_fetched(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PUBLISHED", {})  # the stand-ins are not the published files
    subject = fixture_nsd.SUBJECT
    origin = fixture_nsd.write_nsd(tmp_path / "origin", {0: fixture_nsd.training_trials()})
    np.save(origin / "COCO_73k_annots_curated.npy", np.full(73_000, "a giraffe"))
    disk(monkeypatch, 1 << 40)
    publish(server, plan("nsd", "1-hour", [subject]), origin)
    result = download("nsd", "--variant", "1-hour", "--subjects", subject, "--root", str(tmp_path / "root"), "--yes")
    assert result["exit_code"] == 0 and "study.variant=1-hour" in result["next"]
    here, there = (
        opened("nsd", root, "study.variant=1-hour", f"cache_dir={tmp_path / 'cache'}").read(subject)
        for root in (origin, tmp_path / "root")
    )
    np.testing.assert_array_equal(here.train.x, there.train.x)
    assert here.stimuli.concepts == there.stimuli.concepts and here.log == there.log


def test_the_averaged_copy_of_nsd_is_readable_as_it_was_fetched(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MindEye1's tars, one sample each; a file that the host lacks is named."""
    monkeypatch.setattr(sources, "PUBLISHED", {})
    origin, made = tmp_path / "origin", tmp_path / "made"
    origin.mkdir()
    np.save(origin / "COCO_73k_annots_curated.npy", np.full(73_000, "a giraffe"))
    wanted = plan("nsd", "averaged", ["05"])
    tars = [file for file in wanted.files if file.target.endswith(".tar")]
    assert len(tars) == 21 and tars[-1].target == "webdataset_avg_split/test/test_subj05_1.tar"
    for coco, file in enumerate(tars):
        made.mkdir(exist_ok=True)
        np.save(made / "sample.nsdgeneral.npy", np.random.default_rng(coco).normal(size=(3, 6)))
        np.save(made / "sample.coco73k.npy", np.array([coco]))
        Image.fromarray(np.random.default_rng(coco).integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(
            made / "sample.jpg"
        )
        (origin / file.target).parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(origin / file.target, "w", format=tarfile.USTAR_FORMAT) as archive:
            for path in sorted(made.iterdir()):
                archive.add(path, path.name)
    disk(monkeypatch, 1 << 40)
    publish(server, wanted, origin)
    words = ("nsd", "--variant", "averaged", "--subjects", "05", "--root", str(tmp_path / "root"), "--yes")
    assert "study.variant=averaged" in download(*words)["next"]
    recording = opened("nsd", tmp_path / "root", f"cache_dir={tmp_path / 'cache'}").read("05")
    assert (len(recording.train), len(recording.test)) == (3 * 19, 3 * 2)
    assert set(recording.stimuli.captions) == {"a giraffe"}
    server.files.pop(urlsplit(tars[3].url).path)
    (tmp_path / "root" / tars[3].target).unlink()
    fails("train_subj05_3.tar", lambda: download(*words))


def test_v4_sessions_that_the_list_does_not_know_are_fetched_by_their_date() -> None:
    found = plan("cowley2023_v4", None, ["190923", "210325"])
    assert found.subjects == ("190923", "210325")
    assert [file.size for file in found.files[:2]] == [None, None] and found.files[2].sha256 is not None
    assert found.files[0].url.endswith("/data_V4_responses/images/images_190923.zip")


def test_the_official_copy_is_one_archive_of_archives(server: Server, tmp_path: Path) -> None:
    """OSF packs it while it sends: no length, no ranges."""
    origin, root, recorded = tmp_path / "origin", tmp_path / "root", things.epochs()
    things.write_pictures(origin)
    inner = tmp_path / "inner"
    for subject in ("01", "02"):
        things.write_official(tmp_path / subject, recorded, subject)
        inner.mkdir(exist_ok=True)
        shutil.make_archive(str(inner / f"sub-{subject}"), "zip", tmp_path / subject / "preprocessed_data")
    shutil.make_archive(str(origin / "preprocessed_eeg"), "zip", inner)
    for file in plan("things_eeg2", "official").files:
        if file.target != "preprocessed_eeg.zip" and file.unpack:
            shutil.make_archive(str((origin / file.target).with_suffix("")), "zip", origin, file.unpack)
        body = (origin / file.target).read_bytes()
        whole = file.target == "preprocessed_eeg.zip"
        server.files[urlsplit(file.url).path] = Served(
            body, chunked=whole, ranges=not whole, cut=[1000] if whole else []
        )
    result = download("things_eeg2", "--variant", "official", "--root", str(root), "--yes")
    assert result["exit_code"] == 0 and not list(root.rglob("*.zip"))
    study = opened("things_eeg2", root, f"cache_dir={tmp_path / 'cache'}")
    assert (study.variant, study.subjects) == ("official", ("01", "02"))
    assert len(study.read("02").train) == 480
    server.asked.clear()
    download("things_eeg2", "--variant", "official", "--root", str(root), "--yes")
    assert server.asked == []


@pytest.mark.parametrize("variant", ["raw", "ubp"])
def test_eeg_variants_with_addresses_are_fetched(server: Server, tmp_path: Path, variant: str) -> None:
    origin, root = tmp_path / "origin", tmp_path / "root"
    things.write_pictures(origin)
    if variant == "raw":
        things.write_raw(tmp_path, len(things.TRAIN), len(things.TEST))
        shutil.copytree(tmp_path / "Raw_data" / "sub-01", origin / "sub-01")
    else:
        things.write_ubp(origin, things.epochs())
    publish(server, plan("things_eeg2", variant, ["01"]), origin)
    words = ("things_eeg2", "--variant", variant, "--subjects", "01", "--root", str(root), "--yes")
    result = download(*words)
    assert result["exit_code"] == 0 and result["by_hand"] == []
    study = opened("things_eeg2", root, f"cache_dir={tmp_path / 'cache'}")
    assert (study.variant, study.subjects) == (variant, ("01",))


@pytest.fixture
def meg(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """THINGS-MEG as OpenNeuro and OSF hold it: epochs with their own table, pictures in a locked archive."""
    monkeypatch.delenv("RECON_THINGS_PASSWORD", raising=False)
    origin = tmp_path / "origin"
    things.write_meg(origin)
    things.publish_as_openneuro(origin)
    (tmp_path / "zip").mkdir()
    (origin / "object_images").rename(tmp_path / "zip" / "object_images")
    write_locked(origin / "images_THINGS.zip", tmp_path / "zip", "as the terms say")
    for file in plan("things_meg", "openneuro", ["01"]).files:
        path = origin / "derivatives" / "preprocessed" / file.target
        body = (origin / file.target).read_bytes() if file.unpack else path.read_bytes() if path.is_file() else b""
        server.files[urlsplit(file.url).path] = Served(body, cut=[500])
    return tmp_path / "root"


def test_things_meg_is_readable_as_it_was_fetched(
    meg: Path, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("things_meg", "--subjects", "01", "--root", str(meg), "--yes")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    text = fails("images_THINGS.zip is locked: read its terms at https://osf.io/j6a3m", lambda: download(*words))
    assert "RECON_THINGS_PASSWORD=PASSWORD" in text and server.asked == [] and not meg.exists()
    assert "research only" in capsys.readouterr().err  # the licence comes first
    assert "RECON_THINGS_PASSWORD" in download(*words, "--dry-run")["text"]
    monkeypatch.setenv("RECON_THINGS_PASSWORD", "wrong")
    fails("images_THINGS.zip' cannot be unlocked", lambda: download(*words))
    assert (meg / "images_THINGS.zip").is_file()
    monkeypatch.setenv("RECON_THINGS_PASSWORD", "as the terms say")
    result = download(*words)
    assert result["exit_code"] == 0 and result["by_hand"] == []
    assert server.times_asked["/download/rdxy2/"] == 2  # cut once, and not fetched again for another password
    for name in ("-1", "-2", "-3"):
        (meg / f"preprocessed_P1-epo{name}.fif").unlink()  # the stand-in has one part
    study = opened("things_meg", meg, f"cache_dir={tmp_path / 'cache'}")
    assert study.subjects == ("01",) and len(study.read("01").train) == 20


def test_the_password_is_asked_for_on_a_terminal(meg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    asked: list[str] = []
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", lambda text: asked.append(text) or "as the terms say")
    download("things_meg", "--subjects", "01", "--root", str(meg), "--yes")
    assert len(asked) == 1 and "https://osf.io/j6a3m" in asked[0]
    assert (meg / "object_images" / "thing1" / "thing1_00s.jpg").is_file()


def test_v4_is_readable_as_it_was_fetched(server: Server, tmp_path: Path) -> None:
    """The real files: their checksums are the published ones."""
    origin = shared_path("data/V4_compact_models")
    publish(server, plan("cowley2023_v4", None, ["210325"]), origin)
    result = download("cowley2023_v4", "--subjects", "210325", "--root", str(tmp_path), "--yes")
    assert result["exit_code"] == 0
    assert all((tmp_path / file["target"]).stat().st_size == file["bytes"] for file in result["files"])
    here, there = (opened("cowley2023_v4", root).read("210325") for root in (origin, tmp_path))
    np.testing.assert_array_equal(here.train.x, there.train.x)
