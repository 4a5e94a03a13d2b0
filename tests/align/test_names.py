"""Labels as names of files: never two of one name, never out of the folder; names in tables: never out of theirs."""

from __future__ import annotations

import itertools
import unicodedata
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from align.config import Config, load_config
from align.data.names import (
    LONGEST,
    LONGEST_JOINED,
    file_name,
    joined_name,
    labelled,
    listed_file,
    strays,
    subject_name,
)
from align.errors import UserError
from align.train import run_folder
from align.training.protocols import plan_jobs

PLAIN = ("01", "n01440764_tench", "ridge", "blocks.3", "subj01", "aardvark_01b.jpg", "a-b", "3+5")
HOSTILE = (
    *(
        "a b",
        "a-b",
        "a/b",
        "a\\b",
        "a:b",
        "a|b",
        "a?b",
        "a*b",
        "a<b",
        "a>b",
        'a"b',
        "a\nb",
        "a\tb",
        "a\0b",
        "a%b",
        "a~b",
    ),
    *(
        "../x",
        "..",
        ".",
        "...",
        "../../../esc",
        "/etc/passwd",
        "C:\\x",
        "\\\\host\\x",
        "~root",
        ".hidden",
        "x.",
        "x..",
        "x ",
    ),
    *(
        "CON",
        "con",
        "Con",
        "con.txt",
        "NUL",
        "nul",
        "aux",
        "prn.a.b",
        "COM1",
        "com1",
        "lpt9.png",
        "con ",
        "COM¹",
        "CONIN$",
    ),
    *("S1", "s1", "Ss", "sS", "SS", "ß", "ẞ", "ſ", "İ", "i̇", "ı", "K", "K", "ﬁ", "fi", "Ａ", "A", "a"),
    *(
        "ü",
        unicodedata.normalize("NFD", "ü"),
        "Ü",
        unicodedata.normalize("NFD", "Ü"),
        "é",
        "é",
        "한",
        unicodedata.normalize("NFD", "한"),
    ),
    *(
        "",
        " ",
        "%",
        "%25",
        "=",
        "S1=1",
        "s1=1",
        "~",
        "a~0",
        "%41",
        "a%2Fb",
        "-rf",
        "--out",
        "\udc80",
        "\udc81",
        "🙂",
        "\u202e1",
    ),
    *("x" * 150, "x" * 151, "x" * 400, "x" * 399 + "y", "X" * 400, "ü" * 60, "ü" * 200, "é" * 200, "sub-01", "a_ridge"),
)


def as_some_system_sees(name: str) -> str:
    """Without letter case, accents composed, without dots and spaces at the end."""
    return unicodedata.normalize("NFC", name).casefold().rstrip(". ")


@pytest.mark.parametrize("label", PLAIN)
def test_plain_labels_are_their_own_names(label: str) -> None:
    assert file_name(label) == label


def test_no_two_labels_share_a_name() -> None:
    labels = list(dict.fromkeys((*HOSTILE, *PLAIN)))
    for make in (file_name, subject_name, lambda label: joined_name(["folder", subject_name(label), "ridge"])):
        names = [as_some_system_sees(make(label)) for label in labels]
        twice = [label for label, name in zip(labels, names, strict=True) if names.count(name) > 1]
        assert not twice


def test_random_labels_keep_apart() -> None:
    rng, letters = np.random.default_rng(0), list("aAbB01._-+%~= /\\:üÜ\u0308")
    labels = {"".join(rng.choice(letters, rng.integers(0, 9))) for _ in range(5_000)}
    assert len({as_some_system_sees(file_name(label)) for label in labels}) == len(labels)


def test_every_name_is_legal_everywhere() -> None:
    devices = {"con", "prn", "aux", "nul", *(f"{port}{k}" for port in ("com", "lpt") for k in range(10))}
    for label in HOSTILE:
        name = file_name(label)
        assert name.isascii() and 1 <= len(name) <= LONGEST and name[0] != "." and name[-1] not in ". "
        assert not set(name) & set('/\\:*?"<>| ') and name.isprintable() and name.split(".")[0].lower() not in devices
        if "~" not in name and label:
            assert unquote(name.partition("=")[0], errors="surrogatepass") == label


def test_joined_names_have_one_limit() -> None:
    assert len(joined_name([file_name("x" * 400)] * 4)) == LONGEST_JOINED
    assert joined_name(["a", "b"]) == "a_b" and joined_name(["a"], ["b"]) != joined_name(["a"], ["c"])


