"""What is minimised on a batch: augmented signals through the network, the named parts of the loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from align.config import Config
from align.model.aligner import Network
from align.model.losses import info_nce, mmd, sides, siglip, soft_answers, soft_shares, token_regression
from align.training.augment import augmented, mixed, mixture, partners
from align.training.batches import Batch
from align.training.distributed import all_rows
from align.training.uncertainty import Uncertainty


def loss_parts(
    network: Network, config: Config, batch: Batch, gain: torch.Tensor, uncertainty: Uncertainty | None = None
) -> dict[str, torch.Tensor]:
    """The parts of the loss with a weight above 0, by name; augments the batch (mixup or mixco, then `augmented`).

    Of several processes each has its own rows in ``batch``; the loss is that of the rows of all. ``uncertainty`` says
    in which view the image side sees a picture, and takes note of how alike the pairs are.
    """
    same = _same_pictures(batch, batch.stimulus)
    # what the image side sees; with mixco the pictures stay whole
    pictures = batch.components if uncertainty is None else uncertainty.pictures(batch)
    mix = None
    if config.train.mixup > 0:
        batch, same = _mixed_pairs(batch, same, config.train.mixup)
        pictures = batch.components
    elif config.train.mixco > 0:
        partner = partners(batch.subject, len(batch.signals), batch.signals.device)
        mix = mixture(config.train, partner)
        batch = replace(batch, signals=mixed(mix, batch.signals), components=mix @ batch.components)
    hidden = network.encoder(augmented(batch.signals, config.train))
    parts = {}
    if config.loss.contrastive > 0:
        seen = pictures * gain
        embeds = sides(
            all_rows(hidden),
            all_rows(network.image_head(seen, *([batch.subject] if config.target.router else []))),
            normalize_brain=config.loss.normalize_brain,
            normalize_image=config.loss.normalize_image,
        )
        parts["contrastive"] = contrastive(network, config, *embeds, all_rows(seen), same, mix)
        if uncertainty is not None and batch.rows is not None:
            uncertainty.observe(all_rows(batch.rows), network.logit_scale.exp() * (embeds[0] * embeds[1]).sum(1))
        if config.loss.mmd > 0:
            parts["mmd"] = mmd(*embeds)
    if config.loss.regression > 0:
        parts["regression"] = token_regression(
            all_rows(network.token_head(hidden)), all_rows(batch.components), config.loss.regression_kind
        )
    return parts


def contrastive(
    network: Network,
    config: Config,
    brain: torch.Tensor,
    image: torch.Tensor,
    features: torch.Tensor,
    same: torch.Tensor | None,
    mix: torch.Tensor | None,
) -> torch.Tensor:
    """The contrastive part of ``loss.kind`` for embeds (B, E) of signals and pictures, normalised where asked for.

    features: (B, k), fixed, of the pictures. same: as for `info_nce`. mix: (B, B) shares of mixed signals, or None.
    """
    loss, scale = config.loss, network.logit_scale
    wanted = None
    if loss.kind != "infonce" or mix is not None:
        pairs = torch.eye(len(brain), device=brain.device) if same is None else same.float()
        if loss.kind == "siglip":
            logits = scale.exp() * brain @ image.T + network.logit_bias
            return siglip(logits, pairs if mix is None else (mix @ pairs).clamp_max(1))
        soft = loss.kind == "softclip"
        shares = soft_shares(features, loss.soft_temperature) if soft else pairs / pairs.sum(1, keepdim=True)
        wanted = soft_answers(shares, mix)
    smoothing = loss.label_smoothing
    return info_nce(brain, image, scale, normalize_image=False, label_smoothing=smoothing, same=same, wanted=wanted)


def _same_pictures(batch: Batch, stimulus: torch.Tensor) -> torch.Tensor | None:
    """(B, B): rows of all processes that show one picture; None where no picture comes twice."""
    if batch.distinct:
        return None
    every = all_rows(stimulus)
    return every[:, None] == every


def _mixed_pairs(batch: Batch, same: torch.Tensor | None, a: float) -> tuple[Batch, torch.Tensor | None]:
    """Signals and components mixed alike with those of other rows, one share for the whole batch."""
    share = float(np.random.beta(a, a))
    other = torch.randperm(len(batch.signals), device=batch.signals.device)
    signals = share * batch.signals + (1 - share) * batch.signals[other]
    components = share * batch.components + (1 - share) * batch.components[other]
    second = _same_pictures(batch, batch.stimulus[other])
    same = None if same is None or second is None else same & second
    return replace(batch, signals=signals, components=components), same
