"""What a sweep walks over: backbones and their layers, the training side of every subject, targets, the cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from align.config import BackboneConfig, Config
from align.data.studies.base import Study
from align.encoders import CLOSED_FORM
from align.errors import UserError
from align.model.router import check_router
from align.tracking import logger
from align.training.fit import check_trials
from align.training.training_set import TrainingSide, device, training_side
from align.vision.backbones import Backbone, load_backbone
from align.vision.fused import (
    candidate_targets,
    candidates_alike,
    parts_of,
    require_pooling,
    resolve_layers,
    training_targets,
)
from align.vision.targets import Targets

_SEEDLESS = CLOSED_FORM  # closed form: every seed gives the same model, so one is fitted


@dataclass(frozen=True)
class Variant:
    """One thing the sweep compares."""

    backbone: str
    encoder: str
    layer: str


@dataclass(frozen=True)
class Cell:
    """The unit of a sweep, one fit: a variant, a subject, a seed, and the held-out fold (None: the test rows)."""

    variant: Variant
    subject: str
    seed: int
    fold: int | None

    def __str__(self) -> str:
        part = "test" if self.fold is None else f"fold {self.fold}"
        variant = self.variant
        return f"{variant.backbone} {variant.encoder} {variant.layer}, subject {self.subject}, seed {self.seed}, {part}"


@dataclass(frozen=True)
class GridWalk:
    """What is compared, known before any recording is read."""

    config: Config
    models: dict[str, Backbone]
    backbones: dict[str, BackboneConfig]
    variants: list[Variant]
    subjects: list[str]

    def last(self, backbone: str) -> str:
        """The last layer, swept or not."""
        layers: tuple[str, ...] = self.models[backbone].layers
        return layers[-1]

    def depth(self, variant: Variant) -> float:
        """0 for the first layer of the backbone, 1 for the last; the mean of joined layers."""
        layers = self.models[variant.backbone].layers
        places = [layers.index(part) for part in parts_of(variant.layer)]
        return sum(places) / len(places) / max(len(layers) - 1, 1)

    def cells(self) -> list[Cell]:
        """Every fit of the cross-validation, in an order that the configuration alone decides; seeds innermost."""
        return [
            Cell(variant, subject, seed, fold)
            for variant in self.variants
            for subject in self.subjects
            for seed, fold in _seeds_and_folds(self.config, variant.encoder)
        ]


@dataclass(frozen=True)
class Grid:
    """A walk with what its fits read; ``config`` holds one number of components that every layer can give.

    ``targets`` and ``candidates`` by backbone, layer, subject: what is learnt, and what retrieval chooses among. They
    are the same unless ``target.candidate_views`` says otherwise.
    """

    config: Config
    walk: GridWalk
    subjects: dict[str, TrainingSide]
    targets: dict[tuple[str, str, str], Targets]
    candidates: dict[tuple[str, str, str], Targets]


def subject_names(study: Study, config: Config) -> list[str]:
    """The subjects asked for, all if none; raises `UserError` for one the study does not have."""
    for name in config.subjects:
        study.require_subject(name)
    return list(dict.fromkeys(config.subjects or study.default_subjects))


def plan(config: Config, study: Study) -> GridWalk:
    """Load the backbones and resolve the layers of ``config.sweep``; no recording is read.

    Raises `UserError` for an unknown subject, backbone or layer, and for a configuration that cannot be swept.
    """
    encoders = [one.encoder.name for one in config.of_each_encoder()]
    subjects = subject_names(study, config)
    backbones = backbones_of(config)
    models = {name: load_backbone(entry).to(device()) for name, entry in backbones.items()}
    variants = []
    for name, model in models.items():
        swept = list(dict.fromkeys(resolve_layers(model, layer) for layer in config.sweep.layers)) or list(model.layers)
        require_pooling(model, [*swept, model.layers[-1]], config.target.pooling)
        swept.sort(key=lambda layer: [model.layers.index(part) for part in parts_of(layer)])
        variants += [Variant(name, encoder, layer) for encoder in encoders for layer in swept]
    for layer in dict.fromkeys(variant.layer for variant in variants):
        check_router(replace(config, target=replace(config.target, layer=layer)))
    return GridWalk(config, models, backbones, variants, subjects)


def backbones_of(config: Config) -> dict[str, BackboneConfig]:
    """The backbones of a sweep by name. Entries are ``NAME`` or ``NAME@WEIGHTS`` (a file or folder).

    ``backbone.weights`` and ``backbone.image_size`` belong to ``backbone.name`` alone. Raises `UserError` when one name
    stands with two sets of weights: results go by the name.
    """
    found: dict[str, BackboneConfig] = {}
    for entry in config.sweep.backbones or [config.backbone.name]:
        name, _, weights = entry.partition("@")
        own = config.backbone
        if name != own.name:
            own = replace(own, name=name, weights=None, image_size=None, revision=None)
        own = replace(own, weights=weights) if weights else own
        if found.setdefault(name, own) != own:
            raise UserError(f"backbone {name!r} stands twice, with other weights; sweep them into two folders")
    return found


def build_grid(walk: GridWalk, study: Study, subjects: Sequence[str], progress: bool) -> Grid:
    """Read the given subjects and extract (or find) their targets, of all layers of the walk.

    All layers, because the narrowest decides the number of components of every one.
    """
    config = walk.config
    read = {name: training_side(study, config, name) for name in subjects}
    _check_sides(walk, read.values())
    targets = _targets(walk, read, training_targets, progress)
    candidates = targets if candidates_alike(config.target) else _targets(walk, read, candidate_targets, progress)
    width = min(int(np.prod(value.tokens.shape[1:])) for value in targets.values())
    if width < config.target.components:
        if progress:
            logger.warning("target.components lowered to %d for every layer: the narrowest has no more", width)
        config = replace(config, target=replace(config.target, components=width))
    return Grid(config, walk, read, targets, candidates)


def _check_sides(walk: GridWalk, sides: Iterable[TrainingSide]) -> None:
    """Raise `UserError` for an encoder that cannot be trained on the trials of a subject."""
    variants = {variant.encoder: variant for variant in walk.variants}.values()
    for config in [_of_variant(walk.config, variant) for variant in variants]:
        for side in sides:
            check_trials(config, side.train.x.shape[1:], side.facts, device())


def _of_variant(config: Config, variant: Variant) -> Config:
    encoder, target = replace(config.encoder, name=variant.encoder), replace(config.target, layer=variant.layer)
    return replace(config, encoder=encoder, target=target)


def _targets(
    walk: GridWalk, subjects: dict[str, TrainingSide], of: Callable[..., dict[str, Targets]], progress: bool
) -> dict[tuple[str, str, str], Targets]:
    """Tokens of all layers of the walk, and of every backbone's last one, by backbone, layer, subject."""
    found: dict[tuple[str, str, str], Targets] = {}
    for name, model in walk.models.items():
        swept = [variant.layer for variant in walk.variants if variant.backbone == name]
        layers = list(dict.fromkeys([*swept, walk.last(name)]))
        for subject in subjects.values():
            tokens = of(model, subject.stimuli, layers, walk.config.target, walk.config.cache_dir, progress)
            found |= {(name, layer, subject.name): value for layer, value in tokens.items()}
    return found


def seeds_of(config: Config, encoder: str) -> list[int]:
    """``sweep.seeds`` seeds from ``seed`` on; one where the encoder has no randomness."""
    return [config.seed + i for i in range(1 if encoder in _SEEDLESS else config.sweep.seeds)]


def _seeds_and_folds(config: Config, encoder: str) -> list[tuple[int, int]]:
    """Every seed on every fold; with ``sweep.rotate`` seed i on fold i alone, unless one seed stands for all."""
    folds = config.sweep.folds
    if config.sweep.rotate and encoder not in _SEEDLESS:
        return [(seed, i % folds) for i, seed in enumerate(seeds_of(config, encoder))]
    return [(seed, fold) for fold in range(folds) for seed in seeds_of(config, encoder)]


def recipe_of(grid: Grid, variant: Variant, seed: int) -> Config:
    """The config of one fit. Tokens are not predicted here, so their spread needs no extra fit."""
    config = _of_variant(grid.config, variant)
    return replace(
        config,
        seed=seed,
        backbone=grid.walk.backbones[variant.backbone],
        target=replace(config.target, spread=0.0, chosen_on=""),
    )
