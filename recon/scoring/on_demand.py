"""Columns of a table that are shown when they are asked for: the score of each control, and p.

``two_way (shuffled)`` is the score of the shuffled pictures, ``two_way p (shuffled)`` the p of the reconstructions
against them, ``brain_to_image.top1 p`` that of retrieval by permutation. A control is averaged as the score itself.
p values are not: of several results the largest stands, which holds for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from align.errors import UserError

if TYPE_CHECKING:
    from recon.scoring.result import Result

P_AGAINST = "shuffled"  # of pictures, where no control is named


def add_columns(results: list[Result], controls: Sequence[str], with_p: bool) -> None:
    """Put the columns behind the score that they belong to; raises `UserError` for a control that no result has."""
    known = dict.fromkeys(name for result in results for entry in result.metrics.values() for name in entry["controls"])
    for name in controls:
        if name not in known:
            there = ", ".join(known) or "none (pictures are scored by recon evaluate)"
            raise UserError(f"--controls: no result has a control {name!r}; there are: {there}")
    for result in results:
        result.metrics = {
            column: entry
            for name, own in result.metrics.items()
            for column, entry in {name: own, **_columns(name, own, controls, with_p)}.items()
        }


def _columns(name: str, own: dict[str, Any], controls: Sequence[str], with_p: bool) -> dict[str, dict[str, Any]]:
    shared: dict[str, Any] = {"of": name, "n": own.get("n"), "controls": {}, "p": {}}
    found = {
        f"{name} ({control})": {**shared, **own["controls"][control], "better": own["better"]}
        for control in controls
        if control in own["controls"]
    }
    against = ("", *(controls or (P_AGAINST,))) if with_p else ()
    for control in against:
        if control in own["p"]:
            column = f"{name} p" + (f" ({control})" if control else "")
            found[column] = {**shared, "value": own["p"][control], "better": "lower", "kind": "p"}
    return found
