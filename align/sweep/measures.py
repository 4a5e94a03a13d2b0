"""What a sweep measures beside retrieval: accuracy at the level of concepts, and the loss on held-out rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from align import retrieval
from align.config import Config
from align.data.signals import Stimuli
from align.model.aligner import Aligner
from align.model.losses import weighted_sum
from align.training.batches import Batch
from align.training.objective import loss_parts
from align.training.schedule import steps_per_epoch


def concept_level(similarity: np.ndarray, stimuli: Stimuli, stimulus: np.ndarray) -> dict[str, Any]:
    """Is the right concept found among the distinct concepts of these pictures? similarity: (n, n), right on diagonal.

    The similarity to a concept is the mean over its pictures, the seen one included. Where the study names no concepts
    its groups (scenes: a picture and its altered versions) stand for them, which ``kind`` says. With one picture for
    every concept this is the accuracy at the level of pictures. ``hits`` (n,): of each picture.
    """
    named = any(stimuli.concepts[i] for i in stimulus)
    labels = np.array([stimuli.concepts[i] for i in stimulus]) if named else np.asarray(stimuli.groups)[stimulus]
    distinct, of = np.unique(labels, return_inverse=True)
    member = np.eye(len(distinct))[of]
    hits = np.diag(retrieval.top1_matrix(similarity @ member / member.sum(0), of))
    return {
        "kind": "concept" if named else "scene",
        "top1": float(hits.mean()),
        "chance_top1": 1 / len(distinct),
        "candidates": len(distinct),
        "hits": hits.tolist(),
    }


@torch.no_grad()
def held_out_loss(aligner: Aligner, x: np.ndarray, tokens: np.ndarray) -> float:
    """What was minimised, on rows x (n, ...) that were not fitted and their pictures' tokens (n, N, D).

    Without dropout and augmentation, which the loss in training has; in batches of the training's size, since the
    contrastive part grows with their number of candidates. Rows are of distinct pictures.
    """
    config, size = _without_augmentation(aligner.config), aligner.config.train.batch_size
    losses = []
    aligner.eval()
    for rows in np.array_split(np.arange(len(x)), steps_per_epoch(len(x), size)):
        signals = aligner.signals(torch.tensor(x[rows], dtype=torch.float32, device=aligner.device))
        components = aligner.targets.encode(torch.tensor(tokens[rows], dtype=torch.float32, device=aligner.device))
        batch = Batch(signals, components, torch.as_tensor(rows, device=aligner.device), distinct=True)
        parts = loss_parts(aligner.network, config, batch, aligner.targets.gain)
        losses.append(float(weighted_sum(parts, config.loss)))
    return float(np.mean(losses))


def _without_augmentation(config: Config) -> Config:
    train = replace(config.train, noise=0.0, mixup=0.0, mixco=0.0, smooth=0.0, channel_dropout=0.0)
    return replace(config, train=train)
