"""How the pictures of a result were drawn, and how many were scored: unlike ones are no repeats of each other."""

from __future__ import annotations

from typing import Any

from recon.drawing.record import NOT_TUNED
from recon.scoring.result import Result

_ALWAYS = "steps"  # compared also where settings were chosen: how long was drawn is seldom among the candidates
_NO_SETTING = ("run", "drawing", "seeds", "chosen_on", "measured")  # of ``drawn_with``
PICTURES, _TUNED = "pictures", "tuned"


def drawn_of(report: dict[str, Any]) -> dict[str, Any] | None:
    """Settings of the pictures of a report, with ``pictures``: how many of the test pictures; None without pictures.

    What a report does not hold is left out. ``tuned``: whether `recon tune-pictures` chose settings.
    """
    if not report.get("reconstruction"):
        return None
    used = report.get("drawn_with") or {}
    found = {key: value for key, value in used.items() if key not in _NO_SETTING}
    found |= {_TUNED: True} if used.get("chosen_on", NOT_TUNED) != NOT_TUNED else {}
    n, total = report.get("n_stimuli"), report.get("n_test_stimuli")
    return found | ({PICTURES: (n, total)} if n is not None and total is not None else {})


def tell_apart(members: list[Result], say: Any) -> None:
    """Give results of one method that were drawn unlike names that say how; ``apart`` of each is the note on it.

    ``say``: a setting's value in words. Numbers of pictures differ where a part was drawn: people who were shown
    different numbers and have all of them are alike. So are settings that `recon tune-pictures` chose for each person,
    by one rule.
    """
    told = [result.drawn for result in members if result.drawn]
    keys = [
        key for key in dict.fromkeys(key for drawn in told for key in drawn) if key != _TUNED and _differ(key, told)
    ]
    if not keys:
        return
    keys.sort(key=lambda key: key != PICTURES)
    note = "; ".join(_listed(key, told, say) for key in keys)
    for result in members:
        if result.drawn:
            said = [_one(key, result.drawn[key], say) for key in keys if key in result.drawn]
            result.method += f" ({', '.join(said)})" if said else ""
            result.apart = f"pictures were drawn or scored in different ways, which are rows of their own: {note}"


def _differ(key: str, told: list[dict[str, Any]]) -> bool:
    from recon.tuning.candidates import TUNED

    if key in TUNED and key != _ALWAYS and all(_TUNED in drawn for drawn in told):
        return False
    values = [drawn[key] for drawn in told if key in drawn]
    if key == PICTURES:
        values = ["all" if n == total else (n, total) for n, total in values]
    return any(value != values[0] for value in values)


def _one(key: str, value: Any, say: Any) -> str:
    return f"{value[0]} of {value[1]} pictures" if key == PICTURES else f"{key}={say(value)}"


def _listed(key: str, told: list[dict[str, Any]], say: Any) -> str:
    values = [drawn[key] for drawn in told if key in drawn]
    if key == PICTURES:
        return " and ".join(dict.fromkeys(f"{n} of {total}" for n, total in values)) + " pictures"
    return f"{key} " + " and ".join(dict.fromkeys(str(say(value)) for value in values))
