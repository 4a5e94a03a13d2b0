"""What galleries show when a run holds it: seeds, low level, evidence, audit; contact sheets; which runs are meant."""

from __future__ import annotations

import json
import re
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from align.checkpoint import Run
from align.errors import UserError
from align.files import read_json, write_sealed
from recon import cli
from recon.audit.verdict import ESSENTIAL
from recon.commands.gallery import pairs
from recon.decoding.predict import run_id
from recon.evaluation.provenance import choice_of_layer
from recon.gallery import contact
from recon.gallery.audit import audit_summary
from recon.gallery.content import Content, ordered, read_content
from recon.gallery.page import labels, page_data
from tests.recon import gallery_run, tiny_run
from tests.recon.gallery_run import folder_of


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return gallery_run.scored_run(tmp_path_factory.mktemp("gallery"))


@pytest.fixture(scope="module")
def rich(plain: Run) -> Run:
    path = plain.path.parent / "rich"
    shutil.copytree(plain.path, path)
    run = replace(plain, path=path)
    gallery_run.add_extras(run, [item.stimulus_id for item in read_content(plain).items])
    return run


@pytest.fixture(scope="module")
def content(rich: Run) -> Content:
    return read_content(rich)


@pytest.fixture
def copied(rich: Run, tmp_path: Path) -> Iterator[Run]:
    """A run that a test may spoil."""
    path = tmp_path / "run"
    shutil.copytree(rich.path, path)
    yield replace(rich, path=path)


def test_a_run_without_them_shows_none(plain: Run) -> None:
    content = read_content(plain)
    assert all(not item.others and item.low_level is None and item.evidence is None for item in content.items)
    (data,) = page_data([content])["runs"]
    assert {(item["low_level"], item["evidence"], item["lit"]) for item in data["items"]} == {(None, None, None)}
    assert data["evidence_rule"] == ""
    assert contact.row_names(content, content.items) == ["seen", "seed 0", "shuffled"]


def test_seeds_low_level_and_evidence_belong_to_their_stimuli(content: Content) -> None:
    ids = [item.stimulus_id for item in content.items]
    wanted = {seed: gallery_run.flat(ids, 100 + seed) for seed in (1, 7)}
    for k, item in enumerate(content.items):
        assert list(item.others) == [1, 7]
        assert all(np.array_equal(item.others[seed], wanted[seed][k]) for seed in (1, 7))
        assert (item.low_level is not None) == (k < 20)
        assert (item.evidence is not None) == (k < 15)
        if item.evidence is not None:
            assert item.lit == pytest.approx((item.evidence > 127).mean())
    assert content.extras.rule == gallery_run.RULE
    assert not np.array_equal(content.items[0].reconstructed, content.items[0].others[1])


def test_more_seeds_than_a_page_holds_are_counted(copied: Run, content: Content) -> None:
    ids = [item.stimulus_id for item in content.items]
    for seed in range(20, 28):
        gallery_run.add_rows(
            folder_of(copied, "reconstructions"), ids[:1], gallery_run.flat(ids[:1], 0), seed, run_id(copied)
        )
    extras = read_content(copied).extras
    assert list(extras.others) == [1, 7, 20, 21, 22, 23, 24]
    assert extras.seeds_left_out == 3


SPOILED = {
    "not JSON": ("evidence", "evidence.json", "{", "not valid JSON"),
    "no rule": ("evidence", "evidence.json", '{"rows": {}}', "should hold a rule"),
    "rows are a list": ("evidence", "evidence.json", '{"rule": "x", "rows": []}', "should hold a rule"),
    "lit beyond one": ("evidence", "evidence.json", '{"rule": "x", "rows": {"a": {"lit": 14}}}', "share from 0 to 1"),
    "lit is text": ("evidence", "evidence.json", '{"rule": "x", "rows": {"a": {"lit": "1"}}}', "share from 0 to 1"),
    "columns": ("low_level", "index.csv", "a,b\n1,2\n", "lacks a column"),
    "bytes": ("low_level", "index.csv", b"\xff\xfe\x00", "is not UTF-8 text"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_file_is_one_line_and_exit_code_2(name: str, copied: Run, capsys: pytest.CaptureFixture[str]) -> None:
    kind, file, text, told = SPOILED[name]
    path = folder_of(copied, kind) / file
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert cli.main(["gallery", "--run", str(copied.path)]) == 2
    err = capsys.readouterr().err.splitlines()
    assert told in err[-1] and len(err) == 2, err  # the first names the run
    assert not (copied.path / "gallery_sub-01.html").exists()


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("file", "../../../secret.png", "a name inside the folder"),
        ("file", "/etc/passwd", "a name inside the folder"),
        ("file", "", "a name inside the folder"),
        ("run", "another@training", "holds pictures of 'another@training'"),
        ("seed", "first", "is no whole number"),
        ("file", "absent.png", "does not exist"),
    ],
)
@pytest.mark.parametrize("kind", ["evidence", "low_level", "reconstructions"])
def test_a_row_that_leaves_the_folder_or_the_training_is_refused(
    kind: str, column: str, value: str, told: str, copied: Run
) -> None:
    from recon.drawing.folders import read_index

    folder = folder_of(copied, kind)
    rows = read_index(folder)
    rows[-1][column] = value
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=re.escape(told)):
        read_content(copied)


