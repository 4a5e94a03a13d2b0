"""What a sweep walks over: the training side of every subject, the variants, their targets, the recipe of one fit."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from align.config import Config
from align.data.signals import Stimuli, Trials, fingerprint
from align.data.splits import grouped_folds
from align.data.studies.base import Study
from align.encoders import CLOSED_FORM, ENCODERS
from align.encoders.shapes import SignalFacts
from align.errors import UserError
from align.sweep_report import Variant
from align.tracking import logger
from align.training_set import training_rows
from align.vision.backbones import load_backbone
from align.vision.fused import layer_targets, parts_of, resolve_layers
from align.vision.targets import Targets

_SEEDLESS = CLOSED_FORM  # closed form: every seed gives the same model, so one is fitted


@dataclass(frozen=True)
class Subject:
    """The training side of one subject: rows to fit on, rows to validate on (repetitions averaged).

    ``folds``: pairs (pictures to fit on, pictures to validate on).
    """

    name: str
    stimuli: Stimuli
    train: Trials
    averaged: Trials
    folds: list[tuple[np.ndarray, np.ndarray]]
    digest: str
    facts: SignalFacts


@dataclass(frozen=True)
class Grid:
    """Everything the sweep walks over; ``last`` = the last layer of each backbone, swept or not."""

    config: Config
    subjects: list[Subject]
    variants: list[Variant]
    last: dict[str, str]
    targets: dict[tuple[str, str, str], Targets]  # by backbone, layer, subject


def subject_names(study: Study, config: Config) -> list[str]:
    """The subjects asked for, all if none; raises `UserError` for one the study does not have."""
    for name in config.subjects:
        study.require_subject(name)
    return list(dict.fromkeys(config.subjects or study.subjects))


def checked_encoders(names: Sequence[str]) -> list[str]:
    """Known encoder names, each once; raises `UserError` with the nearest name for an unknown one."""
    for name in names:
        if name not in ENCODERS:
            near = difflib.get_close_matches(name, ENCODERS, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(f"encoder {name!r} is not known; {hint}Known: {', '.join(ENCODERS)}")
    return list(dict.fromkeys(names))


def training_side(study: Study, config: Config, name: str) -> Subject:
    """Training rows and folds of one subject; its test rows are not touched."""
    recording = study.recording(name)
    averaged = training_rows(recording, True, config.cache_dir)
    train = averaged if config.train.average_repetitions else recording.train
    groups = np.asarray(recording.stimuli.groups)[averaged.stimulus]
    pairs = grouped_folds(groups, config.sweep.folds, config.seed)
    folds = [(averaged.stimulus[fitted], averaged.stimulus[held_out]) for fitted, held_out in pairs]
    digest = digest_rows(train, groups)
    facts = SignalFacts(recording.sfreq, recording.ch_names)
    return Subject(name, recording.stimuli, train, averaged, folds, digest, facts)


def build_grid(
    config: Config,
    subjects: list[Subject],
    backbones: Sequence[str],
    layers: Sequence[str],
    encoders: Sequence[str],
    progress: bool,
) -> Grid:
    """Extract (or find) the targets of every layer and fix one number of components for all of them."""
    variants: list[Variant] = []
    last: dict[str, str] = {}
    targets: dict[tuple[str, str, str], Targets] = {}
    for name in dict.fromkeys(backbones):
        model = load_backbone(_backbone_config(config, name).backbone).to(device())
        swept = list(dict.fromkeys(resolve_layers(model, layer) for layer in layers)) or list(model.layers)
        swept.sort(key=lambda layer: [model.layers.index(part) for part in parts_of(layer)])
        last[name] = model.layers[-1]
        needed = list(dict.fromkeys([*swept, last[name]]))
        for subject in subjects:
            found = layer_targets(model, subject.stimuli, needed, config.target.pooling, config.cache_dir, progress)
            targets |= {(name, layer, subject.name): value for layer, value in found.items()}
        variants += [Variant(name, encoder, layer) for encoder in encoders for layer in swept]
    width = min(int(np.prod(value.tokens.shape[1:])) for value in targets.values())
    if width < config.target.components:
        logger.warning("target.components lowered to %d for every layer: the narrowest has no more", width)
        config = replace(config, target=replace(config.target, components=width))
    return Grid(config, subjects, variants, last, targets)


def plan_cells(grid: Grid) -> Iterator[tuple[Variant, int, Subject, int]]:
    """Subjects and seeds innermost: neighbours share the target pictures, so their components can be reused."""
    for variant in grid.variants:
        for fold in range(grid.config.sweep.folds):
            for subject in grid.subjects:
                for seed in seeds_of(grid.config, variant.encoder):
                    yield variant, fold, subject, seed


def device() -> str:
    """Where fits and backbones run: the GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def seeds_of(config: Config, encoder: str) -> list[int]:
    """``sweep.seeds`` seeds from ``seed`` on; one where the encoder has no randomness."""
    if config.sweep.seeds < 1:
        raise UserError(f"sweep.seeds={config.sweep.seeds} should be 1 or more")
    return [config.seed + i for i in range(1 if encoder in _SEEDLESS else config.sweep.seeds)]


def recipe_of(config: Config, variant: Variant, seed: int) -> Config:
    """The config of one fit. Tokens are not predicted here, so their spread needs no extra fit."""
    return replace(
        _backbone_config(config, variant.backbone),
        seed=seed,
        encoder=replace(config.encoder, name=variant.encoder),
        target=replace(config.target, layer=variant.layer, spread=0.0, chosen_on=""),
    )


def _backbone_config(config: Config, name: str) -> Config:
    if name == config.backbone.name:
        return config
    return replace(config, backbone=replace(config.backbone, name=name, weights=None, image_size=None))


def digest_rows(trials: Trials, groups: np.ndarray) -> str:
    """SHA-256 of signals (see `fingerprint`), stimulus indices and groups."""
    digest = hashlib.sha256(fingerprint(trials.x).encode())
    for array in (trials.stimulus, groups):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
