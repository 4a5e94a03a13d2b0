"""Rows of `recon.scoring.aggregate` as Markdown, LaTeX or CSV; chance and n stand in every row."""

from __future__ import annotations

import csv
import io
from typing import Any

from align.errors import printable
from align.files.table import harmless

_ARROW = {"higher": "↑", "lower": "↓"}
_TEX = {
    **{"↑": r"$\uparrow$", "↓": r"$\downarrow$", "−": "$-$", "\\": r"\textbackslash{}", "~": r"\textasciitilde{}"},
    **{"^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{sign: f"\\{sign}" for sign in "%_&#${}"},
}


_MARKS = "\\`*|[]#!"  # what Markdown could take for more than a letter inside a cell; _ alone is harmless in words
_HTML = {"<": "&lt;", ">": "&gt;"}


def markdown(rows: list[dict[str, Any]]) -> str:
    """A pipe table, one line per row."""
    header, body = _cells(rows)
    lines = [
        [_marked_down(cell) for cell in header],
        ["---"] * len(header),
        *([_marked_down(line[0]), *map(_in_cell, line[1:])] for line in body),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def latex(rows: list[dict[str, Any]]) -> str:
    """A booktabs tabular."""
    header, body = _cells(rows)
    lines = [r"\begin{tabular}{l" + "r" * (len(header) - 1) + "}", r"\toprule", _tex(header), r"\midrule"]
    return "\n".join([*lines, *map(_tex, body), r"\bottomrule", r"\end{tabular}"])


def comma_separated(rows: list[dict[str, Any]]) -> str:
    """Plain numbers in full precision: NAME, NAME_low, NAME_high, NAME_chance, and NAME_difference... when paired."""
    lines = [_flat(row) for row in rows]
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writerow(harmless({name: name for name in names}))
    writer.writerows(map(harmless, lines))
    return text.getvalue().rstrip("\n")


def _cells(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of text; a column for every score that any row has."""
    scores = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    better = {name: entry["better"] for row in rows for name, entry in row["metrics"].items()}
    compared = list(dict.fromkeys(name for row in rows for name in row.get("paired", {})))
    header = ["method", "subjects", "seeds", "n", "candidates"]
    header += [f"{name} {_ARROW[better[name]]}" for name in scores] + ["95 % interval over"]
    header += [f"{name} − base (p)" for name in compared]
    body = []
    for row in rows:
        line = [row_name(row), str(row["subjects"]), str(row["seeds"]), _plain(row["n"])]
        line += [_plain(row["candidates"]), *(_score(name, row) for name in scores)]
        line += [row["interval_over"], *(_paired(row.get("paired", {}).get(name)) for name in compared)]
        body.append(line)
    return header, body


def row_name(row: dict[str, Any]) -> str:
    """Its method, and the subject and seed it is of."""
    return ", ".join([row["method"], *(f"{axis} {row[axis]}" for axis in ("subject", "seed") if row[axis])])


def _score(name: str, row: dict[str, Any]) -> str:
    """Value, interval, chance or else a control; people where they differ by more than the interval; n and subjects
    where they are not those of the row."""
    entry = row["metrics"].get(name)
    if entry is None:
        return "–"
    if entry.get("kind") == "p":
        return f"{entry['value']:.2g}"
    text = _number(entry["value"])
    if entry["ci95"]:
        text += f" [{_number(entry['ci95'][0])}, {_number(entry['ci95'][1])}]"
    told = [f"chance {_number(entry['chance'])}"] if "chance" in entry else []
    control = entry.get("control", [""])[0]
    if "chance" not in entry and control and f"{name} ({control})" not in row["metrics"]:
        told.append(f"{control} {_number(entry['control'][1])}")
    if _apart(entry):
        told.append(f"people {' to '.join(_number(end) for end in entry['people'])}")
    told += [f"{key} {_plain(entry[key])}" for key in ("n", "subjects") if entry.get(key, row[key]) != row[key]]
    return text + (f" ({', '.join(told)})" if told else "")


def _apart(entry: dict[str, Any]) -> bool:
    """Whether the interval is over stimuli and hides how far people are apart."""
    if "people" not in entry or not entry["ci95"]:
        return False
    (low, high), (least, most) = entry["ci95"], entry["people"]
    return bool(least < low and high < most)


def _paired(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return "–"
    gap, low, high = (_number(value, "+") for value in (entry["difference"], *entry["ci95"]))
    return f"{gap} [{low}, {high}] ({entry['p']:.2g})"


def _number(value: float, sign: str = "") -> str:
    return format(value, f"{sign}.3f" if abs(value) < 10 else f"{sign}.1f").replace("-", "−")


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "/".join(_plain(item) for item in value)
    return "–" if value is None else f"{value:g}"


def _tex(cells: list[str]) -> str:
    return " & ".join("".join(_TEX.get(letter, letter) for letter in _on_one_line(cell)) for cell in cells) + r" \\"


def _on_one_line(cell: str) -> str:
    return printable(" ".join(cell.split()))


def _in_cell(cell: str) -> str:
    return _on_one_line(cell).replace("|", r"\|")


def _marked_down(cell: str) -> str:
    """A cell of a pipe table: on one line, and no sign of it is read as a mark, a link or HTML."""
    return "".join(f"\\{sign}" if sign in _MARKS else _HTML.get(sign, sign) for sign in _on_one_line(cell))


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    line = {key: row[key] for key in ("method", "subject", "seed", "subjects", "seeds", "n")}
    line |= {"candidates": _plain(row["candidates"]), "interval_over": row["interval_over"]}
    for name, entry in row["metrics"].items():
        low, high = entry["ci95"] or (None, None)
        line |= {name: entry["value"], f"{name}_low": low, f"{name}_high": high}
        line |= {f"{name}_n": entry["n"], f"{name}_subjects": entry["subjects"]}
        if "chance" in entry:
            line[f"{name}_chance"] = entry["chance"]
        elif "control" in entry:
            line[f"{name}_{entry['control'][0]}"] = entry["control"][1]
    for name, entry in row.get("paired", {}).items():
        line |= {f"{name}_difference": entry["difference"], f"{name}_difference_low": entry["ci95"][0]}
        line |= {f"{name}_difference_high": entry["ci95"][1], f"{name}_difference_p": entry["p"]}
    return line
