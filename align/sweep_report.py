"""What a sweep leaves behind: curves over depth, combined test scores, sweep.csv, sweep.json, best.yaml, layers.png."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from align import retrieval
from align.config import Config, dump_yaml
from align.files import atomic_path, write_atomic, write_json

DIRECTIONS = ("brain_to_image", "image_to_brain")
_PLACE = ("backbone", "encoder", "layer", "subject", "seed", "fold", "split")
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe and Ito: told apart by colour-blind readers


@dataclass(frozen=True)
class Variant:
    """One thing the sweep compares."""

    backbone: str
    encoder: str
    layer: str


@dataclass(frozen=True)
class SweepResult:
    """Where the files of a sweep lie, and the content of sweep.json."""

    folder: Path
    summary: dict[str, Any]

    def table(self) -> str:
        """The sweep as text: one row per layer; ``*`` marks the choice, test columns only where test was read."""
        lines = []
        for curve in self.summary["curves"]:
            lines.append(f"{curve['backbone']}  {curve['encoder']}  (validation on training rows; test read once)")
            lines.append(f"  {'layer':<16} {'validation top-1 %':>24} {'chance':>7} {'test top-1 %':>22} {'p':>8}")
            lines += [_table_row(point, curve) for point in _walked(curve)]
        chosen, final, last = (self.summary[name] for name in ("chosen", "final", "last_layer"))
        lines.append(f"chosen: {chosen['backbone']} layer {chosen['layer']}, encoder {chosen['encoder']}")
        lines.append(
            f"test brain_to_image top-1 {100 * final['top1']:.1f} % (chance {100 * final['chance_top1']:.2f} %, "
            f"n {final['n']}, {final['runs']} runs), last layer {last['layer']} {100 * last['top1']:.1f} %"
        )
        if self.summary["earlier_choices"]:
            lines.append(
                f"note: test rows were scored here for {self.summary['earlier_choices']} earlier choice(s) too"
            )
        return "\n".join(lines)


def curves(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One curve per backbone and encoder: for every layer the mean validation top1 over subjects, seeds and folds.

    ``ci95``: bootstrap over subjects x seeds (each the mean of its folds), None for a single one. ``best`` = the
    highest point, the shallower of two equal ones.
    """
    found: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for cell in cells:
        layers = found.setdefault((cell["backbone"], cell["encoder"]), {})
        layers.setdefault(cell["layer"], []).append(cell)
    result = []
    for (backbone, encoder), layers in found.items():
        points = [_point(layer, members) for layer, members in layers.items()]
        best = max(points, key=lambda point: point["top1"])
        result.append({"backbone": backbone, "encoder": encoder, "points": points, "best": best})
    return result


def _point(layer: str, cells: list[dict[str, Any]]) -> dict[str, Any]:
    runs: dict[tuple[str, int], list[float]] = {}
    scores = [cell["scores"]["brain_to_image"] for cell in cells]
    for cell, score in zip(cells, scores, strict=True):
        runs.setdefault((cell["subject"], cell["seed"]), []).append(score["top1"])
    means = np.array([np.mean(values) for values in runs.values()])
    return {
        "layer": layer,
        "top1": float(means.mean()),
        "ci95": retrieval.bootstrap_interval([means]) if len(means) > 1 else None,
        "runs": len(means),
        "n": int(sum(score["n"] for score in scores) / len({cell["seed"] for cell in cells})),
        "candidates": float(np.mean([score["candidates"] for score in scores])),
        "chance": float(np.mean([score["chance_top1"] for score in scores])),
    }


