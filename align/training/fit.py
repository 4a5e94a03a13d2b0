"""Fits one encoder to training rows, held in memory or read as they are needed; can be killed and resumed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from align.config import Config
from align.data.rows import Rows
from align.data.splits import grouped_folds
from align.encoders import CLOSED_FORM, LINEAR_FIRST, check_encoder
from align.encoders.banded_ridge import fit_banded_ridge
from align.encoders.bands import lay_out
from align.encoders.ridge import FOLDS, RidgeFit, fit_ridge
from align.encoders.shapes import SignalFacts
from align.errors import UserError
from align.model.aligner import Aligner, Network
from align.model.router import check_router, fit_targets
from align.model.spaces import SignalSpace
from align.seeding import derive
from align.training.augment import check_augmentation
from align.training.batches import Pairs, StreamedSignals
from align.training.encoding import fit_encoding
from align.training.optimise import StateFolder, optimise
from align.training.precision import check_precision

_AT_ONCE = 4096  # rows predicted at once
SPREAD_FOLDS = 5  # the spread of held-out predictions is measured on one fold of this many


def fit(
    config: Config,
    x: np.ndarray | Rows,
    tokens: np.ndarray | Rows,
    stimulus_index: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    widths: Sequence[int] | None = None,
    view_tokens: Sequence[np.ndarray | Rows] = (),
    facts: SignalFacts | None = None,
    state_dir: str | Path | None = None,
    progress: bool = False,
    metrics: Callable[[dict[str, Any]], None] | None = None,
    after_epoch: Callable[[Aligner, int], None] | None = None,
    device: str | torch.device = "cpu",
) -> Aligner:
    """Train ``config.encoder`` on signals x (n, C, T) or (n, V) and the tokens of the pictures they were recorded for.

    Both are arrays of any float type, memory maps too, or `Rows` of several recordings; what is too large to be held is
    read batch by batch. tokens: (K, N, D); row ``stimulus_index[i]`` belongs to ``x[i]``, and only the rows named there
    are read: all statistics come from training rows. ``groups`` (n,) keeps rows together in the inner folds that choose
    the ridge penalty and measure the spread of predictions; default = the stimulus. ``widths``: the parts of D that
    come from one layer each (default: one layer). ``view_tokens``: tokens of the weak and of the strong view of the
    pictures, shaped like ``tokens``, for ``target.uncertain_views``. ``facts``: rate and channel names, for pretrained
    encoders. ``metrics`` takes one record per epoch, ``after_epoch`` the aligner as it is and the number of epochs
    (encoders that are trained). Training the same rows with the same configuration ends with the same
    weights, also when it was killed and called again with the same ``state_dir``.

    Raises
    ------
    UserError
        Shapes that do not belong together, values that are not finite, too few rows, unknown names in the config.
    """
    rows, tokens = Rows.of(x), Rows.of(tokens)
    _check(config, rows, tokens, stimulus_index, device)
    _check_view_tokens(config, tokens, view_tokens)
    stimulus, inverse = np.unique(stimulus_index, return_inverse=True)
    groups = np.asarray(stimulus_index) if groups is None else np.asarray(groups)
    pictures = tokens.subset(stimulus)
    if config.encoder.name == "encoding":
        return fit_encoding(config, rows, pictures, inverse, groups, tuple(widths or tokens.shape[1:]), device)
    targets = fit_targets(config, pictures, widths, device)
    project = config.encoder.name in LINEAR_FIRST and not config.train.reads_channels
    signals = SignalSpace.fit(rows, config.encoder.components, project, device)
    encoded = signals.encode_all(rows)
    components = targets.encode_all(pictures)
    sides = [targets.encode_all(Rows.of(view).subset(stimulus)) for view in view_tokens]
    pairs = Pairs(
        StreamedSignals(rows, signals) if encoded is None else encoded,
        components,
        torch.as_tensor(inverse, device=device),
        distinct=len(stimulus) == len(rows),
        subject=torch.as_tensor(rows.part, device=device) if len(rows.arrays) > 1 else None,
        levels=torch.stack([sides[0], components, sides[1]]) if sides else None,
    )
    torch.manual_seed(derive(config.seed, "init"))
    subjects = len(rows.arrays)
    aligner = Aligner(config, signals, targets, facts, subjects=subjects).to(device)
    state = StateFolder(config, pairs, state_dir, metrics)
    if config.encoder.name in CLOSED_FORM:
        _fit_ridge(aligner, pairs, groups, state)
        return aligner.eval()
    if config.loss.regression > 0 and config.target.spread > 0:
        fit_rows, held_out_rows = grouped_folds(groups, SPREAD_FOLDS, config.seed)[0]
        scout = Network(config, signals.out_shape, targets.components, facts, subjects=subjects).to(device)
        optimise(scout, config, pairs.subset(fit_rows), targets.gain, "spread", state, progress)
        targets.restore_spread(_predicted(scout, pairs, held_out_rows), config.target.spread)
    told = None if after_epoch is None else partial(after_epoch, aligner)
    optimise(aligner.network, config, pairs, targets.gain, "train", state, progress, told)
    return aligner.eval()


@torch.no_grad()
def _predicted(network: Network, pairs: Pairs, rows: np.ndarray) -> torch.Tensor:
    """Components (len(rows), k) that the network predicts, some thousand rows at a time."""
    parts = np.array_split(rows, max(1, len(rows) // _AT_ONCE))
    return torch.cat([network.token_head(network.encoder(pairs.batch(part).signals)) for part in parts])


def check_trials(
    config: Config, shape: tuple[int, ...], facts: SignalFacts | None = None, device: str | torch.device = "cpu"
) -> None:
    """Raise `UserError` for what cannot be trained on trials of this shape; asked before targets are extracted."""
    _check_config(config, shape, device)
    check_encoder(shape, config.encoder, facts)


def _check_config(config: Config, shape: tuple[int, ...], device: str | torch.device) -> None:
    config.check()
    check_augmentation(config, shape)
    check_router(config)
    check_precision(config, device)


def _check(config: Config, x: Rows, tokens: Rows, stimulus_index: np.ndarray, device: str | torch.device) -> None:
    if len(x) != len(stimulus_index):
        raise UserError(f"{len(x)} trials but {len(stimulus_index)} stimulus indices; give one per trial")
    if not x.shape or len(tokens.shape) != 2:
        raise UserError(
            f"signals {(len(x), *x.shape)} and tokens {(len(tokens), *tokens.shape)} should be (n, ...) and (K, N, D)"
        )
    if len(np.unique(stimulus_index)) < 2 * FOLDS:
        raise UserError(f"{len(np.unique(stimulus_index))} different pictures are too few to train on ({2 * FOLDS})")
    if stimulus_index.min() < 0 or stimulus_index.max() >= len(tokens):
        raise UserError(f"stimulus index {stimulus_index.max()} but tokens of {len(tokens)} pictures")
    _check_config(config, x.shape, device)


def _check_view_tokens(config: Config, tokens: Rows, view_tokens: Sequence[np.ndarray | Rows]) -> None:
    wanted = 2 if config.target.uncertain_views else 0
    shapes = [(len(Rows.of(view)), *Rows.of(view).shape) for view in view_tokens]
    if shapes != [(len(tokens), *tokens.shape)] * wanted:
        raise UserError(
            f"view_tokens holds tokens {shapes}; with target.uncertain_views={config.target.uncertain_views} it should "
            f"be {wanted} times {(len(tokens), *tokens.shape)}, the weak and the strong view of the same pictures"
        )


def _fit_ridge(aligner: Aligner, pairs: Pairs, groups: np.ndarray, state: StateFolder) -> None:
    folds = grouped_folds(groups, FOLDS, aligner.config.seed)
    if isinstance(pairs.signals, StreamedSignals):
        size = f"{pairs.signals.rows.nbytes / 1e9:.1f} GB"
        raise UserError(
            f"encoder {aligner.config.encoder.name!r} holds all signals in memory, and these are {size}; "
            "set encoder.components=1000, or take encoder.name=mlp"
        )
    x, y, encoder = pairs.signals.flatten(1), pairs.components[pairs.stimulus], aligner.config.encoder
    if encoder.name == "banded_ridge":
        bands, order = lay_out(encoder, aligner.signals.out_shape, aligner.facts.regions)
        how = (encoder.alphas, folds, encoder.band_draws, derive(aligner.config.seed, "bands"), order)
        result: RidgeFit = fit_banded_ridge(x, pairs.components, bands, *how)
    else:
        result = fit_ridge(x, y, encoder.alphas, folds)
    linear = aligner.network.encoder[1]  # type: ignore[index]
    with torch.no_grad():
        linear.weight.copy_(result.weight)
        linear.bias.copy_(result.bias)
    aligner.targets.restore_spread(result.held_out, aligner.config.target.spread)
    scores = {str(alpha): score for alpha, score in result.scores.items()}
    state.record({"stage": "ridge", "step": 0, "alpha": result.alpha, "held_out_reciprocal_rank": scores})