def test_jobs_never_share_a_folder(tmp_path: Path) -> None:
    sets = [["01", "02", "03"], ["01", "03"], ["01", "02-03"], ["01-02", "03"], ["a_b", "c"], ["a", "b_c"], ["A", "c"]]
    sets += [[label] for label in ("a", "A", "a_ridge", "loso_sub-a", "../x", "a b", "a/b")]
    for given in (["study.name=folder", f"study.root={tmp_path}"], ["study.name=folder", f"run_dir={tmp_path / 'r'}"]):
        config = load_config(Config, None, given)
        alone = "run_dir" in given[1]
        folders = [run_folder(config, job, alone=False) for part in sets for job in plan_jobs("pooled", part)]
        if not alone:
            assert len({str(folder).casefold() for folder in folders}) == len(sets)
        base = tmp_path / "r" if alone else Path("runs/align")
        assert all(folder.parent == base for folder in folders)
    assert plan_jobs("intra", ["01"])[0].name == "sub-01" and plan_jobs("loso", ["01", "02"])[0].name == "loso_sub-01"


def test_older_runs_are_still_read(tmp_path: Path) -> None:
    (tmp_path / "report_sub-S1.json").write_text("{}")
    assert labelled(tmp_path, "report_sub-{}.json", "S1").name == "report_sub-S1.json"
    assert labelled(tmp_path, "report_sub-{}.json", "S2").name == "report_sub-S2=1.json"
    assert labelled(tmp_path, "report_sub-{}.json", "s1").name == "report_sub-s1.json"
    (tmp_path / "report_sub-S1=1.json").write_text("{}")
    assert labelled(tmp_path, "report_sub-{}.json", "S1").name == "report_sub-S1=1.json"


@pytest.mark.parametrize(
    "name",
    [
        "",
        None,
        ".",
        "..",
        "../x.png",
        "a/../../x.png",
        "/etc/passwd",
        "C:\\x.png",
        "C:x.png",
        "..\\x.png",
        "a\\b",
        "x\0y",
        "\\\\host\\x",
        "a.png:stream",
        "NUL",
        "con.png",
        "//x",
    ],
)
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str | None) -> None:
    with pytest.raises(UserError, match=r"index, row 3 names the file .*inside the folder"):
        listed_file(tmp_path, name, "index, row 3")


@pytest.mark.parametrize("name", ["x.png", "sub/x.png", "S1=1_seed-0.png", "a..b.png", "...png", "console.png"])
def test_a_name_inside_is_taken(tmp_path: Path, name: str) -> None:
    assert listed_file(tmp_path, name, "index") == tmp_path / name


def test_links_are_refused_wherever_they_lead(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.png").write_bytes(b"x")
    folder = tmp_path / "in"
    folder.mkdir()
    links = {"file.png": "../out/x.png", "own.png": "other.png", "gone.png": "nowhere", "deep": "../out"}
    for name, target in links.items():
        try:
            (folder / name).symlink_to(target)
        except OSError:
            pytest.skip("this system makes no links")
    for name in ("file.png", "own.png", "gone.png", "deep/x.png"):
        with pytest.raises(UserError, match="a link"):
            listed_file(folder, name, "index, row 1")


def test_strays_are_found_through_links_and_dots(tmp_path: Path) -> None:
    root, out = tmp_path / "study", tmp_path / "out"
    for folder in (root / "images", out):
        folder.mkdir(parents=True)
    for path in (root / "images" / "a.png", out / "b.png"):
        path.write_bytes(b"x")
    (root / "link.png").symlink_to(out / "b.png")
    (root / "inner.png").symlink_to(root / "images" / "a.png")
    (root / "deep").symlink_to(out)
    paths = [root / "images" / "a.png", root / "../out/b.png", out / "b.png", root / "link.png", root / "inner.png"]
    assert strays(root, [*paths, root / "deep" / "b.png", root / "images" / ".." / "inner.png"]) == [1, 2, 3, 5]
    (tmp_path / "alias").symlink_to(root)
    assert strays(tmp_path / "alias", [tmp_path / "alias" / "images" / "a.png"]) == []


def test_no_encoder_begins_another() -> None:
    from align.encoders import ENCODERS

    assert not [(a, b) for a, b in itertools.permutations(ENCODERS, 2) if b.startswith(f"{a}_")]