@pytest.mark.parametrize("kind", ["evidence", "low_level", "reconstructions"])
def test_a_picture_that_was_changed_later_is_refused(kind: str, copied: Run) -> None:
    path = sorted(folder_of(copied, kind).glob("*.png"))[0]
    path.write_bytes(path.read_bytes() + b"\0")  # still the same pixels
    with pytest.raises(UserError, match="changed after it was drawn"):
        read_content(copied)


def test_an_index_without_checksums_is_read_and_told_once(copied: Run, caplog: pytest.LogCaptureFixture) -> None:
    from recon.drawing import folders

    folders._say_unsigned.cache_clear()
    for path in copied.path.rglob("index.csv"):
        lines = [line.rpartition(",")[0] for line in path.read_text().splitlines()]
        path.write_text("\n".join(lines) + "\n")
    read_content(copied)
    assert [record.message for record in caplog.records if "no checksums" in record.message] == [
        f"the pictures of {run_id(copied)} have no checksums (index.csv is older): whether they were changed later is "
        "not seen"
    ]


@pytest.mark.parametrize("generator", ["../../../other", "/tmp", "a\\b", "", ".."])
def test_a_generator_whose_name_leaves_the_run_is_refused(generator: str, copied: Run) -> None:
    path = copied.path / "stimuli_sub-01.json"
    write_sealed(path, read_json(path) | {"generator": generator})
    with pytest.raises(UserError, match="inside the folder"):
        read_content(copied)


@pytest.mark.parametrize("place", ["reconstructions", "low_level", "evidence", "controls"])
def test_a_folder_that_is_a_link_is_refused(place: str, copied: Run, tmp_path: Path) -> None:
    (copied.path / place).rename(tmp_path / "elsewhere")
    (copied.path / place).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link"):
        read_content(copied)


def test_a_map_that_is_no_picture_is_refused(copied: Run) -> None:
    path = next(folder_of(copied, "evidence").glob("*.png"))
    path.write_bytes(b"no picture")
    index = folder_of(copied, "evidence") / "index.csv"
    index.write_text("\n".join(line.rpartition(",")[0] for line in index.read_text().splitlines()) + "\n")
    with pytest.raises(UserError, match="corrupt or no picture"):
        read_content(copied)


def test_the_lists_of_a_run_are_checked_and_the_rest_is_called_unchecked(rich: Run) -> None:
    audit = audit_summary(rich)
    verdicts = {finding["check"]: finding["verdict"] for finding in audit["findings"]}
    assert verdicts["exact_duplicates"] == verdicts["repeated_stimuli"] == verdicts["declared_choice"] == "clear"
    assert verdicts["memorisation"] == verdicts["collapse"] == verdicts["near_duplicates"] == "not checked"
    assert audit["verdict"] == "clear" and "lacked their input" in audit["summary"]
    assert audit["source"].startswith("Only the lists of the run")
    assert not audit["complete"] and "Not made, though they could matter: near_duplicates" in audit["summary"]


