"""Where and when a decoder reads: silent channels on held-out training rows, and sliding windows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from align.checkpoint import Run
    from align.data.signals import Trials
    from align.model.aligner import Aligner
    from align.training.training_set import TrainingSide
    from align.vision.targets import Targets

LEAST = 4  # channels with a place, to draw a map


def channel_drops(run: Run, folds: int, n_boot: int) -> pd.DataFrame:
    """See `recon.Decoder.channel_importance`."""
    import pandas as pd

    from recon.metrics.stats import bootstrap_ci

    side, targets = _side(run, folds)
    drops, whole = [], []
    for number in range(folds):
        rows, held_out = side.fold(number)
        aligner = side.fit(run.config, rows, targets)
        drop, intact = _lesioned(aligner, held_out, targets)
        drops.append(drop)
        whole.append(intact)
    each = np.concatenate(drops)  # (pictures, C)
    names = list(side.facts.channels) or [str(i) for i in range(each.shape[1])]
    intervals = [bootstrap_ci(column, n_boot=n_boot, seed=run.config.seed) for column in each.T]
    table = {
        "drop": each.mean(axis=0),
        "ci95_low": [low for low, _ in intervals],
        "ci95_high": [high for _, high in intervals],
        "n": len(each),
        "whole": float(np.concatenate(whole).mean()),
    }
    return pd.DataFrame(table, index=pd.Index(names, name="channel"))


def _side(run: Run, folds: int) -> tuple[TrainingSide, Targets]:
    from align.data.studies import open_study
    from align.training.training_set import training_side
    from align.vision.backbones import load_backbone
    from align.vision.fused import training_targets

    if not isinstance(folds, int) or folds < 2:
        raise UserError(f"folds={folds!r} should be 2 or more")
    config = replace(run.config, sweep=replace(run.config.sweep, folds=folds))
    study = open_study(config)
    side = training_side(study, config, run.subject)
    backbone, layer = load_backbone(config.backbone), config.target.layer
    return side, training_targets(backbone, side.stimuli, [layer], config.target, config.cache_dir, False)[layer]


def _lesioned(aligner: Aligner, trials: Trials, targets: Targets) -> tuple[np.ndarray, np.ndarray]:
    """Fall of `_standing` (n, C) of every trial as each channel is set to its training mean; whole (n,)."""
    candidates = aligner.embed_images(np.asarray(targets.tokens[trials.stimulus], dtype=np.float32))
    x = np.array(trials.x, dtype=np.float32)
    mean = aligner.signals.mean.cpu().numpy()
    whole = _standing(aligner, x, candidates)
    drops = np.empty((len(x), x.shape[1]))
    for channel in range(x.shape[1]):
        silent = x.copy()
        silent[:, channel] = mean[channel]
        drops[:, channel] = whole - _standing(aligner, silent, candidates)
    return drops, whole


def _standing(aligner: Aligner, x: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """How far the own picture's cosine lies above those of the other candidates, in their deviations; 0 = chance; (n,).

    A rank would not move where every picture is found with ease; this does.
    """
    from align import retrieval

    similarity = retrieval.scores(aligner.predict(x)["embeds"], candidates)
    others = np.where(np.eye(len(x), dtype=bool), np.nan, similarity)
    spread = np.maximum(np.nanstd(others, axis=1), 1e-9)
    standing: np.ndarray = (np.diag(similarity) - np.nanmean(others, axis=1)) / spread
    return standing


def topomap(drops: pd.DataFrame, info: Any = None) -> Figure:
    """A map of MNE with its colour bar; see `recon.Decoder.plot_topomap`."""
    import matplotlib.pyplot as plt
    import mne

    if info is None:
        info = mne.create_info(list(drops.index), 1.0, "eeg", verbose="error")
        known_names = mne.channels.get_builtin_montages()
        name = "colin27_1005" if "colin27_1005" in known_names else "standard_1005"  # of one head, under two names
        montage = mne.channels.make_standard_montage(name)
        info.set_montage(montage, match_case=False, on_missing="ignore", verbose="error")
    places = {one["ch_name"]: one["loc"][:3] for one in info["chs"]}
    known = [name for name in drops.index if name in places and np.isfinite(places[name]).all() and places[name].any()]
    if len(known) < LEAST:
        raise UserError(
            f"the place of {len(known)} of {len(drops)} channels is known, {LEAST} are needed; pass info=epochs.info, "
            "or name the channels as the 10-05 system does"
        )
    figure = plt.figure(figsize=(5.2, 4.4), layout="constrained")
    axes = figure.subplots()
    picked = mne.pick_info(info, [info["ch_names"].index(name) for name in known])
    values = drops.loc[known, "drop"].to_numpy()
    limit = float(np.abs(values).max()) or 1.0
    image, _ = mne.viz.plot_topomap(
        values, picked, axes=axes, show=False, cmap="RdBu_r", vlim=(-limit, limit), names=None, contours=4
    )
    bar = figure.colorbar(image, ax=axes, shrink=0.75)
    bar.set_label("fall of z when the channel is silent")
    whole, n = float(drops["whole"].iloc[0]), int(drops["n"].iloc[0])
    axes.set_title(f"channels this decoder reads\n{n} held-out training pictures, z {whole:.1f} (chance 0)", fontsize=9)
    return figure


def timecourse_figure(run: Run, layers: list[str], width: float, step: float, n_perm: int, progress: bool) -> Figure:
    """See `recon.Decoder.plot_timecourse`; tables of it go to the run folder."""
    from recon.analysis.figures import draw_time_course
    from recon.analysis.timecourse import Settings, time_course

    config = replace(run.config, subjects=[run.subject])
    out = Path(run.path) / "timecourse"
    return draw_time_course(time_course(config, layers, Settings(width, step, n_perm=n_perm), out, progress))
