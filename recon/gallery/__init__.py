"""Galleries of seen and reconstructed pictures: a contact sheet (PNG) and a page (HTML)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from align.files import atomic_path, write_atomic

if TYPE_CHECKING:
    from align.checkpoint import Run
    from recon.gallery.content import Content


def gallery(run: Run) -> dict[str, str]:
    """Write ``gallery_sub-XX.png`` and ``.html`` into the run folder; returns their paths.

    Raises `UserError` naming `recon evaluate` when that has not run for this training of the run.
    """
    from recon.gallery.content import read_content

    content, name = read_content(run), f"gallery_sub-{run.subject}"
    sheet, page = run.path / f"{name}.png", run.path / f"{name}.html"
    _save_sheet(content, sheet)
    _save_page(content, page)
    return {"sheet": str(sheet), "page": str(page)}


def write_sheet(run: Run, path: str | Path) -> None:
    """Write the contact sheet as PNG, atomically."""
    from recon.gallery.content import read_content

    _save_sheet(read_content(run), path)


def write_page(run: Run, path: str | Path) -> None:
    """Write the page as one HTML file that needs nothing else, atomically."""
    from recon.gallery.content import read_content

    _save_page(read_content(run), path)


def _save_sheet(content: Content, path: str | Path) -> None:
    from recon.gallery.sheet import draw_sheet

    image = draw_sheet(content)
    with atomic_path(path) as temporary:
        image.save(temporary, optimize=True)


def _save_page(content: Content, path: str | Path) -> None:
    from recon.gallery.page import draw_page

    write_atomic(path, draw_page(content))
