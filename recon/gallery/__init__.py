"""Galleries of seen and reconstructed pictures: a sheet (PNG), a page (HTML), contact sheets for papers (PDF, PNG)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.data.names import labelled
from align.files import atomic_path, locked, write_atomic

if TYPE_CHECKING:
    from align.checkpoint import Run
    from recon.gallery.content import Content


@dataclass(frozen=True)
class Contact:
    """Which stimuli a contact sheet for a paper shows (chosen, all, random), how many in a row, seed of the draw."""

    which: str = "chosen"
    count: int = 6
    seed: int = 0


def gallery(run: Run) -> dict[str, str]:
    """Write ``gallery_sub-XX.png`` and ``.html`` into the run folder; returns their paths.

    Raises `UserError` naming `recon evaluate` when that has not run for this training of the run.
    """
    page = labelled(run.path, "gallery_sub-{}.html", run.subject)
    made = galleries([run], page)
    return {"sheet": made["sheets"][0], "page": made["page"]}


def galleries(runs: Sequence[Run], page: Path, contact: Contact | None = None) -> dict[str, Any]:
    """One ``page`` of all runs, and in each run folder its sheet and, where asked for, its contact sheet.

    Runs are read one after the other; only their encoded pictures are held together. Returns the paths.
    """
    from recon.gallery.contact import write_sheets
    from recon.gallery.content import read_content

    sheets, contacts = [], []

    def contents() -> Iterator[Content]:
        for run in runs:
            content = read_content(run)
            doing = f"writing sheets into {str(run.path)!r}"
            with locked(labelled(run.path, ".gallery_sub-{}.lock", run.subject), doing, wait=None, keep=False):
                sheets.append(labelled(run.path, "gallery_sub-{}.png", run.subject))
                save_sheet(content, sheets[-1])
                if contact is not None:
                    stem = labelled(run.path, "contact_sub-{}", run.subject)
                    contacts.extend(write_sheets(content, stem, contact.which, contact.count, contact.seed))
            yield content

    save_page(contents(), page)
    made: dict[str, Any] = {"sheets": [str(path) for path in sheets], "page": str(page)}
    return made | ({"contact": [str(path) for path in contacts]} if contact is not None else {})


def save_sheet(content: Content, path: str | Path) -> None:
    """The sheet of one run as PNG, atomically."""
    from recon.gallery.sheet import draw_sheet

    image = draw_sheet(content)
    with atomic_path(path) as temporary:
        image.save(temporary, optimize=True)


def save_page(contents: Iterable[Content], path: str | Path) -> None:
    """The page of several runs as one HTML file that needs nothing else, atomically."""
    from recon.gallery.page import draw_page

    write_atomic(path, draw_page(contents))
