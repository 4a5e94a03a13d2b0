"""One fit scored after every epoch, kept in a file: what every rule of choice reads."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from align import __version__, retrieval
from align.config import Config, to_dict
from align.data.signals import Trials
from align.errors import Damaged, UserError
from align.files import read_tensors, save_tensors
from align.model.aligner import Aligner
from align.model.losses import info_nce
from align.training.training_set import TrainingSide
from align.vision.targets import Targets

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Curve:
    """Held-out scores after each of E epochs: expected hits ``top1``, ``top5`` (E, n) of every row, ``loss`` (E,)."""

    top1: np.ndarray
    top5: np.ndarray
    loss: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Top-1 (E,)."""
        mean: np.ndarray = self.top1.mean(axis=1)
        return mean


def curve(
    path: Path,
    key: str,
    config: Config,
    side: TrainingSide,
    rows: np.ndarray,
    held: Trials,
    at: Targets,
    among: Targets,
) -> Curve:
    """`fit_curve`, or what an earlier call with the same ``key`` left in ``path``."""
    if path.is_file():
        try:
            tensors, metadata = read_tensors(path)
            if metadata.get("key") == key:
                return Curve(**{name: value.numpy() for name, value in tensors.items()})
        except Damaged as error:
            logger.warning("%s; this curve is computed again", error)
    found = fit_curve(config, side, rows, held, at, among)
    save_tensors(path, {name: torch.from_numpy(value) for name, value in vars(found).items()}, {"key": key})
    return found


def fit_curve(
    config: Config, side: TrainingSide, rows: np.ndarray, held_out: Trials, targets: Targets, among: Targets
) -> Curve:
    """Fit on the given training rows; after every epoch rank the pictures of ``held_out`` (n rows, one each) for them.

    ``targets``: what is learnt; ``among``: the tokens of the pictures that are ranked. Raises `UserError` for an
    encoder that is not trained in epochs.
    """
    tokens = np.asarray(among.tokens[held_out.stimulus])
    scored: list[tuple[list[float], list[float], float]] = []

    def after_epoch(aligner: Aligner, epoch: int) -> None:
        embeds, candidates = aligner.predict(held_out.x)["embeds"], aligner.embed_images(tokens)
        hits = retrieval.per_stimulus(retrieval.scores(embeds, candidates))["brain_to_image"]
        scored.append((hits["top1"], hits["top5"], _loss(aligner, embeds, candidates)))

    side.fit(config, rows, targets, after_epoch=after_epoch)
    if not scored:
        raise UserError(f"encoder.name={config.encoder.name} is solved, not trained in epochs: nothing to choose among")
    top1, top5, loss = (np.array(part, dtype=np.float32) for part in zip(*scored, strict=True))
    return Curve(top1, top5, loss)


def _loss(aligner: Aligner, embeds: np.ndarray, candidates: np.ndarray) -> float:
    """The contrastive loss of held-out rows against one another."""
    settings = aligner.config.loss
    value = info_nce(
        torch.from_numpy(embeds),
        torch.from_numpy(candidates),
        aligner.network.logit_scale.detach().cpu(),
        normalize_brain=settings.normalize_brain,
        normalize_image=settings.normalize_image,
    )
    return float(value)


def fit_key(config: Config, targets: Targets, side: TrainingSide, part: str) -> str:
    """SHA-256 of all that decides a curve: version, configuration, targets, the subject's rows, held-out part."""
    tree: dict[str, Any] = to_dict(config)
    for name in ("subjects", "sweep", "run_dir", "cache_dir", "study"):
        tree.pop(name)
    tree["train"].pop("checkpoint_every")
    text = json.dumps([__version__, tree, targets.key, side.name, side.digest, part], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def pooled(parts: Sequence[Curve]) -> np.ndarray:
    """Top-1 (E,) over the rows of several folds, each row once."""
    mean: np.ndarray = np.concatenate([part.top1 for part in parts], axis=1).mean(axis=1)
    return mean
