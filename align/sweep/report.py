"""What a sweep leaves behind: curves over depth, combined test scores, sweep.csv, sweep.json, best.yaml."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from align.config import BackboneConfig, Config, dump_yaml
from align.data.places import study_labels
from align.files import write_atomic, write_sealed
from align.files.table import harmless
from align.sweep.points import DIRECTIONS, combine, curves, rounded, scaling

TABLES = ("sweep.csv", "sweep.json", "best.yaml")
_PLACE = ("backbone", "encoder", "layer", "subject", "seed", "fold", "split")


@dataclass(frozen=True)
class SweepResult:
    """Where the files of a sweep lie, and the content of sweep.json."""

    folder: Path
    summary: dict[str, Any]

    def table(self) -> str:
        """The sweep as text: one row per layer; ``*`` marks the choice, test columns only where test was read."""
        lines, found = [], self.summary
        note = "test read once" if found["test_read"] else "test not read"
        over = _over(found["curves"])
        for curve in found["curves"]:
            lines.append(f"{curve['backbone']}  {curve['encoder']}  (validation on training rows, {over}; {note})")
            lines.append(f"  {'layer':<16} {'validation top-1 %':>24} {'chance':>7} {'test top-1 %':>22} {'p':>8}")
            lines += [_table_row(point, curve) for point in _walked(curve)]
        chosen = found["chosen"]
        lines.append(f"chosen: {chosen['backbone']} layer {chosen['layer']}, encoder {chosen['encoder']}")
        lines += [f"note: {doubt}" for doubt in doubts(found)]
        if found["test_read"]:
            final, last = found["final"], found["last_layer"]
            lines.append(
                f"test brain_to_image top-1 {100 * final['top1']:.1f} % (chance {100 * final['chance_top1']:.2f} %, "
                f"n {final['n']}, {final['runs']} runs), last layer {last['layer']} {100 * last['top1']:.1f} %"
            )
        else:
            lines.append("test rows were not read; the same command without --no-test reads them once")
        if found["earlier_choices"]:
            lines.append(f"note: test rows were scored here for {found['earlier_choices']} earlier choice(s) too")
        return "\n".join(lines)


def doubts(summary: dict[str, Any]) -> list[str]:
    """What a reader of the choice should know: nothing was above chance, or others were as good."""
    chosen, said = summary["chosen"], []
    points = [(curve, point) for curve in summary["curves"] for point in curve["points"]]
    if not any(point["ci95"] and point["ci95"][0] > point["chance"] for _, point in points):
        said.append("no layer is above chance on validation (no 95 % interval lies above it): the choice is arbitrary")
    places = [
        ({"backbone": curve["backbone"], "encoder": curve["encoder"], "layer": point["layer"]}, point)
        for curve, point in points
    ]
    best = next(point for place, point in places if place == chosen)
    equal = [place for place, point in places if place != chosen and rounded(point["top1"]) == rounded(best["top1"])]
    if equal:
        names = ", ".join(_named(place, chosen) for place in equal)
        said.append(f"the choice is a tie with {names} ({100 * best['top1']:.1f} % each); the first of them was taken")
    return said


def _named(place: dict[str, str], chosen: dict[str, str]) -> str:
    """A layer, with backbone and encoder where they are not those of the choice."""
    other = [f"{name} {place[name]}" for name in ("backbone", "encoder") if place[name] != chosen[name]]
    return " of ".join([f"layer {place['layer']}", *([", ".join(other)] if other else [])])


def _over(curves: list[dict[str, Any]]) -> str:
    return f"intervals over {curves[0]['points'][0]['interval_over']}"


def summarise(
    config: Config,
    cells: list[dict[str, Any]],
    tests: list[dict[str, Any]],
    choice: dict[str, Any],
    backbones: dict[str, Any],
) -> dict[str, Any]:
    """The content of sweep.json. ``test`` holds the chosen and the last layer of every curve, nothing else.

    Without ``tests`` the parts that stand for them are None or empty. ``backbones``: parameters, number of layers and
    relative depth of the swept ones.
    """
    chosen = choice["chosen"]
    by_curve = {(curve["backbone"], curve["encoder"]): curve for curve in curves(cells)}
    walked = []
    for stored in choice["curves"]:
        depth = backbones[stored["backbone"]]["depth"]
        points = by_curve[stored["backbone"], stored["encoder"]]["points"]
        placed = [{**point, "depth": depth[point["layer"]]} for point in points]
        walked.append({**stored, "points": placed, "test": _tested(stored, tests)})
    subjects = list(dict.fromkeys(cell["subject"] for cell in cells))
    final = next(curve for curve in walked if all(curve[name] == chosen[name] for name in ("backbone", "encoder")))
    top, last = (final["test"][final[role]]["brain_to_image"] if tests else None for role in ("chosen", "last"))
    return {
        "schema": 2,
        "study": config.study.name,
        **({"code": config.simulated.code} if config.study.name == "simulated" else {}),
        "subjects": subjects,
        "seeds": sorted({cell["seed"] for cell in cells}),
        "folds": config.sweep.folds,
        "pooling": config.target.pooling,
        "components": config.target.components,
        "layer_chosen_on": chosen_on(config, subjects),
        "chosen": chosen,
        "test_read": bool(tests),
        "final": top,
        "last_layer": {"layer": final["last"], **(last or {})},
        "times_last_layer": top["top1"] / last["top1"] if top and last and last["top1"] > 0 else None,
        "backbones": backbones,
        "curves": walked,
        "scaling": scaling(walked, backbones),
        "earlier_choices": len(choice["earlier"]),
    }


def _tested(stored: dict[str, Any], tests: list[dict[str, Any]]) -> dict[str, Any]:
    """Combined test scores of the chosen and the last layer of one curve; empty where test rows were not read."""
    scored = {}
    for layer in dict.fromkeys([stored["chosen"], stored["last"]] if tests else []):
        members = [test for test in tests if _is(test, stored["backbone"], stored["encoder"], layer)]
        scored[layer] = {
            **{direction: combine(members, direction) for direction in DIRECTIONS},
            "subjects": _by_subject(members),
        }
    return scored


def chosen_on(config: Config, subjects: Sequence[str] = ()) -> str:
    """How the layer was chosen, and with ``subjects`` on whose rows: the sentence that runs and reports carry along."""
    rotated = ", one fold per seed" if config.sweep.rotate else ""
    whose = f" of '{' '.join(study_labels(config))}', subject{'s' * (len(subjects) > 1)} " if subjects else ""
    listed = ", ".join(f"'{subject}'" for subject in subjects)
    return f"grouped {config.sweep.folds}-fold cross-validation on training rows{whose}{listed}{rotated}"


def best_config(
    config: Config, chosen: dict[str, str], backbones: dict[str, BackboneConfig], subjects: Sequence[str]
) -> Config:
    """The recipe with the chosen backbone, encoder and layer in it; ``subjects``: those it was chosen on."""
    return replace(
        config,
        backbone=backbones[chosen["backbone"]],
        encoder=replace(config.encoder, name=chosen["encoder"]),
        target=replace(config.target, layer=chosen["layer"], chosen_on=chosen_on(config, subjects)),
        run_dir=None,
    )


def write_report(
    folder: Path,
    config: Config,
    cells: list[dict[str, Any]],
    summary: dict[str, Any],
    backbones: dict[str, BackboneConfig],
) -> None:
    """Write sweep.csv (see `tidy`), sweep.json and best.yaml into ``folder``."""
    write_atomic(folder / "sweep.csv", tidy(cells, summary["backbones"]))
    write_sealed(folder / "sweep.json", summary)
    write_atomic(
        folder / "best.yaml", dump_yaml(best_config(config, summary["chosen"], backbones, summary["subjects"]))
    )


def _walked(curve: dict[str, Any]) -> list[dict[str, Any]]:
    """The points of a curve, and the last layer behind them where it was not swept."""
    swept = {point["layer"] for point in curve["points"]}
    return [*curve["points"], *([] if curve["last"] in swept else [{"layer": curve["last"]}])]


def _table_row(point: dict[str, Any], curve: dict[str, Any]) -> str:
    layer, left, chance, right, p = point["layer"], "", "", "", ""
    if "top1" in point:
        left = f"{100 * point['top1']:.1f}"
        if point["ci95"] is not None:
            left += f" [{100 * point['ci95'][0]:.1f}, {100 * point['ci95'][1]:.1f}]"
        chance = f"{100 * point['chance']:.2f}"
    if layer in curve["test"]:
        score = curve["test"][layer]["brain_to_image"]
        low, high = (100 * end for end in score["ci95_top1"])
        right, p = f"{100 * score['top1']:.1f} [{low:.1f}, {high:.1f}]", _p(score)
    name = layer + (" *" if layer == curve["chosen"] else "")
    return f"  {name:<16} {left:>24} {chance:>7} {right:>22} {p:>8}"


def _p(score: dict[str, Any]) -> str:
    return f"{score['p_permutation']:.2g}"


def _by_subject(tests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    names = dict.fromkeys(test["subject"] for test in tests)
    return {name: combine([test for test in tests if test["subject"] == name], "brain_to_image") for name in names}


def _is(cell: dict[str, Any], backbone: str, encoder: str, layer: str) -> bool:
    return (cell["backbone"], cell["encoder"], cell["layer"]) == (backbone, encoder, layer)


def tidy(cells: list[dict[str, Any]], backbones: dict[str, Any]) -> str:
    """CSV, one row per score: where it stands, what was asked, the values; intervals as two columns.

    ``level`` picture: which of the pictures (both directions). ``level`` concept or scene: which of the distinct
    concepts (validation, brain_to_image). Losses belong to the fit and are the same in all rows of a cell. An empty
    field: that score does not have the value.
    """
    rows = []
    for cell in cells:
        depth = backbones[cell["backbone"]]["depth"][cell["layer"]]
        place = {**{name: cell[name] for name in _PLACE}, "depth": round(depth, 6)}
        losses = {f"{part}_loss": value for part, value in cell.get("loss", {}).items()}
        for direction in DIRECTIONS:
            score = dict(cell["scores"][direction])
            score["ci95_low"], score["ci95_high"] = score.pop("ci95_top1")
            rows.append({**place, "direction": direction, "level": "picture", **score, **losses})
        if "concept" in cell:
            score = dict(cell["concept"])
            level, n = score.pop("kind"), cell["scores"]["brain_to_image"]["n"]
            rows.append({**place, "direction": "brain_to_image", "level": level, "n": n, **score, **losses})
    text = io.StringIO()
    columns = [*rows[0], *[name for name in ("train_loss", "validation_loss") if name not in rows[0]]]
    writer = csv.DictWriter(text, fieldnames=columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(harmless, rows))
    return text.getvalue()
