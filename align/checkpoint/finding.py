"""Finding the newest run of a subject."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from align.checkpoint.facts import facts_of
from align.checkpoint.names import MODEL
from align.errors import UserError
from align.files.json_text import parse_json

logger = logging.getLogger(__name__)


def home() -> Path:
    """The folder that holds ``runs``: RECON_HOME where set, else the working folder."""
    return Path(os.environ.get("RECON_HOME") or ".")


def find_run(subject: str, home: str | Path = ".") -> Path:
    """The newest run of ``subject`` under ``<home>/runs``; runs with held-out pictures (``study.held_out``) aside.

    Raises `UserError` when there is none (naming the command that makes one), or when runs of two studies hold the
    subject (listing them).
    """
    found = []
    for file in (Path(home) / "runs").rglob(MODEL):
        facts = facts_of(file)
        try:
            listed = parse_json(facts.get("subjects", "[]"), repr(str(file)), [str])
            stored = parse_json(facts.get("config", "{}"), repr(str(file)), {"study?": {"held_out?": int}})
        except UserError as error:
            logger.warning("passed over: %s", error)
            continue
        subjects = listed or [facts.get("subject")]
        held_out = stored.get("study", {}).get("held_out", 0)
        if subject in subjects and "study" in facts and not held_out:
            found.append((file.stat().st_mtime_ns, file.parent, facts["study"]))
    if not found:
        raise UserError(
            f"no run of subject {subject!r} under {str(Path(home) / 'runs')!r}; make one (recon train --subject "
            f"{subject} with the --config of its study), or give --run FOLDER"
        )
    found.sort()
    if len({study for _, _, study in found}) > 1:
        listed = ", ".join(f"{folder} ({study})" for _, folder, study in found)
        raise UserError(f"runs of several studies hold subject {subject!r}; pass --run with one of: {listed}")
    return found[-1][1]
