"""Walks a recipe over subjects, seeds, layers and folds: validation first, then the choice, then the test rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from align.checkpoint import home
from align.config import Config
from align.data.names import file_name, joined_name, subject_name
from align.data.places import Claim
from align.data.splits import refuse_overlap
from align.data.studies import open_study
from align.data.studies.base import Study
from align.files import launched, locked, remove_strays, write_atomic, write_sealed
from align.tracking import Stopwatch, logger, progress_bar
from align.training.fit import check_trials
from align.training.training_set import TrainingSide, device, digest_rows, training_side
from align.vision.backbones import Backbone, load_backbone
from align.vision.fused import candidate_targets, candidates_alike, require_pooling, resolve_layers, training_targets
from align.vision.targets import Targets
from recon.evaluation.provenance import commit, versions
from recon.reproduce import rules
from recon.reproduce.adapt import adapted
from recon.reproduce.curves import Curve, curve, fit_key, pooled
from recon.reproduce.recipe import Recipe, load_recipe
from recon.reproduce.report import markdown, summarise
from recon.reproduce.rules import Cell

Fit = tuple[Cell, Callable[[], Curve]]  # a curve that is read where it is stored, else computed
RESULT, CHOICE = "reproduction.json", "choice.json"
NEXT = "next_choice.json"  # the choice, while results of another configuration are still there
FORMER = (CHOICE, "reproduction.md")  # of another configuration; its curves are found by what they were made of


class Walk:
    """One recipe on one study: its layers, targets, seeds, and the folder where every fit leaves its curve."""

    def __init__(self, recipe: Recipe, study: Study, allowed: bool, given: set[str], progress: bool) -> None:
        self.study, self.progress = study, progress
        config = recipe.config
        self.subjects = _subjects(study, config)
        self.seeds = [config.seed + i for i in range(config.sweep.seeds)]
        first = training_side(study, config, self.subjects[0])
        shape = tuple(first.train.x.shape[1:])
        config, changes = adapted(config, shape, first.facts, len(first.train), allowed, given)
        self.backbone: Backbone = load_backbone(config.backbone).to(device())
        self.layers = [resolve_layers(self.backbone, config.target.layer)]
        if recipe.paper.layer_rule == "test":
            open_layers = config.sweep.layers or list(self.backbone.layers)
            self.layers = list(dict.fromkeys(resolve_layers(self.backbone, layer) for layer in open_layers))
        require_pooling(self.backbone, self.layers, config.target.pooling)
        check_trials(config, shape, first.facts, device())
        widths = [int(np.prod(self.targets(config, first)[layer].tokens.shape[1:])) for layer in self.layers]
        if min(widths) < config.target.components:
            changes.append(f"target.components={min(widths)}: the narrowest layer has no more")
            config = replace(config, target=replace(config.target, components=min(widths)))
        self.recipe = replace(recipe, config=config, stand_ins=(*recipe.stand_ins, *changes))
        self.folder = Path(config.run_dir) if config.run_dir else _default_folder(self.recipe)

    @property
    def config(self) -> Config:
        """The recipe as it is trained here."""
        return self.recipe.config

    def targets(self, config: Config, side: TrainingSide) -> dict[str, Targets]:
        """What is learnt: the tokens of the subject's pictures in every layer, of the views that the recipe names."""
        target, cache = config.target, config.cache_dir
        return training_targets(self.backbone, side.stimuli, self.layers, target, cache, self.progress)

    def candidates(self, side: TrainingSide, targets: dict[str, Targets]) -> dict[str, Targets]:
        """What every rule chooses among: the same tokens, or with ``target.candidate_views`` false those of no view."""
        target, cache = self.config.target, self.config.cache_dir
        if candidates_alike(target):
            return targets
        return candidate_targets(self.backbone, side.stimuli, self.layers, target, cache, self.progress)

    def of_cell(self, layer: str, seed: int) -> Config:
        """The configuration of one fit."""
        return replace(self.config, seed=seed, target=replace(self.config.target, layer=layer, chosen_on=""))

    def path(self, cell: Cell, part: str) -> Path:
        """Where the curve of one fit lies."""
        layer, subject, seed = cell
        name = joined_name([part, file_name(layer), subject_name(subject), f"seed-{seed}"])
        return self.folder / "curves" / f"{name}.safetensors"


