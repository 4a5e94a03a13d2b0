"""Subjects' responses beside the dimensions of networks: similarity, its chance, and its course over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from align.comparison.null import rank_correlation
from align.comparison.predictability import Folds, Regression, predictability
from align.data.signals import Recording, Stimuli, Trials
from align.data.splits import grouped_folds
from align.errors import UserError
from align.retrieval.people import over_people
from recon.analysis.clusters import cluster_test
from recon.analysis.onsets import earliest_onset, placed
from recon.analysis.windows import Window, sliding_windows
from recon.comparison.pictures import LEAST, subset

ENDS = 100  # dimensions at either end of universality whose course over time is drawn


@dataclass(frozen=True)
class Brain:
    """Responses of one subject, one row per picture: ``trials.x`` (n, V) or (n, C, T), ``stimuli`` of its n rows."""

    subject: str
    recording: Recording
    trials: Trials
    stimuli: Stimuli

    @property
    def signals(self) -> np.ndarray:
        """(n, V), channels and samples in one row."""
        return np.asarray(self.trials.x, dtype=np.float64).reshape(len(self.trials), -1)

    def folds(self, count: int, seed: int) -> Folds:
        """Groups of pictures stay on one side."""
        return grouped_folds(np.asarray(self.stimuli.groups), count, seed)

    def without(self, hashes: set[str]) -> Brain:
        """The rows of other pictures than these; raises `UserError` where fewer than `LEAST` are left."""
        rows = np.array([i for i, value in enumerate(self.stimuli.hashes) if value not in hashes], dtype=np.int64)
        if len(rows) < LEAST:
            raise UserError(
                f"subject {self.subject}: {len(rows)} pictures are not among those that dimensions are fitted on, "
                f"{LEAST} are needed; pass other pictures to fit on (--images PLACE)"
            )
        return Brain(self.subject, self.recording, self.trials.take(rows), subset(self.stimuli, rows))


def read_brain(recording: Recording, test: bool, cache_dir: str) -> Brain:
    """Mean response to every training picture, or with ``test`` to every test picture."""
    from align.training.training_set import training_rows

    trials = recording.test.averaged() if test else training_rows(recording, True, cache_dir)
    trials = trials.averaged()
    return Brain(recording.subject, recording, trials, subset(recording.stimuli, trials.stimulus))


def shuffled_similarity(
    brain: Brain,
    dimensions: np.ndarray,
    folds: Folds,
    regression: Regression,
    count: int,
    rng: np.random.Generator,
    signals: np.ndarray | None = None,
) -> np.ndarray:
    """(count, T) similarity where responses meet the pictures in random orders, one order for all T dimensions."""
    x, found = brain.signals if signals is None else signals, []
    together = max(1, 20_000 // max(dimensions.shape[1], 1))
    for start in range(0, count, together):
        orders = [rng.permutation(len(x)) for _ in range(min(together, count - start))]
        targets = np.concatenate([dimensions[order] for order in orders], axis=1)
        found.append(predictability(x, targets, folds, regression).reshape(len(orders), -1))
    return np.concatenate(found) if found else np.zeros((0, dimensions.shape[1]))


def when(
    brains: Sequence[Brain],
    dimensions: Sequence[np.ndarray],
    universal: np.ndarray,
    regression: Regression,
    settings: Any,
) -> dict[str, Any] | None:
    """Similarity in sliding windows of the most and the least universal dimensions; None without a time axis.

    ``dimensions``: (n, T) of every brain; ``universal`` (T,). ``association``: the rank correlation of similarity and
    universality over these dimensions. Chance: responses shuffled over pictures, one order for all windows and
    dimensions; clusters of windows above it as in `recon timecourse`.
    """
    if any(brain.trials.x.ndim != 3 or brain.recording.sfreq is None for brain in brains):
        return None
    cuts = [sliding_windows(brain.recording, settings.width, settings.step) for brain in brains]
    require_same_windows(cuts)
    order, ends = np.argsort(-universal, kind="stable"), min(ENDS, len(universal) // 2)
    chosen = np.concatenate([order[:ends], order[len(order) - ends :]])
    curves, null = np.zeros((len(brains), len(cuts[0]), 2)), np.zeros((settings.shuffles, len(cuts[0]), 2))
    rho, rho_null = np.zeros((len(brains), len(cuts[0]))), np.zeros((settings.shuffles, len(cuts[0])))
    for b, (brain, scores) in enumerate(zip(brains, dimensions, strict=True)):
        folds, part = brain.folds(settings.folds, settings.seed), scores[:, chosen]
        for w, window in enumerate(cuts[0]):
            x = window_signals(brain, window)
            r = predictability(x, part, folds, regression)
            curves[b, w] = r[:ends].mean(), r[ends:].mean()
            rho[b, w] = rank_correlation(universal[chosen], r)
            rng = np.random.default_rng([settings.seed, b])  # the same orders in every window
            shuffled = shuffled_similarity(brain, part, folds, regression, settings.shuffles, rng, x)
            null[:, w] += np.stack([shuffled[:, :ends].mean(1), shuffled[:, ends:].mean(1)], axis=1) / len(brains)
            for number, one in enumerate(shuffled):
                rho_null[number, w] += rank_correlation(universal[chosen], one) / len(brains)
    sides = {
        name: _course(curves[:, :, side], null[:, :, side], cuts[0]) for side, name in enumerate(("most", "least"))
    }
    sides["association"] = _course(rho, rho_null, cuts[0])
    points = [
        {
            **placed(window),
            "most": float(curves[:, w, 0].mean()),
            "least": float(curves[:, w, 1].mean()),
            "rank_correlation": float(rho[:, w].mean()),
            "most_t95": over_people(curves[:, w, 0]),
            "rank_correlation_t95": over_people(rho[:, w]),
        }
        for w, window in enumerate(cuts[0])
    ]
    return {"dimensions_each": ends, "shuffles": settings.shuffles, **sides, "points": points}


def require_same_windows(cuts: Sequence[Sequence[Window]]) -> None:
    """Raise `UserError` unless the windows of all subjects are the same."""
    if any(cut != cuts[0] for cut in cuts):
        raise UserError("subjects have other times or rates; compare them one by one (subjects=[01])")


def window_signals(brain: Brain, window: Window) -> np.ndarray:
    """(n, V) of one window, channels and samples in one row."""
    part = brain.trials.x[:, :, window.start : window.stop]
    return np.asarray(part, dtype=np.float64).reshape(len(part), -1)


def _course(curves: np.ndarray, null: np.ndarray, windows: Sequence[Window]) -> dict[str, Any]:
    """Onset, peak and clusters of the mean over subjects (S, W)."""
    mean = curves.mean(axis=0)
    test = cluster_test(mean, null)
    first = test.onset(earliest_onset(windows))
    return {
        "onset": None if first is None else windows[first].centre,
        "peak": windows[int(mean.argmax())].centre,
        "clusters": [{"begin": windows[c.first].begin, "end": windows[c.last].end, "p": c.p} for c in test.found],
    }
