"""Which layer? A sweep over backbones x layers x encoders in one process, chosen without looking at the test rows.

    recon sweep --config configs/align/simulated.yaml
    recon sweep --config configs/align/simulated.yaml --layers 2,4,8 sweep.seeds=1 'subjects=[01]'     (small)

1. Grouped cross-validation over the training rows: every subject x seed x layer x fold is one cell, kept as one line of
   ``cells.jsonl``; a killed sweep continues with the next cell. Folds share no group (scene or concept).
2. The layer with the highest mean brain_to_image top-1 over subjects, seeds and folds is stored in ``choice.json``.
3. Only then are test rows read: the chosen and the last layer are refitted on all training rows and scored once.

Every layer is compared at the same pooling and the same number of principal components.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from align import __version__, retrieval
from align.config import Config, to_dict
from align.data.signals import Trials
from align.data.studies import open_study
from align.data.studies.base import Study
from align.files import read_json, read_tensors, save_tensors, write_atomic, write_json
from align.fit import fit
from align.rows import Rows
from align.sweep_grid import (
    Grid,
    Subject,
    build_grid,
    checked_encoders,
    device,
    digest_rows,
    plan_cells,
    recipe_of,
    seeds_of,
    subject_names,
    training_side,
)
from align.sweep_report import SweepResult, Variant, chosen_on, curves, summarise, write_report
from align.tracking import JsonLines, progress_bar
from align.vision.targets import Targets

_CELL_DRAWS = 500  # bootstrap and permutation draws of one cross-validation cell; the final numbers use 2000


def run(
    config: Config,
    layers: Sequence[str] | None = None,
    encoders: Sequence[str] | None = None,
    backbones: Sequence[str] | None = None,
    *,
    out: str | Path | None = None,
    progress: bool = True,
) -> SweepResult:
    """Choose a layer by grouped cross-validation on training rows, then score it once on the test rows.

    Parameters
    ----------
    config
        Study, subjects, recipe, seeds (``seed`` .. ``seed + sweep.seeds - 1``) and folds.
    layers, encoders, backbones
        What to walk over; if None, ``sweep.layers`` (empty: all), ``sweep.encoders`` (empty: ``encoder.name``)
        and ``backbone.name``.
    out
        Folder of the results, ``run_dir`` or ``runs/sweep/<study>_<backbone>`` if None. It receives sweep.csv,
        sweep.json, best.yaml, layers.png, choice.json, cells.jsonl and test/*.safetensors (similarity matrices).

    Raises
    ------
    UserError
        Unknown subject, layer, encoder or backbone; fewer groups than folds.
    """
    started = time.monotonic()
    names = checked_encoders(encoders or config.sweep.encoders or [config.encoder.name])
    models = list(backbones or [config.backbone.name])
    folder = Path(out or config.run_dir or _default_folder(config, models))
    study = open_study(config)
    subjects = [training_side(study, config, name) for name in subject_names(study, config)]
    grid = build_grid(config, subjects, models, layers or config.sweep.layers, names, progress)
    cells = _cross_validate(grid, folder / "cells.jsonl", progress)
    choice = _store_choice(folder / "choice.json", grid, cells)
    tests = _score_test(grid, study, choice, folder / "test", progress)
    summary = summarise(grid.config, cells, tests, choice)
    summary["seconds"] = round(time.monotonic() - started, 1)
    write_report(folder, grid.config, cells, tests, summary)
    return SweepResult(folder, summary)


def _default_folder(config: Config, backbones: Sequence[str]) -> Path:
    code = [config.simulated.code] if config.study.name == "simulated" else []
    name = "_".join([config.study.name, *code, *backbones])
    return Path(os.environ.get("RECON_HOME") or ".") / "runs" / "sweep" / _safe(name)


def _cross_validate(grid: Grid, path: Path, progress: bool) -> list[dict[str, Any]]:
    """One scored cell per variant, fold, subject and seed; those already in ``path`` are not computed again."""
    plan = list(plan_cells(grid))
    store = JsonLines(path)
    done = {cell["key"]: cell for cell in store.read()}
    write_atomic(path, "".join(json.dumps(cell) + "\n" for cell in done.values()))  # without a line cut by a kill
    bar = progress_bar(len(plan), "cross-validation", progress, unit="fit")
    cells = []
    for variant, fold, subject, seed in plan:
        recipe = recipe_of(grid.config, variant, seed)
        targets = grid.targets[variant.backbone, variant.layer, subject.name]
        part = f"fold {fold} of {len(subject.folds)}, dealt by seed {grid.config.seed}"
        key = _key(recipe, targets, subject, part)
        if key not in done:
            scores = _score_fold(recipe, subject, fold, targets)
            done[key] = {**_where(key, variant, subject.name, seed, str(fold), "validation"), "scores": scores}
            store(done[key])
        cells.append(done[key])
        bar.update()
    bar.close()
    return cells


def _score_fold(recipe: Config, subject: Subject, fold: int, targets: Targets) -> dict[str, Any]:
    fit_on, held_out = subject.folds[fold]
    fitted = np.flatnonzero(np.isin(subject.train.stimulus, fit_on))
    validation = subject.averaged.take(np.flatnonzero(np.isin(subject.averaged.stimulus, held_out)))
    similarity = _similarity(recipe, subject, fitted, validation, targets)
    return retrieval.both_directions(similarity, seed=recipe.seed, n_boot=_CELL_DRAWS, n_perm=_CELL_DRAWS)


def _store_choice(path: Path, grid: Grid, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Choose the best layer of every curve and the best curve; write it down before any test row is read.

    Choices stored earlier in the same folder, whose test scores somebody may have seen, are kept under ``earlier``.
    """
    found = curves(cells)
    best = max(found, key=lambda curve: curve["best"]["top1"])
    choice: dict[str, Any] = {
        "criterion": f"mean brain_to_image top1 over subjects and seeds, {chosen_on(grid.config)}",
        "chosen": {"backbone": best["backbone"], "encoder": best["encoder"], "layer": best["best"]["layer"]},
        "curves": [
            {
                "backbone": curve["backbone"],
                "encoder": curve["encoder"],
                "chosen": curve["best"]["layer"],
                "last": grid.last[curve["backbone"]],
                "validation_top1": {point["layer"]: point["top1"] for point in curve["points"]},
            }
            for curve in found
        ],
    }
    before = read_json(path) if path.is_file() else {}
    earlier = before.pop("earlier", [])
    choice["earlier"] = [*earlier, before] if before and before != choice else earlier
    write_json(path, choice)
    return choice


def _score_test(grid: Grid, study: Study, choice: dict[str, Any], folder: Path, progress: bool) -> list[dict[str, Any]]:
    """Refit the chosen and the last layer of every curve on all training rows and score the test rows."""
    plan = [
        (Variant(curve["backbone"], curve["encoder"], layer), subject, seed)
        for curve in choice["curves"]
        for layer in dict.fromkeys([curve["chosen"], curve["last"]])
        for subject in grid.subjects
        for seed in seeds_of(grid.config, curve["encoder"])
    ]
    held_out = {subject.name: study.recording(subject.name).test.averaged() for subject in grid.subjects}
    bar = progress_bar(len(plan), "refit and test", progress, unit="fit")
    tests = []
    for variant, subject, seed in plan:
        rows = held_out[subject.name]
        recipe = recipe_of(grid.config, variant, seed)
        targets = grid.targets[variant.backbone, variant.layer, subject.name]
        key = _key(recipe, targets, subject, f"refit, test rows {digest_rows(rows, rows.stimulus)}")
        where = _where(key, variant, subject.name, seed, "refit", "test")
        where["ids"] = [subject.stimuli.ids[i] for i in rows.stimulus]
        name = f"{variant.backbone}_{variant.encoder}_{variant.layer}_sub-{subject.name}_seed-{seed}"
        path = folder / f"{_safe(name)}.safetensors"
        similarity = _stored_similarity(path, key)
        if similarity is None:
            similarity = _similarity(recipe, subject, np.arange(len(subject.train)), rows, targets)
            facts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in where.items()}
            save_tensors(path, {"similarity": torch.from_numpy(similarity)}, facts)
        tests.append({**where, "similarity": similarity, "scores": retrieval.report(similarity)})
        bar.update()
    bar.close()
    return tests


def _similarity(recipe: Config, subject: Subject, rows: np.ndarray, held_out: Trials, targets: Targets) -> np.ndarray:
    """Fit on the given training rows and compare held-out rows with their pictures, (n, n) cosine.

    Row i belongs to picture i. The fit reads the tokens of its own training pictures only, so no statistic can come
    from held-out ones.
    """
    stimulus = subject.train.stimulus[rows]
    pictures, index = np.unique(stimulus, return_inverse=True)
    groups = np.asarray(subject.stimuli.groups)[stimulus]
    signals = Rows.of(subject.train.x).only(rows)
    tokens = Rows.of(targets.tokens).only(pictures)
    aligner = fit(
        recipe, signals, tokens, index, groups=groups, widths=targets.widths, facts=subject.facts, device=device()
    )
    embeds = aligner.predict(held_out.x)["embeds"]
    return retrieval.scores(embeds, aligner.embed_images(np.asarray(targets.tokens[held_out.stimulus])))


def _key(recipe: Config, targets: Targets, subject: Subject, part: str) -> str:
    """SHA-256 of all that decides a fit: version, recipe, targets (weights and pictures), the subject's rows, part."""
    tree = to_dict(recipe)
    for name in ("subjects", "sweep", "run_dir", "cache_dir"):
        tree.pop(name)
    text = json.dumps([__version__, tree, targets.key, subject.name, subject.digest, part], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _stored_similarity(path: Path, key: str) -> np.ndarray | None:
    if not path.is_file():
        return None
    tensors, metadata = read_tensors(path)
    similarity: np.ndarray = tensors["similarity"].numpy()
    return similarity if metadata.get("key") == key else None


def _where(key: str, variant: Variant, subject: str, seed: int, fold: str, split: str) -> dict[str, Any]:
    place = {"subject": subject, "seed": seed, "fold": fold, "split": split}
    return {"key": key, **dataclasses.asdict(variant), **place}


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)
