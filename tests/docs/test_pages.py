"""What the pages promise about the code, and how they are written: size, links, complete tables, plain words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.docs.pages import DOCS, PAGES, README

WIDTH, LINES = 120, 250
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
# Words that were once used here in a sense of their own: say predicts, decoded, next to, reports, altered views.
COINED = re.compile(r"\b(told|tells?|teller|beside|twin)\b", re.IGNORECASE)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def table_names(page: str, title: str) -> set[str]:
    """Names in code in the first column of the first table below a heading."""
    section = text_of(DOCS / page).split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_the_readme_is_a_door() -> None:
    lines = text_of(README).splitlines()
    assert len(lines) <= LINES
    assert [line for line in lines if len(line) > WIDTH] == []
    assert text_of(README).count("![") == 1


def test_pages_other_than_tables_are_not_wide() -> None:
    for page in PAGES:
        prose = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
        assert [line for line in prose.splitlines() if len(line) > WIDTH and not line.startswith("|")] == [], page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Files of the repository; the examples' pages are named after the examples. Anchors are checked by the build."""
    for groups in LINK.findall(text_of(page)):
        target = (groups[0] or groups[1]).partition("#")[0]
        if not target or re.match(r"[a-z]+:", target) or target.startswith("generated/"):
            continue
        example = re.fullmatch(r"auto_examples/(\w+)\.rst", target)
        if example:
            named = "README.rst" if example[1] == "index" else f"{example[1]}.py"
            assert (PROJECT / "examples" / named).is_file(), target
        else:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_words_are_everyday_words(page: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`", "", text_of(page), flags=re.DOTALL)
    assert COINED.findall(prose) == []


def test_every_page_stands_in_the_table_of_contents() -> None:
    listed = set(re.findall(r"^([\w/]+)$", text_of(DOCS / "index.md"), re.MULTILINE))
    assert {page.stem for page in DOCS.glob("*.md")} - {"index"} <= listed


def test_every_encoder_is_described() -> None:
    from align.encoders import ENCODERS
    from align.known_names import BRAINDECODE

    assert table_names("encoders.md", "Brain encoders") == {*ENCODERS, f"{BRAINDECODE}CLASS"}


def test_every_study_is_described() -> None:
    from align.data.studies import STUDIES

    page = text_of(DOCS / "datasets.md") + text_of(DOCS / "simulation.md")
    assert [name for name in STUDIES if f"`{name}`" not in page and f"`{name}." not in page] == []


def test_every_check_of_the_audit_is_described() -> None:
    from recon.audit.checks import Material, audit

    checks = [finding.check for finding in audit(Material())]
    assert table_names("audit.md", "The twenty-one checks") == set(checks) and len(checks) == 21


def test_every_control_is_described() -> None:
    from recon.evaluation.controls import CONTROLS

    assert table_names("files.md", "Controls") == set(CONTROLS)


def test_files_that_the_page_on_extending_names_exist() -> None:
    named = re.findall(r"`((?:align|recon|tests|docs|configs|examples)/[\w./-]*)`", text_of(DOCS / "extending.md"))
    files = [name for name in named if "NAME" not in name and "NN" not in name]
    assert len(files) > 30
    assert [name for name in files if not (PROJECT / name).exists()] == []
