"""`StudyReport`: what `Study.check` found, for people, programs and notebooks."""

from __future__ import annotations

from typing import Any

from align.notebook import facts_table


class StudyReport(dict[str, Any]):
    """What `Study.check` found: the object that ``recon data check --json`` prints; ``text`` is its terminal form."""

    @property
    def text(self) -> str:
        """The report as ``recon data check`` prints it."""
        from align.data.check import format_report

        return format_report(self)

    def __repr__(self) -> str:
        return f"<StudyReport {self['study']}: {self['verdict']}>"

    def _repr_html_(self) -> str:
        facts = {fact["what"]: fact["found"] for fact in self["facts"]}
        lists = {name: "; ".join(self[name]) or None for name in ("faults", "remarks")}
        return facts_table(f"{self['title']} ({self['study']})", {"verdict": self["verdict"], **facts, **lists})
