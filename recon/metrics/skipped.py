"""What was not scored, in a few lines for a terminal; each reason in full stays in the file of the scores."""

from __future__ import annotations

from collections.abc import Mapping

from align.vision.packages import INSTALL
from recon.metrics.feature_nets import AS_PAIRS, OFFLINE


def skipped_lines(skipped: Mapping[str, str], ways: str = AS_PAIRS) -> list[str]:
    """One line for all scores whose weights are missing, with what to do, and one for each other reason.

    ``skipped``: score to reason. ``ways``: how the command is told where weights are.
    """
    groups: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        groups.setdefault(OFFLINE if OFFLINE in reason else reason, []).append(name)
    lines = []
    for reason, names in groups.items():
        if len(names) == 1:
            lines.append(f"skipped {names[0]}: {skipped[names[0]]}")
        elif reason == OFFLINE:
            packaged = f", or {INSTALL}" if any(INSTALL in skipped[name] for name in names) else ""
            lines.append(
                f"skipped {len(names)} scores, {OFFLINE}: {', '.join(names)}; put the files that `skipped` of the "
                f"result names into {ways}{packaged}"
            )
        else:
            lines.append(f"skipped {', '.join(names)}: {reason}")
    return lines
