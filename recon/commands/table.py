"""`recon table`: the row for a paper out of many runs or score files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from align.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Grammar of ``recon table``."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folder, or file of recon score --out")
    parser.add_argument("--by", default="", help="further rows per subject, seed, or subject,seed under each mean")
    parser.add_argument(
        "--paired", nargs="+", type=Path, metavar="RUN", help="base to compare with, stimulus by stimulus"
    )
    parser.add_argument("--seed", type=int, default=0, help="of resampling")
    text = "scores to show, in this order: whole names, or parts, which take every score whose name contains them"
    parser.add_argument("--columns", nargs="+", metavar="SCORE", help=text)
    text = "also the scores of these controls, each behind the score: shuffled zero_brain oracle"
    parser.add_argument("--controls", nargs="+", default=[], metavar="NAME", help=text)
    text = "also p: of retrieval by permutation, of pictures against the --controls (default: shuffled)"
    parser.add_argument("--p", action="store_true", help=text)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--latex", action="store_true", help="LaTeX (booktabs) instead of Markdown")
    form.add_argument("--csv", action="store_true", help="CSV in full precision")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """``rows`` (see `recon.scoring.aggregate.rows`), ``notes``, and the table as ``text``.

    Raises `UserError` when a file is no result, or the base has other subjects or stimuli.
    """
    from align.retrieval.people import MIN_SUBJECTS
    from recon.scoring.aggregate import load_results, rows
    from recon.scoring.methods import grouped
    from recon.scoring.on_demand import add_columns
    from recon.scoring.paired import compare
    from recon.scoring.table_formats import comma_separated, latex, markdown, row_name

    by = [axis.strip() for axis in args.by.split(",") if axis.strip()]
    results = load_results(args.runs)
    add_columns(results, args.controls, args.p)
    table = rows(results, by, seed=args.seed)
    results_and_base = [*results]
    if args.paired:
        base = load_results(args.paired)
        add_columns(base, [], args.p)
        results_and_base += base
        for method, members in grouped(results, lambda result: result.method).items():
            row = next(row for row in table if row["method"] == method)
            row["paired"] = compare(members, base, seed=args.seed)
        table += [{**row, "method": f"{row['method']} (base)"} for row in rows(base, seed=args.seed)]
    if args.columns:
        _keep(table, args.columns)
    notes = []
    if any(row["subjects"] < MIN_SUBJECTS for row in table):
        notes.append(
            f"fewer than {MIN_SUBJECTS} subjects: intervals are over stimuli and say nothing of other subjects"
        )
    if any(row["interval_over"] == "subjects" for row in table):
        notes.append("intervals over subjects are Student's t, mean -+ t(n - 1) s / sqrt(n)")
    if args.paired:
        notes.append("differences from the base, their intervals and p are over stimuli, not over subjects")
    if any(row["interval_over"] == "none" for row in table):
        notes.append("no interval where values per stimulus are not stored; score again to have them")
    if args.p and any(row["subjects"] * row["seeds"] > 1 for row in table):
        notes.append("p of several results is the largest of theirs")
    if any(isinstance(row["candidates"], list) for row in table):
        notes.append("scores among different numbers of candidates were averaged")
    notes += dict.fromkeys(result.apart for result in results_and_base if result.apart)
    if any(name == "top1" or name.startswith("top1(") for row in table for name in row["metrics"]):
        notes.append(
            "n: test pictures behind a score; top1: pictures judged by a network, no retrieval (brain_to_image.top1)"
        )
    for row in table:
        if row["averaged"]:
            notes.append(f"{row_name(row)}: {'; '.join(row['averaged'])}")
        fewer = [name for name, entry in row["metrics"].items() if entry["subjects"] < row["subjects"]]
        if fewer:
            notes.append(f"{row['method']}: not every subject has {', '.join(fewer)}; averaged over those that have")
    if args.csv:
        text = comma_separated(table)
    else:
        text = (latex if args.latex else markdown)(table)
        mark = "% " if args.latex else ""
        text = "\n".join([text, *([""] if notes and not args.latex else []), *(mark + note for note in notes)])
    return {"rows": table, "notes": notes, "text": text}


def _keep(table: list[dict[str, Any]], columns: list[str]) -> None:
    """Leave only the scores that are asked for, in that order; raises `UserError` for one that no row has."""
    every = {name: entry.get("of", name) for row in table for name, entry in row["metrics"].items()}
    known = [name for name, of in every.items() if name == of]
    wanted: dict[str, None] = {}
    for asked in columns:
        found = [asked] if asked in known else [name for name in known if asked.lower() in name.lower()]
        if not found:
            raise UserError(f"--columns: no result has a score {asked!r}; there are: {', '.join(known)}")
        wanted |= dict.fromkeys(name for one in found for name, of in every.items() if of == one)
    for row in table:
        row["metrics"] = {name: row["metrics"][name] for name in wanted if name in row["metrics"]}
        if "paired" in row:
            row["paired"] = {name: row["paired"][name] for name in wanted if name in row["paired"]}
