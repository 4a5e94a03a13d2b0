"""The texts a reader sees: README, CONTRIBUTING and the hand-written pages of docs/, and the fenced blocks in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import PROJECT

DOCS = PROJECT / "docs"
README = PROJECT / "README.md"
PAGES = (README, PROJECT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md")))
SHELLS = ("sh", "powershell")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(path: Path, *languages: str) -> list[str]:
    """Fenced blocks of a page in any of the languages."""
    found = _FENCE.findall(path.read_text(encoding="utf-8"))
    return [text for language, text in found if language in languages]


def commands(path: Path) -> Iterator[list[str]]:
    """Every command line of a page, as words."""
    for text in blocks(path, *SHELLS):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words
