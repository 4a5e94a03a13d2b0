"""Do the tables of a run name files outside it, or files that were changed since? Such a picture is not what this run
drew, whatever its name says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from align.errors import UserError
from align.files import read_json
from recon.audit.verdict import Finding, some

if TYPE_CHECKING:
    from align.checkpoint import Run

KINDS = ("reconstructions", "controls", "candidates", "low_level", "evidence")


def places(run: Run) -> tuple[list[str], list[str]]:
    """Sentences about links and rows that leave the run folder and pictures that were changed later, and about scored
    pictures that lie elsewhere."""
    return list(_strays(run.path)), list(_elsewhere(run))


def outside_run(strays: list[str], elsewhere: list[str]) -> Finding:
    """A table or link that leaves the run is a leak, and so is a picture that was put in the place of a drawn one;
    pictures scored from another folder are only suspect."""
    verdict = "leak" if strays else "suspect" if elsewhere else "clear"
    clear = "every table and folder of pictures stays inside the run; no picture was changed"
    listed = some([*strays, *elsewhere], 3) or clear
    return Finding(
        "outside_run",
        verdict,
        listed,
        "leak: a row of an index.csv or a link under the folders of pictures leads out of the run, or the sha256 of a "
        "picture is not that of the index; suspect: "
        "recon evaluate was given another folder (--images)",
        {"strays": len(strays), "elsewhere": len(elsewhere)},
    )


def _strays(base: Path) -> Iterator[str]:
    from recon.drawing.folders import read_index, same_file

    for kind in KINDS:
        if (base / kind).is_symlink():
            yield f"{kind} is a link"
            continue
        for at, folders, files in os.walk(base / kind):
            yield from (
                f"{Path(at, name).relative_to(base).as_posix()} is a link"
                for name in sorted([*folders, *files])
                if Path(at, name).is_symlink()
            )
            try:
                for row in read_index(Path(at)):
                    path = Path(at, row["file"])
                    if path.is_file() and not same_file(Path(at), row):
                        yield f"{path.relative_to(base).as_posix()} was changed after it was drawn"
            except (UserError, ValueError) as error:
                yield " ".join(str(error).split())


def _elsewhere(run: Run) -> Iterator[str]:
    from recon.evaluation.report import stimuli_path

    path = stimuli_path(run)
    stored = read_json(path) if path.is_file() else {}
    images = stored.get("images") if isinstance(stored, dict) else None
    if isinstance(images, str) and not Path(images).resolve().is_relative_to(run.path.resolve()):
        yield f"{path.name}: the scored pictures lie in {images!r}"
