"""Which results are of one method, and what each method is called in a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from recon.scoring.drawn import tell_apart

if TYPE_CHECKING:
    from recon.scoring.result import Result


def grouped(results: Iterable[Result], key: Callable[[Result], Any]) -> dict[Any, list[Result]]:
    """Results by key, in the order of appearance."""
    found: dict[Any, list[Result]] = {}
    for result in results:
        found.setdefault(key(result), []).append(result)
    return found


def method_of(report: dict[str, Any]) -> str:
    """Study, encoder, backbone, layer and part of the signals of a report, in words."""
    parts = [report.get("study"), report.get("encoder"), report.get("backbone"), report.get("layer")]
    part = report.get("selection") or {}
    for key in ("roi", "channels", "window"):
        value = part.get(key) if isinstance(part, dict) else None
        if value:
            ends = key == "window" and isinstance(value, list)
            told = ":".join("" if end is None else str(end) for end in value) if ends else _said(value)
            parts.append(f"{key} {told}")
    return " ".join(str(part) for part in parts if part)


def name_methods(results: list[Result]) -> None:
    """Give results that are comparable one name, and all others different ones that say what differs.

    Comparable: the same study, encoder, backbone, layer and part of the signals, the same other settings, and pictures
    of one generator, drawn with the same settings, as large a part of the test pictures, seen by one first judge. A
    result without pictures is taken to be of the generator that the others have, where it is one; so is one without a
    judge.
    """
    for members in grouped(results, lambda result: result.method).values():
        drawn = list(dict.fromkeys(result.generator for result in members if result.generator))
        for result in members:
            own = drawn[0] if len(drawn) == 1 else result.generator
            result.method += f" {own}" if own else ""
    for members in grouped(results, lambda result: result.method).values():
        judges = {result.judge for result in members if result.judge[0]}
        for result in members if len(judges) > 1 else ():
            alike = sum(name == result.judge[0] for name, _ in judges) > 1  # it is the weights that differ
            said = [text for text in result.judge[: 1 + alike] if text]
            result.method += f" judge {' '.join(said)}" if said else ""
    for members in grouped(results, lambda result: result.method).values():
        tell_apart(members, _said)
    for members in grouped(results, lambda result: result.method).values():
        told = [result.recipe for result in members if result.recipe is not None]
        keys = dict.fromkeys(key for recipe in told for key in recipe)
        varied = [key for key in keys if any(recipe.get(key) != told[0].get(key) for recipe in told)]
        for result in members:
            if result.recipe is not None and varied:
                result.method += f" ({', '.join(f'{key}={_said(result.recipe.get(key))}' for key in varied)})"


def _said(value: Any) -> str:
    if value is None:
        return "default"
    return "[" + ",".join(map(str, value)) + "]" if isinstance(value, list) else str(value)
