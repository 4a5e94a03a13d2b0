"""The audit's summary for the top of the page: what `recon audit` stored beside the run, or the checks of its lists.

The lists are split.json and what the run says of its choices: no picture, recording or model is opened. Never more is
claimed than was checked: the page says how many checks lacked their input, and "not audited" where all did. A stored
audit of another training of the run, or one that does not say of which it is, is refused.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.data.names import labelled
from align.errors import UserError
from align.files import read_json

if TYPE_CHECKING:
    from align.checkpoint import Run

FIELDS = ("check", "verdict", "evidence", "threshold")


def audit_summary(run: Run) -> dict[str, Any]:
    """``verdict``, ``summary``, ``findings`` (dicts of `FIELDS`), ``source``: where it comes from, in words.

    ``complete``: no essential check is missing.
    """
    from recon.audit.verdict import as_dict, overall

    for path in (labelled(run.path, "audit_sub-{}.json", run.subject), run.path / "audit.json"):
        if path.is_file():
            return _stored(run, path)
    findings = _quick(run)
    verdict, summary = overall(findings)
    source = (
        "Only the lists of the run were checked here: split.json and what it says of its choices. All checks: "
        f"recon audit {place(run.path)} --out {place(run.path / 'audit.json')}, then this command again."
    )
    kept = [{name: as_dict(finding)[name] for name in FIELDS} for finding in findings]
    return {"verdict": verdict, "summary": summary, "findings": kept, "source": source, "complete": _complete(kept)}


def place(path: Path) -> str:
    """As it is typed in the working folder; a path elsewhere begins with RUN, as a page names no folder outside."""
    try:
        return shlex.quote(path.resolve().relative_to(Path.cwd().resolve()).as_posix())
    except ValueError:
        return "RUN" if (path / "config.yaml").is_file() else f"RUN/{path.name}"


def _complete(findings: list[dict[str, Any]]) -> bool:
    from recon.audit.verdict import ESSENTIAL

    made = {finding["check"] for finding in findings if finding["verdict"] != "not checked"}
    return set(ESSENTIAL) <= made


def _quick(run: Run) -> list[Any]:
    from recon.audit.checks import audit
    from recon.audit.collect import from_run

    return audit(from_run(run, parts=()))


def _stored(run: Run, path: Path) -> dict[str, Any]:
    """What `recon audit --out` wrote of this run; raises `UserError` for anything else."""
    from recon.audit.verdict import VERDICTS

    stored = read_json(path)
    findings = stored.get("findings") if isinstance(stored, dict) else None
    if not isinstance(findings, list) or stored.get("verdict") not in VERDICTS:
        raise UserError(f"{str(path)!r} is no result of recon audit; write it with recon audit RUN --out {path.name}")
    kept = [{name: item.get(name, "") for name in FIELDS} for item in findings if isinstance(item, dict)]
    wrong = [item for item in kept if item["verdict"] not in VERDICTS or not isinstance(item["evidence"], str)]
    if wrong or len(kept) != len(findings) or not isinstance(stored.get("summary"), str):
        raise UserError(f"{str(path)!r} has a finding without check, verdict or evidence; run recon audit again")
    source = f"Stored by recon audit in {path.name}{_require_own(run, path, str(stored.get('source', '')))}."
    told = {"verdict": stored["verdict"], "summary": stored["summary"], "findings": kept, "source": source}
    return {**told, "complete": _complete(kept)}


def _require_own(run: Run, path: Path, told: str) -> str:
    """What the page adds about an audit that is of no run; raises `UserError` for one of another training than this."""
    from recon.audit.collect import identity

    if told == "files" or told.startswith("sweep "):
        return f", made of {'files' if told == 'files' else 'a sweep'} that name no training"
    own = identity(run)
    if not told.endswith(f": {own}"):
        other = told.rpartition(": ")[2] or "no run"
        other += "" if ", training " in other else " (training not stated)"
        raise UserError(f"{str(path)!r} is of {other}, not of {own}; run recon audit {run.path} --out {path}")
    return ""
