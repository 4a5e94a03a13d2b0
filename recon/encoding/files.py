"""What `recon encode` leaves behind: a table of units for every subject, the facts as JSON, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.files import write_atomic, write_sealed
from recon.comparison.files import csv_text

if TYPE_CHECKING:
    from align.response_models.partition import Partition
    from recon.encoding.scored import Scored
    from recon.encoding.subjects import Subject

STEM = "encoding_pictures-to-responses"
RESULT = f"{STEM}.json"
FORMER = (f"*{STEM}_sub-*.csv", f"{STEM}*.png", "brain-score_*")


def write_encoding(
    folder: Path,
    result: Mapping[str, Any],
    scored: Sequence[Scored],
    subjects: Sequence[Subject],
    divided: Mapping[str, Partition],
) -> None:
    """Tables, maps of places, figures, and last the JSON file."""
    from align.data.names import subject_name
    from recon.encoding.figures import draw_encoding

    for subject in subjects:
        own = [one for one in scored if one.subject == subject.name]
        name = subject_name(subject.name)
        write_atomic(folder / f"{STEM}_{name}.csv", csv_text(unit_rows(own, subject)))
        places = place_rows(own, subject)
        if places:
            write_atomic(folder / f"places_{STEM}_{name}.csv", csv_text(places))
        if divided:
            write_atomic(folder / f"partition_{STEM}_{name}.csv", csv_text(part_rows(divided[subject.name], subject)))
    draw_encoding(folder, result, scored, subjects)
    write_sealed(folder / RESULT, dict(result))


def unit_rows(scored: Sequence[Scored], subject: Subject) -> list[dict[str, Any]]:
    """One row for each unit, set, method and number of pictures; empty where there is no ceiling or no such value."""
    names = dict.fromkeys(name for one in scored for name, value in one.found.items() if value.ndim == 1)
    units, ceiling, rows = subject.layout.units(), subject.ceiling, []
    for one in scored:
        for u, unit in enumerate(units):
            r = float(one.units.r[u])
            divisible = ceiling is not None and bool(ceiling.reliable[u])
            rows.append(
                {
                    "direction": "pictures -> responses",
                    "subject": subject.name,
                    **unit,
                    "set": one.label,
                    "method": one.method,
                    "pictures": one.pictures or "all",
                    "r": r,
                    "r2": float(one.units.r2[u]),
                    "p": float(one.units.p[u]),
                    "q": float(one.units.q[u]),
                    "reliability": "" if ceiling is None else float(ceiling.reliability[u]),
                    "ceiling": "" if ceiling is None else float(ceiling.highest[u]),
                    "corrected": r / float(ceiling.highest[u]) if ceiling is not None and divisible else "",
                    **{name: float(one.found[name][u]) if name in one.found else "" for name in names},
                }
            )
    return rows


def place_rows(scored: Sequence[Scored], subject: Subject) -> list[dict[str, Any]]:
    """Where every unit looks: one row for each unit and place, of methods that say so."""
    units = subject.layout.units()
    return [
        {"subject": subject.name, **unit, "set": one.label, "method": one.method, "pictures": one.pictures or "all"}
        | {"place": place, "share": float(share)}
        for one in scored
        if "place" in one.found
        for u, unit in enumerate(units)
        for place, share in enumerate(one.found["place"][u])
    ]


def part_rows(found: Partition, subject: Subject) -> list[dict[str, Any]]:
    """Explained variance of every unit, divided."""
    rows = []
    for u, unit in enumerate(subject.layout.units()):
        row = {"subject": subject.name, **unit, "full": float(found.full[u]), "shared": float(found.shared[u])}
        for name in found.unique:
            row |= {f"{what} {name}": float(getattr(found, what)[name][u]) for what in ("unique", "alone", "product")}
        rows.append(row)
    return rows
