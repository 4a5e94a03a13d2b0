"""Matching predicted tokens to true ones: none, the spread of every dimension, or mean and spread of the components.

Predictions of a noisy recording are flatter than true tokens, and a generator reads flat tokens as grey pictures. All
statistics come from held-out predictions of training rows; test rows never enter.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from align.errors import UserError
from align.files import read_made_for, save_tensors
from align.files.checksums import MADE_FOR
from align.files.made_once import made_once
from recon.decoding.bridges.pairs import components_of

if TYPE_CHECKING:
    from align.checkpoint import Run
    from align.model.aligner import Aligner

MATCHES = ("spread", "none", "moments")
_LARGEST_GAIN = 10.0  # components that are hardly predicted are enlarged no further (as in align.model.spaces)


@dataclass(frozen=True)
class Moments:
    """Mean and deviation (k,) of held-out predicted components and of the true ones of the same pictures."""

    mean: torch.Tensor
    std: torch.Tensor
    true_mean: torch.Tensor
    true_std: torch.Tensor

    def apply(self, components: torch.Tensor) -> torch.Tensor:
        """Predicted components (n, k) with the moments of true ones."""
        gain = (self.true_std / self.std.clamp_min(1e-12)).clamp(1.0, _LARGEST_GAIN)
        return self.true_mean + gain * (components - self.mean)


def matched_tokens(run: Run, match: str, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
    """Predicted tokens (n, N, D) of ``split`` and those without a brain (N, D), matched.

    ``spread``: as the run predicts them, i.e. with the spread that ``target.spread`` restored at training, per
    dimension. ``none``: without it. ``moments``: mean and deviation of every principal component; costs one more fit
    of the encoder on four fifths of its training rows, stored in the run.

    Raises `UserError` for an unknown name, a run without tokens, and ``moments`` of an encoder of several subjects.
    """
    from recon.decoding.predict import load_predictions, open_recording, signals_at_rest, split_trials

    if match not in MATCHES:
        raise UserError(f"match {match!r} is not known; use {', '.join(MATCHES)}")
    if match == "spread":
        predictions = load_predictions(run, split)
        if predictions.tokens is None or predictions.zero_tokens is None:
            raise UserError(f"run {run.path} predicts no tokens (loss.regression 0); train one with loss.regression=1")
        return predictions.tokens, predictions.zero_tokens
    plain = without_spread(run.aligner)
    moments = held_out_moments(run) if match == "moments" else None

    def tokens_of(x: np.ndarray) -> np.ndarray:
        found = plain.predict(x)["tokens"]
        if moments is None:
            return found
        components = moments.apply(components_of(run, found, np.arange(len(found))))
        with torch.no_grad():
            return plain.targets.decode(components, bounded=True).numpy()

    return tokens_of(split_trials(open_recording(run), split).x), tokens_of(signals_at_rest(run))[0]


def without_spread(aligner: Aligner) -> Aligner:
    """The same encoder whose tokens are as flat as it predicts them."""
    plain = copy.deepcopy(aligner).cpu()
    plain.targets.spread.fill_(1.0)
    return plain


def held_out_moments(run: Run) -> Moments:
    """Fit on all folds but one of the run's training rows, predict the one that was left out; stored in the run."""
    from recon.decoding.predict import run_id

    path = run.path / "bridges" / f"moments_{run_id(run).rpartition('@')[2]}.safetensors"

    def make() -> None:
        found = _measure(run, path.with_suffix(""))
        save_tensors(path, {name: getattr(found, name) for name in Moments.__dataclass_fields__}, {MADE_FOR: path.stem})

    def read() -> Moments:
        return Moments(**read_made_for(path, path.stem))

    return made_once(path, read, make, f"moments of held-out rows of {run.path}")


def _measure(run: Run, state_dir: Path) -> Moments:
    from align.data.splits import grouped_folds
    from align.encoders.shapes import SignalFacts
    from align.training.fit import SPREAD_FOLDS, fit
    from align.training.training_set import join, training_rows
    from recon.decoding.bridges.pairs import require_training
    from recon.decoding.predict import open_recording, picture_tokens

    if run.config.protocol != "intra":
        raise UserError(f"match=moments needs an encoder of one subject, not protocol={run.config.protocol}")
    recording = open_recording(run)
    require_training(run, recording, np.unique(recording.train.stimulus))
    trials = training_rows(recording, run.config.train.average_repetitions, run.config.cache_dir)
    data = join([recording], [trials], [picture_tokens(run, recording)])
    rows, held_out = grouped_folds(data.groups, SPREAD_FOLDS, run.config.seed)[0]
    config = replace(run.config, target=replace(run.config.target, spread=0.0))
    scout = fit(
        config,
        data.signals.subset(rows),
        data.tokens,
        data.stimulus[rows],
        groups=data.groups[rows],
        facts=SignalFacts.of(recording),
        state_dir=state_dir,
    )
    predicted = scout.predict(data.signals.take(held_out).numpy())["tokens"]
    estimate = components_of(run, predicted, np.arange(len(predicted)))
    pictures = data.tokens.take(data.stimulus[held_out]).numpy()
    true = components_of(run, pictures, np.arange(len(pictures)))
    return Moments(estimate.mean(0), estimate.std(0), true.mean(0), true.std(0))
