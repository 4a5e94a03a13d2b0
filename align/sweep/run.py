"""Which layer? A sweep over backbones x layers x encoders, chosen without looking at the test rows.

    recon sweep --config configs/align/simulated.yaml
    recon sweep --config configs/align/simulated.yaml --layers 2,4,8 sweep.seeds=1 'subjects=[01]'     (small)
    recon sweep --config FILE --processes 8                  the same, by eight processes
    recon sweep --config FILE --list                         one command per cell, for the arrays of a cluster

1. Grouped cross-validation over the training rows: every subject x seed x layer x fold is one cell and one file of
   ``cells/``; a killed sweep continues with the next cell. Folds share no group (scene or concept).
2. The layer with the highest mean brain_to_image top-1 over subjects, seeds and folds is stored in ``choice.json``.
3. Only then are test rows read (not at all with ``--no-test``): the chosen and the last layer are refitted on all
   training rows and scored once.

Every layer is compared at the same pooling and the same number of principal components.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from align.config import Config
from align.data.names import file_name, joined_name, subject_name
from align.data.places import Claim, part_labels, study_labels
from align.data.studies import open_study
from align.data.studies.base import Study
from align.errors import UserError
from align.files import locked, read_json, remove_strays, write_sealed
from align.sweep.cells import Cells
from align.sweep.grid import Cell, Grid, GridWalk, Variant, backbones_of, build_grid, plan, seeds_of
from align.sweep.plots import FIGURES, draw
from align.sweep.points import curves, rounded
from align.sweep.report import TABLES, SweepResult, chosen_on, summarise, write_report
from align.sweep.workers import compute
from align.tracking import Forecast, Stopwatch, progress_bar


def settled(
    config: Config,
    layers: Sequence[str] | None = None,
    encoders: Sequence[str] | None = None,
    backbones: Sequence[str] | None = None,
) -> Config:
    """The configuration with what was asked for beside it (None: what it says itself)."""
    own = config.sweep
    asked = replace(
        own,
        layers=list(layers or own.layers),
        encoders=list(encoders or own.encoders),
        backbones=list(backbones or own.backbones),
    )
    return replace(config, sweep=asked)


def run(
    config: Config,
    layers: Sequence[str] | None = None,
    encoders: Sequence[str] | None = None,
    backbones: Sequence[str] | None = None,
    *,
    out: str | Path | None = None,
    progress: bool = True,
    processes: int = 1,
    test: bool = True,
    overwrite: bool = False,
) -> SweepResult:
    """Choose a layer by grouped cross-validation on training rows, then score it once on the test rows.

    Parameters
    ----------
    config
        Study, subjects, recipe, seeds (``seed`` .. ``seed + sweep.seeds - 1``) and folds.
    layers, encoders, backbones
        What to walk over, in place of ``sweep.layers`` (empty: all), ``sweep.encoders`` (empty: ``encoder.name``) and
        ``sweep.backbones`` (empty: ``backbone.name``).
    out
        Folder of the results, ``run_dir`` or ``runs/sweep/<study>[_<folder>][_<subjects>][_<part>]_<backbone>`` if
        None. It receives sweep.csv, sweep.json, best.yaml, the figures, made_with.json (the configuration),
        choice.json, cells/*.json and test/*.safetensors (similarity matrices).
        One sweep at a time writes there, a second one waits; cells may be computed by any number of processes.
    processes
        How many share the cells; each has its part of torch's threads.
    test
        False: the layer is chosen and nothing else; a later call reads the test rows.
    overwrite
        Replace the results of another configuration in this folder. Other layers, encoders, backbones, seeds and folds
        (``sweep``) are no other configuration: they are counted as later choices.

    Raises
    ------
    UserError
        Unknown subject, layer, encoder or backbone; fewer groups than folds; a worker that was killed; a folder with
        the sweep of another configuration.
    """
    watch = Stopwatch()
    if processes < 1:
        raise UserError(f"{processes} processes: give 1 or more")
    config = settled(config, layers, encoders, backbones)
    folder = folder_of(config, out)
    study = open_study(config)
    walk = plan(config, study)
    grid = build_grid(walk, study, walk.subjects, progress)
    with locked(folder / ".sweep.lock", f"sweeping into {str(folder)!r}", wait=None, keep=False):
        for part in ("cells", "test"):
            remove_strays(folder / part)
        claim = _claim(folder, config, walk.subjects, overwrite)
        claim.check()
        return _sweep(grid, study, claim, processes, test, progress, watch)


def _claim(folder: Path, config: Config, subjects: Sequence[str], overwrite: bool) -> Claim:
    """On the results of one configuration; cells are found by what they hold, and backbones, encoders and layers are
    walked over."""
    own = replace(config, encoder=replace(config.encoder, name="mlp"), backbone=type(config.backbone)())
    own.target = replace(own.target, layer="1")
    instead = "Choose another folder (--out FOLDER)"
    return Claim(folder, "choice.json", own, instead, {"subjects": list(subjects)}, overwrite, (*TABLES, *FIGURES))


def _sweep(
    grid: Grid, study: Study, claim: Claim, processes: int, test: bool, progress: bool, watch: Stopwatch
) -> SweepResult:
    walk, folder = grid.walk, claim.folder
    cells = Cells(grid, study, folder)
    validated = _results(cells, walk.cells(), "cross-validation", processes, progress)
    choice = _claimed_choice(claim, grid, validated, test)
    tests = _results(cells, _refits(walk, choice), "refit and test", processes, progress) if test else []
    summary = summarise(grid.config, validated, tests, choice, facts(walk))
    summary["measured"] = watch.read()
    summary["seconds"] = summary["measured"]["seconds"]
    write_report(folder, grid.config, [*validated, *tests], summary, walk.backbones)
    draw(summary, folder)
    return SweepResult(folder, summary)


def compute_cells(
    config: Config, numbers: Sequence[int], out: str | Path | None = None, progress: bool = True
) -> dict[str, Any]:
    """Compute and store the cells of the given numbers (those of `list_cells`); `run` finds them later.

    Reads only their subjects. Raises `UserError` for a number that is no cell's, and as `run` does.
    """
    folder, study = folder_of(config, out), open_study(config)
    walk = plan(config, study)
    every = walk.cells()
    for number in numbers:
        if not 0 <= number < len(every):
            raise UserError(f"there is no cell {number}; this sweep has cells 0 to {len(every) - 1}")
    asked = [every[number] for number in dict.fromkeys(numbers)]
    subjects = list(dict.fromkeys(cell.subject for cell in asked))
    results = _results(Cells(build_grid(walk, study, subjects, progress), study, folder), asked, "cells", 1, progress)
    scores = {str(c): r["scores"]["brain_to_image"]["top1"] for c, r in zip(asked, results, strict=True)}
    return {"folder": str(folder), "validation_top1": scores}


def list_cells(config: Config) -> list[Cell]:
    """Every cell of the cross-validation; a cell's number is its place here."""
    return plan(config, open_study(config)).cells()


def folder_of(config: Config, out: str | Path | None = None) -> Path:
    """``out``, else ``run_dir``, else a telling name under ``runs/sweep``."""
    if out or config.run_dir:
        return Path(out or config.run_dir or "").expanduser()
    code = [config.simulated.code] if config.study.name == "simulated" else []
    part, told = part_labels(config)
    people = [subject_name(subject) for subject in config.subjects]
    name = joined_name([*study_labels(config), *people, *part, *map(file_name, (*code, *backbones_of(config)))], told)
    return Path(os.environ.get("RECON_HOME") or ".") / "runs" / "sweep" / name


def facts(walk: GridWalk) -> dict[str, Any]:
    """Of every backbone: parameters of the loaded model, and the relative depth of its swept layers."""
    found: dict[str, Any] = {}
    for name, model in walk.models.items():
        swept = {variant.layer: walk.depth(variant) for variant in walk.variants if variant.backbone == name}
        swept.setdefault(walk.last(name), 1.0)
        found[name] = {
            "parameters": sum(value.numel() for value in model.parameters()),
            "layers": len(model.layers),
            "depth": swept,
        }
    return found


def _results(cells: Cells, plan: Sequence[Cell], stage: str, processes: int, progress: bool) -> list[dict[str, Any]]:
    """The result of every cell of ``plan``, in its order; those that are stored are not computed again."""
    found = {cell: cells.find(cell) for cell in plan}
    missing = [cell for cell, result in found.items() if result is None]
    forecast = Forecast(stage, len(missing), "fit", progress)
    bar = progress_bar(len(plan), stage, progress, len(plan) - len(missing), unit="fit")
    if processes > 1 and len(missing) > 1:
        start = bar.n
        compute(cells.grid.walk.config, cells.folder, missing, processes, lambda n: bar.update(start + n - bar.n))
        found |= {cell: cells.find(cell) for cell in missing}
    results = []
    for cell in plan:
        result = found[cell]
        if result is None:
            result = cells.compute(cell)
            bar.update()
            forecast.done()
        results.append(result)
    bar.close()
    return results


def _refits(walk: GridWalk, choice: dict[str, Any]) -> list[Cell]:
    """The chosen and the last layer of every curve."""
    return [
        Cell(Variant(curve["backbone"], curve["encoder"], layer), subject, seed, None)
        for curve in choice["curves"]
        for layer in dict.fromkeys([curve["chosen"], curve["last"]])
        for subject in walk.subjects
        for seed in seeds_of(walk.config, curve["encoder"])
    ]


def _claimed_choice(claim: Claim, grid: Grid, cells: list[dict[str, Any]], test: bool) -> dict[str, Any]:
    """`_store_choice`, and what it was made with; tables and figures of another configuration go first."""
    replaces = claim.replaces
    if not replaces:
        claim.tell()
    for name in claim.former if replaces else ():
        (claim.folder / name).unlink(missing_ok=True)
    choice = _store_choice(claim.folder / claim.results, grid, cells, test)
    if replaces:  # a choice without the words that it was made with could not be continued
        claim.tell()
    return choice


def _store_choice(path: Path, grid: Grid, cells: list[dict[str, Any]], test: bool) -> dict[str, Any]:
    """Choose the best layer of every curve and the best curve; write it down before any test row is read.

    Choices stored earlier in the same folder, whose test scores somebody may have seen, are kept under ``earlier``;
    ``test_read``: whether those of this one were, or are about to be.
    """
    found = curves(cells)
    best = max(found, key=lambda curve: rounded(curve["best"]["top1"]))
    choice: dict[str, Any] = {
        "criterion": f"mean brain_to_image top1 over subjects and seeds, {chosen_on(grid.config)}",
        "chosen": {"backbone": best["backbone"], "encoder": best["encoder"], "layer": best["best"]["layer"]},
        "curves": [
            {
                "backbone": curve["backbone"],
                "encoder": curve["encoder"],
                "chosen": curve["best"]["layer"],
                "last": grid.walk.last(curve["backbone"]),
                "validation_top1": {point["layer"]: point["top1"] for point in curve["points"]},
            }
            for curve in found
        ],
    }
    before: dict[str, Any] = read_json(path) if path.is_file() else {"test_read": False}
    earlier, seen = before.pop("earlier", []), before.pop("test_read", True)
    same = before == choice
    choice["test_read"] = test or (seen and same)
    choice["earlier"] = [*earlier, before] if seen and not same else earlier
    write_sealed(path, choice)
    return choice
