"""The voting page: one HTML file that needs nothing else, and the table of its trials beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.data.names import file_name
from align.errors import UserError
from align.files import write_atomic
from recon.drawing.folders import read_seed
from recon.evaluation.report import stimuli_path
from recon.evaluation.stored import read_stimuli
from recon.gallery.album import Album
from recon.gallery.content import read_content, scored_folders
from recon.gallery.template import data_text, filled
from recon.voting.trials import OWN, Table, draw_trials, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from align.checkpoint import Run
    from recon.gallery.content import Content

USUAL = "shuffled"


def write_vote(
    run: Run, out: Path | None = None, *, count: int | None = None, seed: int = 0, controls: Sequence[str] | None = None
) -> dict[str, Any]:
    """Write page and table; returns their paths, the hash of the table and the number of trials per condition.

    ``out``: the page (default: ``vote_sub-XX_<hash>.html`` in the run folder); the table has its name, ending in .csv.
    ``controls``: whose trials are mixed in; None = the shuffled one where the run holds it.

    Raises `UserError` for a run without scores or without one of the controls, and for a count that cannot be.
    """
    content = read_content(run)
    if controls is None:
        controls = [USUAL] if USUAL in content.controls else []
    absent = [name for name in controls if name not in content.controls]
    if absent:
        raise UserError(f"the run holds no control {absent[0]!r}; it holds {', '.join(content.controls) or 'none'}")
    folders = scored_folders(run, read_stimuli(stimuli_path(run)))
    sources = {
        name: {key: row["tokens_of"] for key, row in read_seed(folders.control(name), content.image_seed).items()}
        for name in controls
    }
    table = draw_trials(content, count, seed, list(dict.fromkeys(controls)), sources)
    page = out or run.path / f"vote_sub-{file_name(run.subject)}_{table.hash}.html"
    key = page.with_suffix(".csv")
    if key == page:
        raise UserError(f"--out {str(page)!r} is the page; its name should end in .html, the table gets .csv")
    write_atomic(key, table.text())
    write_atomic(page, draw_vote(content, table))
    conditions = [trial.condition for trial in table.trials]
    trials = {name: conditions.count(name) for name in (OWN, *dict.fromkeys(controls))}
    return {"page": str(page), "table": str(key), "hash": table.hash, "trials": trials}


def draw_vote(content: Content, table: Table) -> str:
    """The page as text; its look is that of the gallery."""
    here = Path(__file__).parent
    style = (here.parent / "gallery" / "page.css").read_text(encoding="utf-8")
    page = (here / "vote.html").read_text(encoding="utf-8")
    page = filled(page, "__STYLE__", style + (here / "vote.css").read_text(encoding="utf-8"))
    page = filled(page, "__SCRIPT__", (here / "vote.js").read_text(encoding="utf-8"))
    return filled(page, "__TRIALS__", data_text(vote_data(content, table)))


def vote_data(content: Content, table: Table) -> dict[str, Any]:
    """What the script of the page reads: no id, no caption, no condition, nothing that tells the true picture."""
    album, place = Album(), {item.stimulus_id: k for k, item in enumerate(content.items)}
    trials = [
        [
            album.add(shown(content, place[trial.stimulus_id], trial.condition)),
            album.add(content.seen[trial.left_id]),
            album.add(content.seen[trial.right_id]),
        ]
        for trial in table.trials
    ]
    about = f"{table.study}, subject {table.subject}"
    return {"table": table.hash, "about": about, "trials": trials, "images": album.addresses()}
