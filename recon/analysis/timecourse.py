"""When does a recording tell which picture was seen? Retrieval in sliding windows, onset, clusters; for several layers.

By default nothing but training rows is read: decoders are fitted and scored by grouped cross-validation over them. With
``test`` they are fitted on all training rows and scored once on the test rows.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.data.places import Claim
from align.data.preparing.selection import described
from align.errors import UserError
from align.files import locked, write_atomic, write_sealed
from recon.analysis.clusters import LEVEL, ClusterTest, cluster_test
from recon.analysis.generalisation import diagonal, generalisation
from recon.analysis.onsets import cluster_entries, earliest_onset, later, moment, placed
from recon.analysis.windows import Fold, Hits, Window, cross_validation, decode, restrict, sliding_windows

if TYPE_CHECKING:
    from align.config import Config
    from align.data.signals import Recording

N_BOOT = 1000
FORMER = ("generalisation.csv", "generalisation.png")  # a replaced result may have had them
MEAN = "mean"  # the entry of all subjects together
_GENERALISED = (
    "row: window in which a decoder was fitted (weights, penalty, mean and deviation), column: window in which it is "
    "scored; p_cluster: clusters of cells as of windows; reach: middle of the first and last window of the stretch "
    "with p_cluster <= {:g} around the decoder's own window"
)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """``width`` and ``step`` of the windows in s; ``test``: score test rows; ``n_perm`` random pairings.

    ``generalise``: score the decoder of every window in all windows.
    """

    width: float = 0.1
    step: float = 0.02
    test: bool = False
    n_perm: int = 2000
    generalise: bool = False


@dataclass(frozen=True)
class _Scored:
    """One layer of one subject, or of the mean of subjects: (n, W) hits per picture, (B, W) null.

    With ``Settings.generalise`` W * W: every decoder in all windows.
    """

    hits: np.ndarray
    null: np.ndarray
    chance: float
    candidates: float


def time_course(
    config: Config,
    layers: Sequence[str],
    settings: Settings,
    out: str | Path,
    progress: bool = True,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Curves of every subject of ``config`` and of their mean, for every layer; writes timecourse.{json,csv,png}.

    With ``settings.generalise`` also generalisation.{csv,png}; the matrices are in the JSON.

    ``layers``: names or indices of ``config.backbone``, compared with the same number of components; the shallowest is
    what the times of the others are compared with. ``overwrite``: what another configuration left in ``out``. Returns
    the content of timecourse.json.

    Raises
    ------
    UserError
        No time axis, windows that do not fit, unknown subject or layer, too few pictures for the folds; a folder with
        the time course of another configuration.
    """
    from align.data.studies import open_study
    from align.vision.backbones import load_backbone
    from align.vision.fused import candidate_targets, resolve_layers, training_targets

    if settings.n_perm < 1:
        raise UserError(f"--permutations {settings.n_perm} should be 1 or more")
    if config.target.uncertain_views:
        medium = config.target.uncertain_views[len(config.target.uncertain_views) // 2]
        raise UserError(
            f"target.uncertain_views change while an encoder is trained, and a time course is ridge regression; "
            f"take target.views=[{medium}]"
        )
    config.check()
    study = open_study(config)
    subjects = list(dict.fromkeys(config.subjects or study.default_subjects))
    for subject in subjects:
        study.require_subject(subject)
    backbone = load_backbone(config.backbone)
    names = list(dict.fromkeys(resolve_layers(backbone, layer) for layer in layers))
    names.sort(key=lambda layer: max(backbone.layers.index(part) for part in layer.split("+")))
    asked = {**asdict(settings), "layers": names, "subjects": subjects}
    instead = "Choose another folder (--out FOLDER)"
    claim = Claim(Path(out), "timecourse.json", config, instead, asked, overwrite, FORMER)
    claim.check()
    found: dict[str, dict[str, _Scored]] = {}
    pictures, windows = {}, None
    for subject in subjects:
        recording = study.recording(subject)
        cut = sliding_windows(recording, settings.width, settings.step)
        if windows is not None and windows != cut:
            raise UserError(f"subjects {subjects[0]} and {subject} have other windows; run them apart (subjects=[01])")
        windows = cut
        log.info("timecourse: subject %s, %d windows, layers %s", subject, len(cut), ", ".join(names))
        cached = training_targets(backbone, recording.stimuli, names, config.target, config.cache_dir, progress)
        others = candidate_targets(backbone, recording.stimuli, names, config.target, config.cache_dir, progress)
        tokens, among = ({name: part[name].tokens for name in names} for part in (cached, others))
        hits = course(config, recording, tokens, cut, settings, among)
        found[subject] = {name: _scored(part, settings.n_perm, config.seed) for name, part in hits.items()}
        pictures[subject] = [recording.stimuli.ids[i] for i in hits[names[0]].stimulus]
    assert windows is not None
    found |= _mean(found, pictures)
    entries = {
        name: (_generalised if settings.generalise else _subject)(part, windows, config.seed)
        for name, part in found.items()
    }
    facts = _facts(config, backbone.name, names, subjects, windows, settings, recording.train.x.shape[1:])
    result = {**facts, "subjects": entries}
    _write(claim, result)
    return result


def course(
    config: Config,
    recording: Recording,
    tokens: dict[str, np.ndarray],
    windows: Sequence[Window],
    settings: Settings,
    among: dict[str, np.ndarray] | None = None,
) -> dict[str, Hits]:
    """Hits of one subject per layer; ``tokens`` and ``among``: layer to (K, N, D) of the pictures (see `decode`)."""
    from align.training.training_set import training_rows

    groups = np.asarray(recording.stimuli.groups)
    trials = training_rows(recording, True, config.cache_dir)
    if settings.test:
        scored = recording.test.averaged()
        folds = [Fold(trials, np.arange(len(trials)), scored, np.arange(len(scored)))]
    else:
        folds = cross_validation(trials, groups, config.sweep.folds, config.seed)
    return decode(restrict(config, tokens), folds, tokens, groups, windows, among, settings.generalise)


def _scored(hits: Hits, n_perm: int, seed: int) -> _Scored:
    return _Scored(hits.observed(), hits.null(n_perm, seed), hits.chance, hits.candidates)


def _mean(found: dict[str, dict[str, _Scored]], pictures: dict[str, list[str]]) -> dict[str, dict[str, _Scored]]:
    """All subjects together, picture by picture and permutation by permutation, where they saw the same pictures."""
    if len(found) < 2 or len({tuple(ids) for ids in pictures.values()}) > 1:
        return {}
    members = list(found.values())
    layers = {}
    for name, first in members[0].items():
        parts = [part[name] for part in members]
        hits, null = (np.mean([getattr(part, what) for part in parts], axis=0) for what in ("hits", "null"))
        layers[name] = _Scored(hits, null, first.chance, first.candidates)
    return {MEAN: layers}


def _subject(layers: dict[str, _Scored], windows: Sequence[Window], seed: int) -> dict[str, Any]:
    """The entry of one subject: a curve per layer, and how its times differ from those of the first layer."""
    first, entry = next(iter(layers)), {}
    shown = earliest_onset(windows)
    resampled = {}
    for name, part in layers.items():
        test = cluster_test(part.hits.mean(axis=0), part.null)
        draws = _resampled(part.hits, seed)
        resampled[name] = (test.onsets(draws, shown), draws.argmax(axis=1))
        entry[name] = _curve(part, windows, test, draws, resampled[name])
    after = {name: later(resampled[first], resampled[name], windows) for name in layers if name != first}
    return {"layers": entry, "later_than": {"layer": first, "layers": after}}


def _generalised(layers: dict[str, _Scored], windows: Sequence[Window], seed: int) -> dict[str, Any]:
    """The entry of `_subject`, from decoders in their own windows, with the matrix of all windows for every layer."""
    own = {name: replace(part, hits=diagonal(part.hits), null=diagonal(part.null)) for name, part in layers.items()}
    entry = _subject(own, windows, seed)
    for name, part in layers.items():
        matrix = generalisation(part.hits, part.null, _resampled(part.hits, seed), windows)
        entry["layers"][name]["generalisation"] = matrix
    return entry


def _resampled(hits: np.ndarray, seed: int) -> np.ndarray:
    """(N_BOOT, W) mean curves of pictures drawn with replacement; the same draws for every layer of one seed."""
    n = len(hits)
    counts = np.random.default_rng([seed, 1]).multinomial(n, np.full(n, 1 / n), size=N_BOOT)
    return np.asarray(counts @ hits / n)


def _curve(
    part: _Scored,
    windows: Sequence[Window],
    test: ClusterTest,
    draws: np.ndarray,
    times: tuple[np.ndarray, np.ndarray],
) -> dict[str, Any]:
    top1 = part.hits.mean(axis=0)
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    p = (1 + (part.null >= top1 - 1e-9).sum(axis=0)) / (1 + len(part.null))
    points = [
        {
            **placed(window),
            "top1": float(top1[w]),
            "ci95": [float(low[w]), float(high[w])],
            "p_uncorrected": float(p[w]),
        }
        for w, window in enumerate(windows)
    ]
    return {
        "n": len(part.hits),
        "candidates": part.candidates,
        "chance": part.chance,
        "onset": moment(test.onset(earliest_onset(windows)), windows, times[0]),
        "peak": {**(moment(int(top1.argmax()), windows, times[1]) or {}), "top1": float(top1.max())},
        "clusters": cluster_entries(test, windows),
        "points": points,
    }


def _facts(
    config: Config,
    backbone: str,
    layers: list[str],
    subjects: list[str],
    windows: Sequence[Window],
    settings: Settings,
    shape: Sequence[int],
) -> dict[str, Any]:
    study = config.study
    rule = (
        "decoders fitted on all training rows, test rows scored once"
        if settings.test
        else f"grouped {config.sweep.folds}-fold cross-validation on training rows; test rows not scored"
    )
    return {
        "schema": 1,
        "study": study.name,
        **({"code": config.simulated.code} if study.name == "simulated" else {}),
        "selection": described(config, shape),
        "split": "test" if settings.test else "train",
        "rule": rule,
        "decoder": "ridge per window, penalty chosen inside the fitted rows; repetitions averaged",
        "statistics": (
            f"top-1 of brain_to_image among the pictures of a block; ci95: bootstrap over pictures ({N_BOOT}); "
            f"clusters: {settings.n_perm} permuted pairings, one-sided {LEVEL}, mass = sum of z; onset: first window "
            "of the first significant cluster, a description (the test is of the cluster), never before the stimulus; "
            "times: middle of a window"
        ),
        "backbone": backbone,
        "pooling": config.target.pooling,
        "views": config.target.views,
        "candidate_views": config.target.candidate_views,
        "layers": layers,
        "subject_names": subjects,
        "width": settings.width,
        "step": settings.step,
        "windows": len(windows),
        "seed": config.seed,
        **({"generalisation": _GENERALISED.format(LEVEL)} if settings.generalise else {}),
    }


def _write(claim: Claim, result: dict[str, Any]) -> None:
    from recon.analysis.figures import plot_time_course
    from recon.analysis.generalisation_figure import plot_generalisation
    from recon.analysis.timecourse_text import csv_text, generalisation_csv

    folder = claim.folder
    with locked(folder / ".lock", f"writing a time course into {str(folder)!r}", wait=None, keep=False):
        claim.take()
        write_atomic(folder / "timecourse.csv", csv_text(result))
        plot_time_course(result, folder / "timecourse.png")
        if "generalisation" in result:
            write_atomic(folder / "generalisation.csv", generalisation_csv(result))
            plot_generalisation(result, folder / "generalisation.png")
        write_sealed(folder / claim.results, result)