def test_the_command_that_the_page_names_exists(
    copied: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "recon audit RUN --out RUN/audit.json, then" in audit_summary(copied)["source"]  # names no folder outside
    monkeypatch.chdir(copied.path.parent)
    words = audit_summary(copied)["source"].split("recon ")[1].split(", then")[0].split()
    assert words[1] == copied.path.name and cli.main(words) == 0
    shown = audit_summary(copied)
    made = {finding["check"] for finding in shown["findings"] if finding["verdict"] != "not checked"}
    assert shown["complete"] is (set(ESSENTIAL) <= made)
    assert ("could matter" in shown["summary"]) is (shown["verdict"] == "clear" and not shown["complete"])


def test_a_leak_in_the_lists_is_said(copied: Run) -> None:
    split = read_json(copied.path / "split.json")
    split["test"]["hashes"][0] = split["train"]["hashes"][0]
    (copied.path / "split.json").write_text(json.dumps(split))
    audit = audit_summary(copied)
    assert audit["verdict"] == "leak" and "exact_duplicates" in audit["summary"]


def test_a_run_without_lists_is_not_called_clear(copied: Run) -> None:
    (copied.path / "split.json").unlink()
    (copied.path / "report_sub-01.json").unlink()
    bare = replace(copied, config=replace(copied.config, target=replace(copied.config.target, chosen_on="")))
    made = {finding["check"] for finding in audit_summary(bare)["findings"] if finding["verdict"] != "not checked"}
    assert made <= {"declared_choice"}


def test_the_stored_audit_is_shown_instead(copied: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = copied.path / "audit.json"
    assert cli.main(["audit", str(copied.path), "--out", str(path)]) == 0
    told = json.loads(path.read_text())
    shown = audit_summary(copied)
    assert (shown["verdict"], shown["summary"]) == (told["verdict"], told["summary"])
    assert len(shown["findings"]) == len(told["findings"])
    assert str(copied.path) not in json.dumps(shown), "a page that is sent away says nothing of its writer's folders"
    for change, text in (
        ({"verdict": "fine"}, "no result of recon audit"),
        ({"findings": [{"verdict": "clear"}, 3]}, "run recon audit again"),
        ({"source": "run x: study y, subject 09, layer 1"}, "is of study y, subject 09, layer 1"),
    ):
        path.write_text(json.dumps({**told, **change}))
        with pytest.raises(UserError, match=text):
            audit_summary(copied)


def test_an_audit_of_another_training_is_not_shown(copied: Run) -> None:
    path = copied.path / "audit.json"
    assert cli.main(["audit", str(copied.path), "--out", str(path)]) == 0
    retrained = replace(copied, meta={**copied.meta, "weights_hash": "0" * 64})
    with pytest.raises(UserError) as refused:
        audit_summary(retrained)
    assert f"training {run_id(copied)}, not of" in str(refused.value) and run_id(retrained) in str(refused.value)

    stored = json.loads(path.read_text())
    older = stored["source"].removesuffix(f", training {run_id(copied)}")
    assert older != stored["source"]
    path.write_text(json.dumps({**stored, "source": older}))
    with pytest.raises(UserError, match="training not stated") as refused:
        audit_summary(copied)
    command = str(refused.value).rpartition("; run recon ")[2]
    assert "\n" not in str(refused.value) and cli.main(command.split()) == 0  # the advice helps
    assert audit_summary(copied)["source"] == "Stored by recon audit in audit.json."


def test_an_audit_of_files_is_called_that(copied: Run) -> None:
    told = {"verdict": "clear", "summary": "no leak found", "findings": []}
    path = copied.path / "audit.json"
    path.write_text(json.dumps({**told, "source": "files"}))
    assert "made of files that name no training" in audit_summary(copied)["source"]
    path.write_text(json.dumps(told))
    with pytest.raises(UserError, match="is of no run"):
        audit_summary(copied)


def test_labels_tell_runs_apart() -> None:
    assert labels([("01", "a"), ("02", "a")]) == ["01", "02"]
    assert labels([("01", "a"), ("01", "b"), ("02", "a")]) == ["01, a", "01, b", "02"]
    assert len(set(labels([("01", "a"), ("01", "a"), ("01", "a")]))) == 3


def test_which_runs_are_meant(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    assert pairs(["01", "02", "01"], []) == [("01", None), ("02", None)]
    assert pairs(["01", "02"], [a]) == [("01", a), ("02", a)]
    assert pairs(["01", "02"], [a, b]) == [("01", a), ("02", b)]
    assert pairs([], [a, b]) == [(None, a), (None, b)]
    for name in ("sub-02", "sub-01", "other"):
        (a / name).mkdir(parents=True)
        (a / name / "model.safetensors").touch()
    assert pairs([], [a, b]) == [(None, a / "sub-01"), (None, a / "sub-02"), (None, b)]
    for subjects, runs in (([], []), (["01", "02", "03"], [a, b]), (["01"], [a, b])):
        with pytest.raises(UserError):
            pairs(subjects, runs)


def test_one_page_of_two_runs(
    copied: Run, plain: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recon.gallery.save_sheet", lambda content, path: Path(path).touch())  # slow, tested elsewhere
    out = tmp_path / "both.html"
    words = ["gallery", "--run", str(copied.path), "--run", str(plain.path), "--out", str(out), "--contact", "random"]
    assert cli.main([*words, "--count", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["page"] == str(out) and len(told["sheets"]) == 2 and len(told["contact"]) == 4
    data = json.loads(re.search(r'id="data">(.*?)</script>', out.read_text(encoding="utf-8"))[1])
    assert [run["label"] for run in data["runs"]] == ["01, run", "01, run (2)"]
    first, second = data["runs"]
    assert [item["seen"] for item in first["items"]] == [item["seen"] for item in second["items"]], "kept once"
    for name in ("gallery_sub-01.png", "contact_sub-01.pdf", "contact_sub-01.png"):
        (plain.path / name).unlink()


def test_contact_sheet_says_what_was_chosen_how(content: Content, tmp_path: Path) -> None:
    blocks, rule = contact.select(content, "chosen", 4, 0)
    ranked = ordered(content)
    assert [block.title for block in blocks] == ["best", "median", "worst"]
    assert blocks[0].items == tuple(ranked[:4]) and blocks[2].items == tuple(ranked[20:])
    text = contact.caption(content, rule)
    report = content.report
    for part in (
        f"n = {tiny_run.N_TEST} test stimuli",
        f"Layer {report['layer']} of {report['backbone']}, {choice_of_layer(report['layer_chosen_on'])}.",
        "the 4 best, median and worst of 24 by two_way, then PixCorr",
        "training seed 0",
        "scored pictures of seed 0",
        f"two_way {report['reconstruction']['two_way']['value']:.3f} "
        f"(shuffled {report['controls']['shuffled']['two_way']['value']:.3f})",
        gallery_run.RULE,
    ):
        assert part in text
    assert "tokens:" not in text
    borrowed = replace(content, report={**report, "tokens": "library"})
    assert f"generator {report['generator']} (tokens: library), scored" in contact.caption(borrowed, rule)
    assert page_data([borrowed])["runs"][0]["report"]["tokens"] == "library"
    script = (Path(contact.__file__).parent / "page.js").read_text(encoding="utf-8")
    assert '["tokens", report.tokens]' in script  # among the facts at the head of the page
    drawn, rule = contact.select(content, "random", 5, 3)
    again, _ = contact.select(content, "random", 5, 3)
    other, _ = contact.select(content, "random", 5, 4)
    assert drawn == again != other and rule == "5 of 24 drawn at random (seed 3)"
    everything, rule = contact.select(content, "all", 7, 0)
    assert [item for block in everything for item in block.items] == ranked and rule.startswith("all 24, best first")
    with pytest.raises(UserError, match="'best' is not known"):
        contact.select(content, "best", 7, 0)


def test_contact_sheet_on_disk(content: Content, tmp_path: Path) -> None:
    few = replace(content, items=content.items[:2])
    pdf, png = contact.write_sheets(few, tmp_path / "contact", "all", 6, 0)
    assert sorted(tmp_path.iterdir()) == [pdf, png]
    text = pdf_text(pdf.read_bytes())
    for word in ("All 2", "seen", "low level", "evidence", "seed 7", "two_way", "Shown: all 2"):
        assert "".join(word.split()) in text, f"{word!r} is no text in the PDF"
    with Image.open(png) as image:
        assert image.width == round(contact.WIDTH * 300)
        pixels = np.asarray(image.convert("RGB"))
    tile = contact._tile(6)
    left, top = contact.EDGE + contact.LABEL, contact.EDGE + contact.TITLE + 2 * (tile + contact.GAP)
    for k, item in enumerate(ordered(few)):  # the third row holds the second seed
        x = left + k * (tile + contact.GAP) + tile / 2
        middle = pixels[round(300 * (top + tile / 2)), round(300 * x)]
        assert np.abs(middle.astype(int) - item.others[1][0, 0]).max() <= 2


def pdf_text(data: bytes) -> str:
    """The strings that a PDF draws as text, without spaces; outlines and pixels do not appear."""
    found = []
    for match in re.finditer(rb"stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL):
        try:
            stream = zlib.decompress(match[1])
        except zlib.error:
            continue
        if b" Tf" in stream:
            for text in re.finditer(rb"\[(.*?)\]\s+TJ|\((.*?)\)\s+Tj", stream, re.DOTALL):
                found.append("".join(re.findall(r"\((.*?)\)", (text[0]).decode("latin-1"))))
    return "".join("".join(found).replace("\0", "").split())  # two bytes a letter where a font has more than 256


def test_pages_are_no_higher_than_paper(content: Content) -> None:
    blocks = [contact.Block(str(k), content.items[:1]) for k in range(7)]
    pages = contact.paginate(blocks, 3.0, 1.0)
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [block.title for page in pages for block in page] == [str(k) for k in range(7)]
    assert len(contact.paginate(blocks, 30.0, 1.0)) == 7
