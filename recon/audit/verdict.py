"""What a check says, and what all checks together say.

Verdicts. ``leak``: the fault is there, false alarms below one in a thousand. ``suspect``: it looks like it, or could be
an accident in 1 of 100 honest runs or as often as its rule says; 7 of 200 simulated honest audits held one. ``clear``:
looked for and not found. ``not checked``: an input is missing; it is listed, never counted as clear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from textwrap import fill
from typing import Any

VERDICTS = ("leak", "suspect", "not checked", "clear")  # from worst to best
LEAK_P = 0.001
SUSPECT_P = 0.01
# Checks without which a score can be too good in a way that nothing else here would see.
ESSENTIAL = (
    *("exact_duplicates", "near_duplicates", "repeated_stimuli"),
    *("shared_recordings", "pooled_normalisation", "row_order"),
)
_WIDTH = 110  # of a line of text
BY_P = f"leak: p < {LEAK_P}, suspect: p < {SUSPECT_P}, which is how often a clean run is flagged"


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
    rest = f"; {_count(len(named['not checked']))} lacked their input" if named["not checked"] else ""
    if not made:
        return "not checked", "Nothing could be checked: no check had its input."
    if named["leak"]:
        also = f", suspicion by {', '.join(named['suspect'])}" if named["suspect"] else ""
        return "leak", (
            f"Leak found by {len(named['leak'])} of {_count(made)} ({', '.join(named['leak'])}){also}{rest}. "
            "Do not compare this score with others before it is mended."
        )
    if named["suspect"]:
        return "suspect", (
            f"No leak proven in {_count(made)}, but explain beside the score: {', '.join(named['suspect'])}{rest}."
        )
    lacking = not_made(findings)
    matter = f" Not made, though they could matter: {', '.join(lacking)}." if lacking else ""
    return "clear", f"No sign of a leak in {_count(made)}{rest}.{matter}"


def not_made(findings: Sequence[Finding]) -> list[str]:
    """Essential checks that were not made; with one of them missing, "clear" is said of the others alone."""
    made = {finding.check for finding in findings if finding.verdict != "not checked"}
    return [name for name in ESSENTIAL if name not in made]


def as_dict(finding: Finding) -> dict[str, Any]:
    """A finding ready for JSON."""
    return asdict(finding)


def as_text(findings: Sequence[Finding]) -> str:
    """The findings for people, worst first, and the verdict as the last line."""
    lines = []
    for finding in sorted(findings, key=lambda finding: VERDICTS.index(finding.verdict)):
        lines.append(_wrapped(f"{finding.verdict.upper():<13}{finding.check}: {finding.evidence}"))
        if finding.verdict in ("leak", "suspect"):
            lines.append(_wrapped(f"{'':<13}rule: {finding.threshold}"))
    return "\n".join([*lines, "", fill(overall(findings)[1], _WIDTH, break_on_hyphens=False)])


def some(names: Sequence[str], limit: int = 5) -> str:
    """The first names of a list, and how many more there are."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def _count(n: int) -> str:
    return f"{n} check" if n == 1 else f"{n} checks"


def _wrapped(line: str) -> str:
    return fill(line, _WIDTH, subsequent_indent=" " * 13, break_long_words=False, break_on_hyphens=False)