def reproduce(
    name: str,
    study_file: Path | Sequence[Path] | None,
    pairs: list[str],
    *,
    adapt: bool = False,
    progress: bool = True,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train recipe ``name`` and score it under its own rule, under the clean rule, and (marked) as the test chooses.

    Returns the content of ``reproduction.json`` and the ``text`` of ``reproduction.md``; both lie in ``run_dir``
    (default ``runs/reproduce/<recipe>_<study>``) beside ``choice.json``, written before any test row is scored, and
    ``curves/``, one file per fit: a killed call continues behind the last of them. With ``overwrite`` it replaces a
    reproduction of another configuration there.

    Raises
    ------
    UserError
        Bad recipe, configuration or files; an encoder that cannot read the trials (see `adapted`); a folder with a
        reproduction of another configuration.
    """
    watch = Stopwatch()
    recipe = load_recipe(name, study_file, pairs)
    given = {pair.partition("=")[0].strip() for pair in pairs}
    walk = Walk(recipe, open_study(recipe.config), adapt, given, progress)
    for change in walk.recipe.stand_ins:
        logger.info("%s: %s", walk.recipe.name, change)
    doing = f"reproducing into {str(walk.folder)!r}"
    first = launched.is_first()  # it keeps others out for all processes of a launch
    with locked(walk.folder / ".reproduce.lock", doing, wait=None, keep=False) if first else nullcontext():
        if first:
            remove_strays(walk.folder / "curves")
        launched.wait()
        return _reproduce(walk, _claim(walk, adapt, overwrite), watch)


def _claim(walk: Walk, adapt: bool, overwrite: bool) -> Claim:
    """The folder, for one recipe on one study; it is taken when all is computed."""
    asked = {"recipe": walk.recipe.name, "adapt": adapt, "subjects": walk.subjects, "seeds": walk.seeds}
    asked |= {"layers": walk.layers, "folds": walk.config.sweep.folds}
    instead = "Choose another folder (run_dir=FOLDER)"
    claim = Claim(walk.folder, RESULT, walk.config, instead, asked, overwrite, FORMER)
    claim.check()
    return claim


def _reproduce(walk: Walk, claim: Claim, watch: Stopwatch) -> dict[str, Any]:
    validation = _validate(walk)
    chosen = rules.clean(validation, walk.layers)
    with launched.first_then_others():
        if launched.is_first():
            write_sealed(walk.folder / (NEXT if claim.replaces else CHOICE), chosen.as_json())
    test, ids = _test(walk)
    paper = walk.recipe.paper
    choices = {
        "own_rule": rules.own(test, walk.layers, paper.epoch_rule),
        "clean": chosen,
        "oracle": rules.oracle(test, walk.layers),
    }
    found = summarise(choices, test, ids)
    measured = watch.read()
    result = {**_facts(walk), **found, "seconds": measured["seconds"], "measured": measured}
    text = markdown(result)
    if launched.is_first():
        claim.take()
        (walk.folder / NEXT).unlink(missing_ok=True)
        write_sealed(walk.folder / CHOICE, chosen.as_json())
        write_sealed(walk.folder / RESULT, result)
        write_atomic(walk.folder / "reproduction.md", text + "\n")
    return {**result, "folder": str(walk.folder), "text": text}


def _validate(walk: Walk) -> dict[Cell, np.ndarray]:
    """Validation top-1 after every epoch (E,) of every cell: rows of all folds, each scored by the fit without it."""
    total = len(walk.subjects) * len(walk.layers) * len(walk.seeds) * walk.config.sweep.folds
    parts: dict[Cell, list[Curve]] = {}
    for cell, found in _computed(walk, _folds, total, "cross-validation"):
        parts.setdefault(cell, []).append(found)
    return {cell: pooled(curves) for cell, curves in parts.items()}


def _test(walk: Walk) -> tuple[dict[Cell, Curve], dict[str, list[str]]]:
    """Refits on all training rows: the curve of every cell on the test rows; of every subject the test picture ids."""
    ids: dict[str, list[str]] = {}
    for name in walk.subjects:
        recording = walk.study.recording(name)
        refuse_overlap(recording)
        ids[name] = [recording.stimuli.ids[i] for i in recording.test.averaged().stimulus]
    total = len(walk.subjects) * len(walk.layers) * len(walk.seeds)
    return dict(_computed(walk, _refits, total, "refit")), ids


def _computed(walk: Walk, fits: Callable[[Walk], Iterator[Fit]], total: int, stage: str) -> list[tuple[Cell, Curve]]:
    """The curve of each of ``fits``, in their order. Several processes of a launch compute every n-th of them each, and
    find those of the others on disk."""
    rank, size = launched.place()
    bar = progress_bar(total, stage, walk.progress, unit="fit")
    if size > 1:
        for number, (_, fitted) in enumerate(fits(walk)):
            if number % size == rank:
                fitted()
            bar.update()
        launched.wait()
    found = []
    for cell, fitted in fits(walk):
        found.append((cell, fitted()))
        if size == 1:
            bar.update()
    bar.close()
    return found


def _folds(walk: Walk) -> Iterator[Fit]:
    """Fits without one fold, scored on its rows."""
    for name in walk.subjects:
        side = training_side(walk.study, walk.config, name)
        targets = walk.targets(walk.config, side)
        among = walk.candidates(side, targets)
        for layer in walk.layers:
            for seed in walk.seeds:
                for fold in range(len(side.folds)):
                    cell = (layer, name, seed)
                    yield cell, partial(_fold, walk, cell, side, fold, targets[layer], among[layer])


def _refits(walk: Walk) -> Iterator[Fit]:
    """Fits on all training rows, scored on the test rows."""
    for name in walk.subjects:
        side = training_side(walk.study, walk.config, name)
        held = walk.study.recording(name).test.averaged()
        targets = walk.targets(walk.config, side)
        among = walk.candidates(side, targets)
        for layer in walk.layers:
            for seed in walk.seeds:
                cell, config = (layer, name, seed), walk.of_cell(layer, seed)
                key = fit_key(config, targets[layer], side, f"test rows {digest_rows(held)}")
                rows, path = np.arange(len(side.train)), walk.path(cell, "test")
                yield cell, partial(curve, path, key, config, side, rows, held, targets[layer], among[layer])


def _fold(walk: Walk, cell: Cell, side: TrainingSide, fold: int, targets: Targets, among: Targets) -> Curve:
    rows, held = side.fold(fold)
    config = walk.of_cell(cell[0], cell[2])
    key = fit_key(config, targets, side, f"fold {fold} of {len(side.folds)}, dealt by seed {walk.config.seed}")
    return curve(walk.path(cell, f"fold-{fold}"), key, config, side, rows, held, targets, among)


def _subjects(study: Study, config: Config) -> list[str]:
    """Those asked for, all if none; raises `UserError` for one the study does not have."""
    for name in config.subjects:
        study.require_subject(name)
    return list(dict.fromkeys(config.subjects or study.default_subjects))


def _facts(walk: Walk) -> dict[str, Any]:
    paper, config = walk.recipe.paper, walk.config
    return {
        "schema": 1,
        "kind": "reproduction",
        "recipe": walk.recipe.name,
        "paper": asdict(paper),
        "study": config.study.name,
        **({"code": config.simulated.code} if config.study.name == "simulated" else {}),
        "encoder": config.encoder.name,
        "backbone": config.backbone.name,
        "layers": walk.layers,
        "epochs": config.train.epochs,
        "seeds": walk.seeds,
        "commit": commit(),
        "versions": versions(),
        "folds": config.sweep.folds,
        "stand_ins": list(walk.recipe.stand_ins),
        "published": asdict(paper.number(config.study.name)),
    }


def _default_folder(recipe: Recipe) -> Path:
    code = [recipe.config.simulated.code] if recipe.config.study.name == "simulated" else []
    labels = (recipe.name, recipe.config.study.name, *code)
    return home() / "runs" / "reproduce" / joined_name([file_name(label) for label in labels])