def combine(tests: list[dict[str, Any]], direction: str) -> dict[str, Any]:
    """One score out of the refits of one variant: mean over subjects and seeds, interval and p over test pictures.

    Runs over the same pictures are averaged picture by picture before resampling or permuting, so seeds and subjects
    do not pass for further pictures; sets of pictures that differ between subjects are independent groups.
    ``n`` counts distinct query pictures.
    """
    groups: dict[tuple[str, ...], list[np.ndarray]] = {}
    for test in tests:
        similarity = test["similarity"] if direction == "brain_to_image" else test["similarity"].T
        matrix = retrieval.top1_matrix(similarity, np.arange(len(similarity)))
        groups.setdefault(tuple(test["ids"]), []).append(matrix)
    matrices = [np.mean(group, axis=0) for group in groups.values()]
    weights = [float(len(group)) for group in groups.values()]
    scores = [test["scores"][direction] for test in tests]
    mean = {name: float(np.mean([score[name] for score in scores])) for name in ("top1", "top5", "median_rank")}
    pool = {name: float(np.mean([score[name] for score in scores])) for name in ("chance_top1", "chance_top5")}
    return {
        **mean,
        "n": sum(len(matrix) for matrix in matrices),
        "runs": len(tests),
        "candidates": float(np.mean([score["candidates"] for score in scores])),
        **pool,
        "ci95_top1": retrieval.bootstrap_interval([np.diag(matrix) for matrix in matrices], weights),
        "p_permutation": retrieval.permutation_p(matrices, weights),
    }


def summarise(
    config: Config, cells: list[dict[str, Any]], tests: list[dict[str, Any]], choice: dict[str, Any]
) -> dict[str, Any]:
    """The content of sweep.json. ``test`` holds the chosen and the last layer of every curve, nothing else."""
    chosen = choice["chosen"]
    by_curve = {(curve["backbone"], curve["encoder"]): curve for curve in curves(cells)}
    walked = []
    for stored in choice["curves"]:
        curve = by_curve[stored["backbone"], stored["encoder"]]
        scored = {}
        for layer in dict.fromkeys([stored["chosen"], stored["last"]]):
            members = [test for test in tests if _is(test, stored["backbone"], stored["encoder"], layer)]
            scored[layer] = {
                **{direction: combine(members, direction) for direction in DIRECTIONS},
                "subjects": _by_subject(members),
            }
        walked.append({**stored, "points": curve["points"], "test": scored})
    final = next(curve for curve in walked if all(curve[name] == chosen[name] for name in ("backbone", "encoder")))
    top, last = (final["test"][final[role]]["brain_to_image"]["top1"] for role in ("chosen", "last"))
    return {
        "schema": 1,
        "study": config.study.name,
        **({"code": config.simulated.code} if config.study.name == "simulated" else {}),
        "subjects": list(dict.fromkeys(cell["subject"] for cell in cells)),
        "seeds": sorted({cell["seed"] for cell in cells}),
        "folds": config.sweep.folds,
        "pooling": config.target.pooling,
        "components": config.target.components,
        "layer_chosen_on": chosen_on(config),
        "chosen": chosen,
        "final": final["test"][final["chosen"]]["brain_to_image"],
        "last_layer": {"layer": final["last"], **final["test"][final["last"]]["brain_to_image"]},
        "times_last_layer": top / last if last > 0 else None,
        "curves": walked,
        "earlier_choices": len(choice["earlier"]),
    }


def chosen_on(config: Config) -> str:
    """How the layer was chosen, the sentence that runs and reports carry along."""
    return f"grouped {config.sweep.folds}-fold cross-validation on training rows"


def best_config(config: Config, chosen: dict[str, str]) -> Config:
    """The recipe with the chosen backbone, encoder and layer in it."""
    backbone = config.backbone
    if chosen["backbone"] != backbone.name:
        backbone = replace(backbone, name=chosen["backbone"], weights=None, image_size=None)
    return replace(
        config,
        backbone=backbone,
        encoder=replace(config.encoder, name=chosen["encoder"]),
        target=replace(config.target, layer=chosen["layer"], chosen_on=chosen_on(config)),
        run_dir=None,
    )


def write_report(
    folder: Path, config: Config, cells: list[dict[str, Any]], tests: list[dict[str, Any]], summary: dict[str, Any]
) -> None:
    """Write sweep.csv (one row per cell and direction), sweep.json, best.yaml and layers.png into ``folder``."""
    write_atomic(folder / "sweep.csv", _csv([*cells, *tests]))
    write_json(folder / "sweep.json", summary)
    write_atomic(folder / "best.yaml", dump_yaml(best_config(config, summary["chosen"])))
    plot(summary, folder / "layers.png")


