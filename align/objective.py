"""What is minimised on a batch: augmented signals through the network, the named parts of the loss."""

from __future__ import annotations

import numpy as np
import torch

from align.batches import Batch
from align.config import Config
from align.distributed import all_rows
from align.losses import info_nce, token_regression
from align.model import Network


def loss_parts(network: Network, config: Config, batch: Batch, gain: torch.Tensor) -> dict[str, torch.Tensor]:
    """The parts of the loss with a weight above 0, by name; augments the batch with noise and mixup."""
    signals, components = batch.signals, batch.components
    stimulus = all_rows(batch.stimulus)
    same = None if batch.distinct else stimulus[:, None] == stimulus
    if config.train.mixup > 0:
        share = float(np.random.beta(config.train.mixup, config.train.mixup))
        other = torch.randperm(len(signals), device=signals.device)
        signals = share * signals + (1 - share) * signals[other]
        components = share * components + (1 - share) * components[other]
        second = all_rows(batch.stimulus[other])
        same = None if same is None else same & (second[:, None] == second)
    if config.train.noise > 0:
        signals = signals + config.train.noise * torch.randn_like(signals)
    hidden = network.encoder(signals)
    parts = {}
    if config.loss.contrastive > 0:
        parts["contrastive"] = info_nce(
            all_rows(hidden),
            all_rows(network.image_head(components * gain)),
            network.logit_scale,
            normalize_brain=config.loss.normalize_brain,
            normalize_image=config.loss.normalize_image,
            label_smoothing=config.loss.label_smoothing,
            same=same,
        )
    if config.loss.regression > 0:
        parts["regression"] = token_regression(all_rows(network.token_head(hidden)), all_rows(components))
    return parts
