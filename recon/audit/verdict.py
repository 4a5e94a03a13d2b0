"""What a check says, and what all checks together say.

Verdicts. ``leak``: the planted fault is there, false alarms below one in a thousand or the stated rate. ``suspect``:
looks like it, or the evidence is weaker. ``clear``: looked for and not found. ``not checked``: an input is missing; it
is listed, never counted as clear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

VERDICTS = ("leak", "suspect", "not checked", "clear")  # from worst to best
LEAK_P = 0.001
SUSPECT_P = 0.01
N_PERM = 4999  # smallest p is 1 / 5000, below LEAK_P
BY_P = f"leak below p {LEAK_P}, suspect below {SUSPECT_P}: so often a clean run is flagged"


@dataclass(frozen=True)
class Finding:
    """One check: ``evidence`` is a sentence with its numbers, ``threshold`` says what decides and where it is from."""

    check: str
    verdict: str
    evidence: str
    threshold: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict {self.verdict!r} is not one of {', '.join(VERDICTS)}")


def not_checked(check: str, needs: str) -> Finding:
    """The finding of a check whose input is missing: ``needs`` names it and the option that gives it."""
    return Finding(check, "not checked", f"needs {needs}")


def graded(p: float, strong: bool = True, notable: bool = True) -> str:
    """Verdict of a p value; ``strong`` and ``notable`` say whether the effect is large enough for leak and suspect."""
    if p < LEAK_P and strong:
        return "leak"
    return "suspect" if p < SUSPECT_P and notable else "clear"


def overall(findings: Sequence[Finding]) -> tuple[str, str]:
    """The verdict of the whole audit and one sentence for it.

    The worst of the checks that were made; "not checked" when none could be.
    """
    named = {verdict: [f.check for f in findings if f.verdict == verdict] for verdict in VERDICTS}
    made = len(findings) - len(named["not checked"])
    open_checks = f"; {len(named['not checked'])} checks lacked their input" if named["not checked"] else ""
    if not made:
        return "not checked", "Nothing could be checked: no input for any check was given."
    if named["leak"]:
        also = f", suspicion in {', '.join(named['suspect'])}" if named["suspect"] else ""
        return "leak", (
            f"Leak found by {len(named['leak'])} of {made} checks ({', '.join(named['leak'])}){also}{open_checks}. "
            "Do not compare this score with others before it is mended."
        )
    if named["suspect"]:
        return "suspect", (
            f"No leak proven, but {len(named['suspect'])} of {made} checks ({', '.join(named['suspect'])}) look wrong"
            f"{open_checks}. Explain them beside the score."
        )
    return "clear", f"No sign of a leak in {made} checks{open_checks}."


def as_dict(finding: Finding) -> dict[str, Any]:
    """A finding ready for JSON."""
    return asdict(finding)


def as_text(findings: Sequence[Finding]) -> str:
    """The findings for people, worst first, and the verdict as the last line."""
    ordered = sorted(findings, key=lambda finding: VERDICTS.index(finding.verdict))
    width = max((len(finding.check) for finding in findings), default=0)
    lines = []
    for finding in ordered:
        lines.append(f"{finding.verdict.upper():<11}  {finding.check:<{width}}  {finding.evidence}")
        if finding.verdict in ("leak", "suspect"):
            lines.append(f"{'':<11}  {'':<{width}}  ({finding.threshold})")
    return "\n".join([*lines, "", overall(findings)[1]])


def some(names: Sequence[str], limit: int = 5) -> str:
    """The first names of a list, and how many more there are."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
