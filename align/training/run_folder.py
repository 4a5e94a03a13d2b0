"""Where weights may be written: a folder of one run, or a folder of the runs of several people, never both."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from align.checkpoint import MODEL, SPLIT
from align.data.mark import signals_mark
from align.data.signals import Recording
from align.data.splits import read_split
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


def signals_marks(recordings: Iterable[Recording]) -> dict[str, str]:
    """By subject what ``split.json`` keeps of the training signals."""
    return {recording.subject: signals_mark(recording.train) for recording in recordings}


def refuse_other_signals(folder: Path, recordings: Iterable[Recording], overwrite: bool = False) -> None:
    """Raise `UserError` where ``folder`` holds weights that were trained with other signals of these people.

    Other recordings make another training, as another configuration does. Weights without marks are taken as they are.
    """
    if overwrite or not (folder / MODEL).is_file() or not (folder / SPLIT).is_file():
        return
    before = read_split(folder / SPLIT).get("signals", {})
    changed = [one for one, mark in signals_marks(recordings).items() if before.get(one, mark) != mark]
    if changed:
        raise UserError(
            f"{str(folder)!r} holds weights of other recordings: the training signals of subject {', '.join(changed)} "
            "have changed since; nothing was changed. Choose another run_dir=FOLDER, or replace it with --overwrite "
            "(Python: overwrite=True)"
        )
