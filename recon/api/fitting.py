"""Training an encoder from Python: on a study, as `align/train.py` does it, or on arrays without a test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.data.preparing.raw import Preparation, median_size, train_only
from align.data.signals import Stimuli
from align.data.sound import remarked, unscaled
from align.data.understood import implausible_times
from align.errors import UserError

if TYPE_CHECKING:
    from align.checkpoint import Run
    from align.config import Config
    from align.data.importing.arrays import Picture
    from align.data.signals import Recording

ARRAYS = "arrays"  # what a run calls the study of signals that came without one
STATE = "state"  # folder of the checkpoints in a run, as `align.train` names it
SWEEP = "sweep"  # folder in a run where its layer was chosen


@contextmanager
def as_the_command() -> Iterator[None]:
    """Inside, torch has the threads that `align/train.py` gives it: their number decides the last digits."""
    import torch

    from align.train import use_all_cores

    before = torch.get_num_threads()
    use_all_cores()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fit_study(config: Config, subject: str, progress: bool = False, overwrite: bool = False) -> Run:
    """The run that `align.train.train` makes of one subject. Raises `UserError` as it does."""
    from align.checkpoint import load_run
    from align.train import train

    with as_the_command():
        (done,) = train(replace(config, subjects=[subject]), progress, overwrite)
    return load_run(done.path, subject)


def prepared(
    config: Config, x: np.ndarray, stimulus: np.ndarray, stimuli: Stimuli, facts: Mapping[str, Any]
) -> Recording:
    """Trials x (n, ...) as they come to a recording without a test, its trials prepared as those of a study are.

    ``stimulus`` (n,): the place of each trial's picture in ``stimuli``. ``facts``: ``ch_names``, ``sfreq`` in Hz and
    ``tmin`` in s where they are known.
    """
    stored = train_only(x, stimulus, stimuli, ARRAYS, "01", **facts)
    stored = remarked(stored, [*implausible_times(stored), *unscaled(median_size(x), config.preprocess)])
    preparation = Preparation.fit(stored, config.preprocess)
    chain = preparation.chain()
    return replace(
        stored,
        train=replace(stored.train, x=preparation(x)),
        test=replace(stored.test, x=np.zeros((0, *chain.shape), np.float32)),
        ch_names=chain.ch_names,
        sfreq=chain.sfreq,
        tmin=chain.tmin,
        preparation=preparation,
    )


def fit_arrays(config: Config, recording: Recording, progress: bool = False, overwrite: bool = False) -> Run:
    """Train on the prepared trials of `prepared`, and write the run to ``run_dir``.

    No trial is kept apart, so scores need a study or trials of other pictures.
    """
    import torch

    from align.checkpoint import METRICS, load_run, save_run, tensors_hash
    from align.data.splits import manifest
    from align.encoders.shapes import SignalFacts
    from align.tracking import JsonLines
    from align.train import alone_in, require_own
    from align.training.fit import check_trials, fit
    from align.training.protocols import Job
    from align.training.run_folder import refuse_mixed, refuse_other_signals
    from align.training.training_set import join, training_rows
    from align.vision.backbones import load_backbone
    from align.vision.fused import require_pooling, resolve_layers, training_targets

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = load_backbone(config.backbone).to(device)
    layer = resolve_layers(backbone, config.target.layer)
    config = replace(config, target=replace(config.target, layer=layer))
    require_pooling(backbone, [layer], config.target.pooling)
    folder, one = run_folder(config), (recording.subject,)
    refuse_mixed(folder, several=False)
    require_own(folder, config, Job(one, one), overwrite)
    refuse_other_signals(folder, [recording], overwrite)
    trials = training_rows(recording, config.train.average_repetitions, config.cache_dir)
    signal_facts = SignalFacts.of(recording)
    check_trials(config, trials.x.shape[1:], signal_facts, device)
    found = training_targets(backbone, recording.stimuli, [layer], config.target, config.cache_dir, progress)
    targets = found[layer]
    data = join([recording], [trials], [targets.tokens])
    with as_the_command(), alone_in(folder):
        aligner = fit(
            config,
            data.signals,
            data.tokens,
            data.stimulus,
            groups=data.groups,
            widths=targets.widths,
            view_tokens=[data.of_pictures([side]) for side in targets.view_tokens],
            facts=signal_facts,
            state_dir=folder / STATE,
            progress=progress,
            metrics=JsonLines(folder / METRICS),
            device=device,
        )
        facts = {
            "n_training_rows": len(data.stimulus),
            "weights_hash": tensors_hash(aligner.state()),
            "resizing": backbone.resizing,
        }
        save_run(folder, aligner, config, manifest(recording), facts, [recording])
    return load_run(folder)


def stimuli_of(names: list[str], files: Mapping[str, Picture], groups: Any = None) -> tuple[Stimuli, np.ndarray]:
    """Distinct pictures, and for each of ``names`` its place among them.

    ``groups``: one label per name; pictures that share one, or look alike, form a group. Raises `UserError` for another
    number of labels.
    """
    from align.data.reading.safe_load import decode_image
    from align.data.splits import merge_groups, scene_groups, thumbnails

    ids = list(dict.fromkeys(names))
    place = {name: i for i, name in enumerate(ids)}

    def load(i: int) -> np.ndarray:
        picture = files[ids[i]]
        return decode_image(picture) if isinstance(picture, Path) else picture

    rows = np.array([place[name] for name in names], dtype=np.int64)
    bare = Stimuli(tuple(ids), load, np.arange(len(ids)), ("",) * len(ids), ("",) * len(ids))
    merged = scene_groups(thumbnails(load(i) for i in range(len(ids))), bare.hashes)
    if groups is not None:
        labels = [str(label) for label in np.asarray(groups).tolist()]
        if len(labels) != len(names):
            raise UserError(f"{len(labels)} groups for {len(names)} trials; give one per trial")
        known = [""] * len(ids)
        for row, label in zip(rows, labels, strict=True):
            known[row] = label
        merged = merge_groups(merged, known)
    return replace(bare, groups=merged), rows


def run_folder(config: Config) -> Path:
    """``run_dir``, which every fit from Python has."""
    return Path(config.run_dir or "").expanduser()


def forget(config: Config) -> None:
    """Remove the checkpoints of an earlier fit in ``run_dir``, before a module of the user's own is trained.

    They are found again by the configuration, which holds the name of such a module but not its code.
    """
    for name in (STATE, f"{SWEEP}/cells"):
        shutil.rmtree(run_folder(config) / name, ignore_errors=True)


def sized(config: Config, encoder: Any, shape: Callable[[], tuple[int, ...]]) -> Config:
    """``encoder.width`` of a module is the width E of its embeds; a function is called with the width that is set.

    ``shape()``: of a prepared trial, (C, T) or (V,).
    """
    from torch import nn

    from align.encoders.own import width_of

    if not isinstance(encoder, nn.Module):
        return config
    return replace(config, encoder=replace(config.encoder, width=width_of(encoder, shape())))


def shape_in_study(config: Config, subject: str) -> tuple[int, ...]:
    """Shape of one prepared trial of a subject, (C, T) or (V,)."""
    from align.data.studies import open_study

    return tuple(open_study(config).recording(subject).train.x.shape[1:])


def best_layer(config: Config, subject: str, progress: bool, overwrite: bool = False) -> Config:
    """The configuration with the layer that ``recon sweep --no-test`` chooses for this subject.

    Its files lie in ``<run_dir>/sweep``.
    """
    from align.config import load_config
    from align.sweep.run import run

    one = replace(config, subjects=[subject], run_dir=None)
    result = run(one, out=run_folder(config) / SWEEP, progress=progress, test=False, overwrite=overwrite)
    best = load_config(type(config), result.folder / "best.yaml", check=False).target
    return replace(config, target=replace(config.target, layer=best.layer, chosen_on=best.chosen_on))
