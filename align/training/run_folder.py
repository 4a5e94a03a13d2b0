"""Where weights may be written: a folder of one run, or a folder of the runs of several people, never both."""

from __future__ import annotations

from pathlib import Path

from align.checkpoint import MODEL
from align.errors import UserError


def refuse_mixed(folder: Path, several: bool) -> None:
    """Raise `UserError` where one folder would hold weights itself and runs of people in folders below it.

    ``several``: the runs of several people are about to be written below ``folder``; else weights into it. What reads
    one of them would meet the other, so neither replaces the other.
    """
    below = sorted(path.parent.name for path in folder.glob(f"sub-*/{MODEL}"))
    if several and (folder / MODEL).is_file():
        raise UserError(
            f"{str(folder)!r} holds weights itself, so no runs of several subjects go below it (also not with "
            "--overwrite); nothing was changed. Choose another run_dir=FOLDER"
        )
    if not several and below:
        raise UserError(
            f"{str(folder)!r} holds runs of its own for {', '.join(below)}, so no weights go next to them (also not "
            f"with --overwrite); nothing was changed. Choose another run_dir=FOLDER, or one of the runs: "
            f"run_dir={folder / below[0]}"
        )
