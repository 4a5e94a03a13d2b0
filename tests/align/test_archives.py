"""Zip and tar archives of strangers: read as they are, and every trick refused before anything lies elsewhere."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from align.data.reading.archives import Limits, extract, members
from align.data.reading.safe_load import read_image_zip
from align.errors import UserError
from tests.align.fixture_attacks import tar_entry, tar_of, zip_of
from tests.align.fixture_studies import picture, png

FILES = [("a/one.txt", b"1" * 100), ("two.txt", b"2"), ("b/c/empty.bin", b"")]
LINKS = {
    "symlink": tar_entry("a", tarfile.SYMTYPE, "/etc/passwd"),
    "hard_link": tar_entry("a", tarfile.LNKTYPE, "../../etc/passwd"),
    "fifo": tar_entry("a", tarfile.FIFOTYPE),
    "character_device": tar_entry("a", tarfile.CHRTYPE),
    "block_device": tar_entry("a", tarfile.BLKTYPE),
    "unknown_kind": tar_entry("a", b"Z"),
}
NAMES = {
    "parent": "../evil.txt",
    "parent_inside": "a/../../evil.txt",
    "absolute": "/tmp/evil.txt",
    "drive": "C:evil.txt",
    "backslash": "..\\evil.txt",
    "control": "a\x1b[2J.txt",
    "newline": "a\nb.txt",
    "long_part": "x" * 256,
    "long_name": "d/" * 600 + "x",
    "only_dots": "a/..",
}


def plain_tar(files: list[tuple[str, bytes]] = FILES) -> bytes:
    return tar_of(*((tar_entry(name), data) for name, data in files))


def refused(path: Path, content: bytes, limits: Limits | None = None) -> str:
    """Neither read nor unpacked; one line; nothing written inside or outside of the folder."""
    path.write_bytes(content)
    lines = []
    for attempt in (
        lambda: list(members(path, limits=limits)),
        lambda: extract(path, path.parent / "out", limits=limits),
    ):
        with pytest.raises(UserError) as caught:
            attempt()
        lines.append(str(caught.value))
    assert all(line.isprintable() and str(path) in line and len(line) < 400 + len(str(path)) for line in lines)
    assert not [found for found in (path.parent / "out").rglob("*") if found.is_file()]

    return lines[0]


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_honest_archives(kind: str, tmp_path: Path) -> None:
    content = {"tar": plain_tar(), "tar.gz": gzip.compress(plain_tar()), "zip": zip_of(*FILES)}[kind]
    path = tmp_path / "a"
    path.write_bytes(content)
    assert list(members(path)) == FILES
    assert [name for name, _ in members(path, lambda name: name.startswith("a/"))] == ["a/one.txt"]
    written = extract(path, tmp_path / "out")
    assert {str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in written} == dict(FILES)
    assert sum(p.is_file() for p in (tmp_path / "out").rglob("*")) == len(FILES)


def test_a_tar_of_a_folder_has_dots_and_folders(tmp_path: Path) -> None:
    (tmp_path / "x" / "sub").mkdir(parents=True)
    (tmp_path / "x" / "sub" / "f.txt").write_bytes(b"hi")
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
            archive.add(tmp_path / "x", ".")
            archive.add(tmp_path / "x" / "sub" / "f.txt", "long/" * 40 + "ü.txt")
        assert list(members(tmp_path / "a.tar")) == [("sub/f.txt", b"hi"), ("long/" * 40 + "ü.txt", b"hi")]


@pytest.mark.parametrize("case", NAMES)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_that_lead_elsewhere(kind: str, case: str, tmp_path: Path) -> None:
    files = [("good.txt", b"1"), (NAMES[case], b"evil")]
    assert "the name" in refused(tmp_path / "a", plain_tar(files) if kind == "tar" else zip_of(*files))


@pytest.mark.parametrize("case", LINKS)
def test_links_and_devices_in_a_tar(case: str, tmp_path: Path) -> None:
    content = tar_of((tar_entry("good.txt"), b"1"), (LINKS[case], b""), (tar_entry("a/evil"), b"evil"))
    assert "link, device" in refused(tmp_path / "a.tar", content)


@pytest.mark.parametrize("mode", [0o120777, 0o010644, 0o020644, 0o060644])
def test_links_and_devices_in_a_zip(mode: int, tmp_path: Path) -> None:
    assert "link or device" in refused(tmp_path / "a.zip", zip_of(("a", b"/etc/passwd"), mode=mode))


def test_a_link_in_the_target_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a.zip").write_bytes(zip_of(*FILES))
    with pytest.raises(UserError, match="through a link"):
        extract(tmp_path / "a.zip", tmp_path / "out")
    assert not list((tmp_path / "elsewhere").iterdir())
    (tmp_path / "out" / "a").unlink()
    (tmp_path / "secret").write_bytes(b"kept")
    (tmp_path / "out" / "two.txt").symlink_to(tmp_path / "secret")
    extract(tmp_path / "a.zip", tmp_path / "out")  # the link is replaced, what it pointed to stays
    assert (tmp_path / "secret").read_bytes() == b"kept"


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name(kind: str, tmp_path: Path) -> None:
    for twin in ("a.txt", "./a.txt", ".//a.txt"):
        files = [("a.txt", b"1"), (twin, b"2")]
        assert "two members called 'a.txt'" in refused(
            tmp_path / "a", plain_tar(files) if kind == "tar" else zip_of(*files)
        )


def test_bombs(tmp_path: Path) -> None:
    zeros = bytes(90 << 20)
    assert "far more than it holds" in refused(tmp_path / "a.zip", zip_of(("a", zeros)))
    parts = [(f"{k}", zeros[: 8 << 20]) for k in range(12)]
    assert "far more than it holds" in refused(tmp_path / "a.zip", zip_of(*parts))
    assert "far more than it holds" in refused(tmp_path / "a.tar.gz", gzip.compress(plain_tar([("a", zeros * 2)]), 9))


def test_a_tar_whose_headers_are_the_bomb(tmp_path: Path) -> None:
    """tarfile takes a header of any size into memory, 100 MB of a comment from 100 kB of gzip; newer ones refuse it."""
    info = tar_entry("a", tarfile.XHDTYPE)
    comment = b"104857600 comment=".ljust(100 << 20, b"x")
    message = refused(tmp_path / "a.tar.gz", gzip.compress(tar_of((info, comment)), 9))
    assert "far more than it holds" in message or "invalid header" in message


def test_limits(tmp_path: Path) -> None:
    for content in (plain_tar(), zip_of(*FILES)):
        assert "more than 99" in refused(tmp_path / "a", content, Limits(member=99))
        assert "far more" in refused(tmp_path / "a", content, Limits(total=100))
        assert "more than 2 members" in refused(tmp_path / "a", content, Limits(count=2))


def test_announced_sizes_that_lie(tmp_path: Path) -> None:
    info = tar_entry("huge")
    info.size = 1 << 60
    header = info.tobuf(tarfile.GNU_FORMAT)
    assert "more than" in refused(tmp_path / "a.tar", header + bytes(1024))
    info.size = 5000
    assert "truncated" in refused(tmp_path / "b.tar", info.tobuf() + bytes(1024))
    data = bytearray(zip_of(("a", b"1" * 50)))
    at = data.rindex(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 40)
    assert "truncated or corrupt" in refused(tmp_path / "a.zip", bytes(data))


def test_a_negative_size_does_not_turn_in_circles(tmp_path: Path) -> None:
    info = tar_entry("a")
    raw = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    raw[124:136] = b"\xff" * 11 + b"\x00"  # -256, so that the next header is this one
    raw[148:156] = b"        "
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    refused(tmp_path / "a.tar", bytes(raw) + bytes(1024))


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    """tarfile stops there without a word."""
    content = bytearray(plain_tar())
    content[1024 + 148] ^= 0xFF  # the check sum of the second member
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert len(archive.getnames()) == 1
    assert "truncated or corrupt after 1 members" in refused(tmp_path / "a.tar", bytes(content))
    assert "truncated or corrupt" in refused(tmp_path / "b.tar", plain_tar()[:1024])
    assert "truncated or corrupt" in refused(tmp_path / "c.tar", plain_tar() + plain_tar())


def test_locked_zip(tmp_path: Path) -> None:
    data = bytearray(zip_of(("a", b"1")))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    assert "password" in refused(tmp_path / "a.zip", bytes(data))


def test_members_that_overlap(tmp_path: Path) -> None:
    """A thousand names for the same packed bytes."""
    one = zip_of(("a", bytes(1 << 20)))
    start = one.index(b"PK\x01\x02")
    directory, end = one[start : start + 47], one[-22:]
    entries = b"".join(directory[:28] + b"\x03\x00" + directory[30:46] + b"%03d" % k for k in range(1000))
    tail = end[:8] + struct.pack("<HHII", 1000, 1000, len(entries), start) + end[20:]
    assert "far more than it holds" in refused(tmp_path / "a.zip", one[:start] + entries + tail)


def test_foreign_and_missing(tmp_path: Path) -> None:
    for content in (b"", b"PK", b"PK\x03\x04", b"\x1f\x8b", b"hello" * 500, gzip.compress(b"hello" * 500)):
        assert "truncated or corrupt" in refused(tmp_path / "a", content)
    with pytest.raises(UserError, match="does not exist"):
        list(members(tmp_path / "none.zip"))
    with pytest.raises(UserError, match="no file"):
        list(members(tmp_path))


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.zip").write_bytes(zip_of(*FILES))
    (tmp_path / "out" / "two.txt").mkdir(parents=True)  # a folder where a file should be
    with pytest.raises(UserError, match="is a folder; pass the name of a file"):
        extract(tmp_path / "a.zip", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["a", "one.txt", "two.txt"]


@pytest.mark.parametrize("case", ["parent", "symlink", "locked"])
def test_image_zips_keep_the_same_rules(case: str, tmp_path: Path) -> None:
    image = png(picture(0))
    data = bytearray(
        zip_of(("../a.png" if case == "parent" else "a.png", image), mode=0o120777 if case == "symlink" else 0o100644)
    )
    if case == "locked":
        data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "i.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"refused|password"):
        read_image_zip(tmp_path / "i.zip")
    with zipfile.ZipFile(tmp_path / "i.zip", "w") as archive:
        archive.writestr("a.png", image)
    assert len(read_image_zip(tmp_path / "i.zip")) == 1