def plot(summary: dict[str, Any], path: Path) -> None:
    """Validation top1 against depth, one panel per backbone; test scores stand apart as marked points."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    backbones = list(dict.fromkeys(curve["backbone"] for curve in summary["curves"]))
    figure = Figure(figsize=(7.6 * len(backbones), 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels, legends = figure.subplots(2, len(backbones), sharey="row", squeeze=False, height_ratios=[4, 1])
    for axes, below, backbone in zip(panels, legends, backbones, strict=True):
        members = [curve for curve in summary["curves"] if curve["backbone"] == backbone]
        names = list(dict.fromkeys(point["layer"] for curve in members for point in _walked(curve)))
        for place, (curve, colour) in enumerate(zip(members, _COLOURS * len(members), strict=False)):
            _draw_curve(axes, curve, names, colour, 0.16 + 0.12 * place)
        _draw_chance(axes, members[0])
        axes.set_xticks(range(len(names)), names, rotation=0 if max(map(len, names)) < 4 else 40)
        axes.set(xlabel=f"layer of {backbone} (depth →)", ylim=(0, None))
        axes.grid(axis="y", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        below.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=8, ncols=2, loc="center")
        below.axis("off")
    panels[0].set_ylabel("brain → image top-1, %")
    code = f", code {summary['code']}" if "code" in summary else ""
    runs = f"subjects: {len(summary['subjects'])}, seeds: {len(summary['seeds'])}"
    figure.suptitle(f"{summary['study']}{code}  ({runs}; test read once, after the choice)", fontsize=11)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=140)


def _draw_curve(axes: Any, curve: dict[str, Any], names: list[str], colour: str, shift: float) -> None:
    """The validation line with its interval, a ring on the choice, test points beside their layers."""
    x = [names.index(point["layer"]) for point in curve["points"]]
    y = [100 * point["top1"] for point in curve["points"]]
    label = f"{curve['encoder']}: validation"
    if all(point["ci95"] is not None for point in curve["points"]):
        low, high = ([100 * point["ci95"][end] for point in curve["points"]] for end in (0, 1))
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        label += " (band: 95 % over runs)"
    axes.plot(x, y, color=colour, marker="o", markersize=4, label=label)
    place = [point["layer"] for point in curve["points"]].index(curve["chosen"])
    ring = {"markersize": 13, "markerfacecolor": "none", "markeredgecolor": colour, "markeredgewidth": 1.8}
    axes.plot(x[place], y[place], "o", label=f"{curve['encoder']}: chosen on validation: {curve['chosen']}", **ring)
    for layer, score in curve["test"].items():
        found = score["brain_to_image"]
        top, interval = 100 * found["top1"], [100 * end for end in found["ci95_top1"]]
        role = "chosen layer" if layer == curve["chosen"] else "last layer"
        axes.errorbar(
            names.index(layer) + shift,
            top,
            yerr=[[max(top - interval[0], 0)], [max(interval[1] - top, 0)]],
            fmt="D" if role == "chosen layer" else "s",
            color=colour,
            markeredgecolor="black",
            markersize=8,
            capsize=3,
            linewidth=1.2,
            label=f"{curve['encoder']}: TEST, {role} {top:.1f} % (p {_p(found)})",
        )


def _draw_chance(axes: Any, curve: dict[str, Any]) -> None:
    validation = 100 * np.mean([point["chance"] for point in curve["points"]])
    test = 100 * curve["test"][curve["chosen"]]["brain_to_image"]["chance_top1"]
    axes.axhline(validation, color="0.35", linestyle=":", linewidth=1.2, label=f"chance, validation {validation:.2g} %")
    axes.axhline(test, color="0.35", linestyle="--", linewidth=1.2, label=f"chance, test {test:.2g} %")


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


def _csv(cells: list[dict[str, Any]]) -> str:
    """Tidy table: where a score stands, its direction, its values; intervals as two columns."""
    rows = []
    for cell in cells:
        for direction in DIRECTIONS:
            score = dict(cell["scores"][direction])
            score["ci95_low"], score["ci95_high"] = score.pop("ci95_top1")
            rows.append({**{name: cell[name] for name in _PLACE}, "direction": direction, **score})
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
