"""The table of a reproduction: published, own rule, clean rule, and what the leak is worth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from align.retrieval.people import MIN_SUBJECTS, t_interval
from recon.reproduce.curves import Curve
from recon.reproduce.rules import Cell, Choice
from recon.scoring.paired import compare
from recon.scoring.result import Result

COLUMNS = ("own_rule", "clean", "oracle")
PRICES = ("own_rule", "oracle")  # each minus clean


def summarise(
    choices: Mapping[str, Choice], test: Mapping[Cell, Curve], ids: Mapping[str, list[str]]
) -> dict[str, Any]:
    """``choices``, ``rows`` of every subject and seed, their ``mean``, and the ``price`` of the leak.

    All scores are shares in [0, 1]. A price is the paired difference from the clean rule on the same test pictures and
    seeds: ``difference``, ``ci95`` (bootstrap over pictures, the choices held), ``p`` (two-sided sign flip), and with
    `MIN_SUBJECTS` subjects ``ci95_subjects`` (Student's t).
    """
    results = {name: _results(name, choice, test, ids) for name, choice in choices.items()}
    rows: list[dict[str, Any]] = []
    for place in choices["clean"].epochs:
        scored = {name: _score(choice, test, place) for name, choice in choices.items()}
        pair = {
            name: [one for one in part if (one.subject, one.seed) == (place[0], str(place[1]))]
            for name, part in results.items()
        }
        rows.append({"subject": place[0], "seed": place[1], "n": len(ids[place[0]]), **scored, "price": _prices(pair)})
    mean = {
        name: {score: float(np.mean([row[name][score] for row in rows])) for score in ("top1", "top5")}
        for name in choices
    }
    price = _prices(results)
    if len(ids) >= MIN_SUBJECTS:
        for name in PRICES:
            differences = [
                np.mean([row["price"][name]["difference"] for row in rows if row["subject"] == subject])
                for subject in ids
            ]
            price[name]["ci95_subjects"] = t_interval(np.array(differences))
    told = {name: choice.as_json() for name, choice in choices.items()}
    return {"choices": told, "rows": rows, "mean": mean, "price": price}


def _prices(results: Mapping[str, list[Result]]) -> dict[str, dict[str, Any]]:
    return {name: compare(results[name], results["clean"])["top1"] for name in PRICES}


def _results(name: str, choice: Choice, test: Mapping[Cell, Curve], ids: Mapping[str, list[str]]) -> list[Result]:
    """In the form that paired comparisons take."""
    found = []
    for (subject, seed), epoch in choice.epochs.items():
        hits = test[choice.layer, subject, seed].top1[epoch - 1]
        stimuli = {"top1": dict(zip(ids[subject], map(float, hits), strict=True))}
        found.append(Result(Path(), name, subject, str(seed), {}, stimuli, len(hits), float(len(hits))))
    return found


def _score(choice: Choice, test: Mapping[Cell, Curve], place: tuple[str, int]) -> dict[str, Any]:
    curve, epoch = test[(choice.layer, *place)], choice.epochs[place]
    top1, top5 = (float(values[epoch - 1].mean()) for values in (curve.top1, curve.top5))
    return {"top1": top1, "top5": top5, "layer": choice.layer, "epoch": epoch}


def markdown(result: dict[str, Any]) -> str:
    """The whole table with what it needs to be read; scores in %, prices in points."""
    paper, rows = result["paper"], result["rows"]
    head = (
        "subject",
        "seed",
        "published",
        "its own rule",
        "clean rule",
        "ORACLE (chosen on test)",
        "price of its rule",
        "price of the oracle",
    )
    lines = [
        f"{paper['title']} ({paper['venue']}, arXiv {paper['arxiv']}); status: {paper['status']}",
        f"study {result['study']}, encoder {result['encoder']}, backbone {result['backbone']}, "
        f"{result['epochs']} epochs; brain_to_image top-1 in %, {_candidates(rows)} candidates",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *(_line(result, row) for row in rows),
        _mean_line(result),
        "",
        *(f"- {note}" for note in _notes(result)),
    ]
    return "\n".join(lines)


def _line(result: dict[str, Any], row: dict[str, Any]) -> str:
    cells = [row["subject"], str(row["seed"]), _of_subject(result, row["subject"])]
    cells += [
        f"{100 * row[name]['top1']:.1f} (layer {row[name]['layer']}, epoch {row[name]['epoch']})" for name in COLUMNS
    ]
    cells += [_points(row["price"][name]) for name in PRICES]
    return "| " + " | ".join(cells) + " |"


def _mean_line(result: dict[str, Any]) -> str:
    published = result["published"]
    where = "" if published["study"] == result["study"] else f" on {published['study']}"
    told = f"{published['top1']:.1f}{where}" + ("" if published["in_source"] else " (not read in its source)")
    cells = ["**mean**", str(len(result["seeds"])), told]
    cells += [f"**{100 * result['mean'][name]['top1']:.1f}**" for name in COLUMNS]
    cells += [_points(result["price"][name]) for name in PRICES]
    return "| " + " | ".join(cells) + " |"


def _points(price: dict[str, Any]) -> str:
    def span(ends: list[float]) -> str:
        return f"[{100 * ends[0]:+.1f}, {100 * ends[1]:+.1f}]"

    text = f"{100 * price['difference']:+.1f} {span(price['ci95'])}"
    return text + (f", over subjects {span(price['ci95_subjects'])}" if "ci95_subjects" in price else "")


def _of_subject(result: dict[str, Any], subject: str) -> str:
    published = result["published"]
    known = published["subjects"] if published["study"] == result["study"] else {}
    return f"{known[subject]:.1f}" if subject in known else "–"


def _candidates(rows: list[dict[str, Any]]) -> str:
    counts = sorted({row["n"] for row in rows})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _notes(result: dict[str, Any]) -> list[str]:
    paper, own = result["paper"], result["choices"]["own_rule"]
    layer = (
        "one layer, fixed" if paper["layer_rule"] == "fixed" else f"of {len(result['layers'])} layers the best on test"
    )
    epoch = {"last": "last epoch", "test_top1": "best test epoch", "test_loss": "epoch of the lowest test loss"}
    notes = [
        f"its own rule: {layer}; {epoch[paper['epoch_rule']]}. {paper['rule_note']}. "
        + ("Test rows chose: no clean number." if own["on_test"] else "No test row chose."),
        f"clean rule: layer and epoch by grouped {result['folds']}-fold cross-validation on training rows, then the "
        "test rows are read once",
        "ORACLE: the same choices made on the test rows; never a result",
        "prices in points, minus the clean rule, 95 % bootstrap over test pictures with the choices held"
        + ("; over subjects Student's t" if "ci95_subjects" in result["price"]["oracle"] else ""),
    ]
    for entry in paper["published"]:
        if entry["protocol"] == "intra":
            mark = "" if entry["in_source"] else " [not read in its source]"
            notes.append(
                f"published on {entry['study']}: {entry['top1']:.1f}/{entry['top5']:.1f} top-1/top-5; "
                f"{entry['source']}{mark}"
            )
    notes += [f"here: {change}" for change in result["stand_ins"]]
    return notes + [f"differs from the paper: {difference}" for difference in paper["differences"]]
