"""Fits one encoder to one subject's training rows, in memory; with a state folder it can be killed and resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from align.config import Config
from align.data.splits import grouped_folds
from align.encoders.ridge import FOLDS, fit_ridge
from align.errors import UserError
from align.model import Aligner, Network
from align.optimise import Pairs, StateFolder, optimise
from align.schedule import learning_rate
from align.seeding import derive
from align.spaces import SignalSpace, TargetSpace, gather_rows

SPREAD_FOLDS = 5  # the spread of held-out predictions is measured on one fold of this many


def fit(
    config: Config,
    x: np.ndarray,
    tokens: np.ndarray,
    stimulus_index: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    state_dir: str | Path | None = None,
    progress: bool = False,
    metrics: Callable[[dict[str, Any]], None] | None = None,
    device: str | torch.device = "cpu",
) -> Aligner:
    """Train ``config.encoder`` on signals x (n, C, T) or (n, V) and the tokens of the pictures they were recorded for.

    tokens: (K, N, D), any float type, memory maps too; row ``stimulus_index[i]`` belongs to ``x[i]``. Only the rows
    named there are read: all statistics come from training rows. ``groups`` (n,) keeps rows together in the inner
    folds that choose the ridge penalty and measure the spread of predictions; default = the stimulus. ``metrics``
    takes one record per epoch. Training the same rows with the same configuration ends with the same weights, also
    when it was killed and called again with the same ``state_dir``.

    Raises
    ------
    UserError
        Shapes that do not belong together, values that are not finite, too few rows, unknown names in the config.
    """
    _check(config, x, tokens, stimulus_index)
    stimulus, inverse = np.unique(stimulus_index, return_inverse=True)
    groups = np.asarray(stimulus_index) if groups is None else np.asarray(groups)
    pictures = gather_rows(tokens, stimulus).to(device)
    raw = gather_rows(x, np.arange(len(x))).to(device)
    for what, values in (("signals", raw), ("tokens", pictures)):
        if not values.isfinite().all():
            raise UserError(f"the {what} hold values that are not finite; clean them before training")
    targets = TargetSpace.fit(pictures, config.target.components, config.target.whiten)
    signals = SignalSpace.fit(raw, config.encoder.components, project=config.encoder.name in ("mlp", "ridge"))
    labels = torch.as_tensor(inverse, device=device)
    pairs = Pairs(signals(raw), targets.encode(pictures)[inverse], labels, distinct=len(stimulus) == len(x))
    torch.manual_seed(derive(config.seed, "init"))
    aligner = Aligner(config, signals, targets).to(device)
    state = StateFolder(config, pairs, state_dir, metrics)
    if config.encoder.name == "ridge":
        _fit_ridge(aligner, pairs, groups, state)
        return aligner.eval()
    if config.loss.regression > 0 and config.target.spread > 0:
        fit_rows, held_out_rows = grouped_folds(groups, SPREAD_FOLDS, config.seed)[0]
        scout = Network(config, signals.out_shape, targets.components).to(device)
        optimise(scout, config, pairs.take(fit_rows), targets.gain, "spread", state, progress)
        with torch.no_grad():
            held_out = scout.token_head(scout.encoder(pairs.signals[torch.as_tensor(held_out_rows, device=device)]))
        targets.restore_spread(held_out, config.target.spread)
    optimise(aligner.network, config, pairs, targets.gain, "train", state, progress)
    return aligner.eval()


def _check(config: Config, x: np.ndarray, tokens: np.ndarray, stimulus_index: np.ndarray) -> None:
    if len(x) != len(stimulus_index):
        raise UserError(f"{len(x)} trials but {len(stimulus_index)} stimulus indices; give one per trial")
    if x.ndim < 2 or tokens.ndim != 3:
        raise UserError(f"signals {x.shape} and tokens {tokens.shape} should be (n, ...) and (K, N, D)")
    if len(np.unique(stimulus_index)) < 2 * FOLDS:
        raise UserError(f"{len(np.unique(stimulus_index))} different pictures are too few to train on ({2 * FOLDS})")
    if stimulus_index.min() < 0 or stimulus_index.max() >= len(tokens):
        raise UserError(f"stimulus index {stimulus_index.max()} but tokens of {len(tokens)} pictures")
    if (
        config.loss.contrastive < 0
        or config.loss.regression < 0
        or not config.loss.contrastive + config.loss.regression
    ):
        raise UserError("loss.contrastive and loss.regression should be 0 or more, and not both 0")
    learning_rate(config.train.schedule, 0, 1)
    for key in ("train.epochs", "train.batch_size", "train.checkpoint_every", "target.components", "encoder.width"):
        section, name = key.split(".")
        value = getattr(getattr(config, section), name)
        if value < 1:
            raise UserError(f"{key}={value} should be 1 or more")
    for key in ("encoder.dropout", "train.image_dropout"):
        section, name = key.split(".")
        value = getattr(getattr(config, section), name)
        if not 0 <= value < 1:
            raise UserError(f"{key}={value} should be 0 or more and below 1")
    if config.loss.temperature <= 0:
        raise UserError(f"loss.temperature={config.loss.temperature} should be above 0")


def _fit_ridge(aligner: Aligner, pairs: Pairs, groups: np.ndarray, state: StateFolder) -> None:
    folds = grouped_folds(groups, FOLDS, aligner.config.seed)
    result = fit_ridge(pairs.signals.flatten(1), pairs.components, aligner.config.encoder.alphas, folds)
    linear = aligner.network.encoder[1]  # type: ignore[index]
    with torch.no_grad():
        linear.weight.copy_(result.weight)
        linear.bias.copy_(result.bias)
    aligner.targets.restore_spread(result.held_out, aligner.config.target.spread)
    scores = {str(alpha): score for alpha, score in result.scores.items()}
    state.record({"stage": "ridge", "step": 0, "alpha": result.alpha, "held_out_reciprocal_rank": scores})
