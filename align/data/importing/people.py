"""Columns that say whose trials they are, by their names: two people are not one person with more repetitions."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from align.errors import UserError
from align.files.labels import is_missing

_WHO = "subject|subj?|participant|particip|ptcp|ppt|person|observer|volunteer|proband|respondent|monkey|animal|patient"
_NUMBER = "id|name|label|code|index|number|num|nr|no"
_PERSON = re.compile(
    rf"(({_NUMBER})[ _.-]?)?({_WHO})s?([ _.-]?({_NUMBER}))?|(s|p|pp|vp)[ _.-]?(nr|code)|p?pid|pp|vp", re.I
)


def names_a_person(name: str) -> bool:
    """Whether a column of this name says whose trials they are."""
    return _PERSON.fullmatch(name.strip()) is not None


def people_of(
    columns: Mapping[str, Sequence[str]], stimulus: Sequence[str], taken: Collection[str | None] = ()
) -> dict[str, list[str]]:
    """Labels (sorted) of the people that each column names, by name of the column; ``columns``, ``stimulus``: (n,).

    Columns in ``taken`` are known to name something else, and so does one that numbers the pictures one by one.
    """
    found = {}
    for name, values in columns.items():
        labels = sorted({value for value in values if not is_missing(value)})
        if name in taken or not labels or not names_a_person(name):
            continue
        pairs = len({pair for pair in zip(stimulus, values, strict=True) if not is_missing(pair[1])})
        if not pairs == len(labels) == len(set(stimulus)) > 2:
            found[name] = labels
    return found


def refuse_several(source: str, name: str, labels: Sequence[str], remedy: str, whose: str = "") -> None:
    """Raise `UserError` where the column ``name`` of ``source`` names more than one person; ``remedy``: what to do."""
    if len(labels) > 1:
        raise UserError(
            f"{source}: column {name!r} names {len(labels)} people{whose} ({few(labels)}), who must not be taken for "
            f"one; {remedy}"
        )


def few(names: Sequence[str]) -> str:
    """The first five names, with dots where there are more."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
