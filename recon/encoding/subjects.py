"""The rows of one subject: mean responses to training pictures (and test pictures, where they are asked for)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from align.config import Config
from align.data.signals import Recording
from align.data.splits import grouped_folds, scene_twins, thumbnails
from align.errors import UserError
from align.seeding import derive
from recon.encoding.ceiling import Ceiling
from recon.encoding.responses import Layout, ceiling_of, layout_of

if TYPE_CHECKING:
    from align.data.studies.base import Study

Folds = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Subject:
    """``responses`` (n, U) and ``stimulus`` (n,) of training pictures, then of test pictures where these are read.

    ``folds``: pairs (rows to fit, rows to score). ``ceiling``: of the scored pictures, None without repetitions.
    """

    recording: Recording
    layout: Layout
    responses: np.ndarray
    stimulus: np.ndarray
    train: np.ndarray
    folds: Folds
    ceiling: Ceiling | None

    @property
    def name(self) -> str:
        return self.recording.subject

    @property
    def groups(self) -> np.ndarray:
        """(n,) scenes or concepts."""
        return np.asarray(self.recording.stimuli.groups)[self.stimulus]

    @property
    def scored(self) -> np.ndarray:
        """Every row that some fold scores."""
        return np.unique(np.concatenate([rows for _, rows in self.folds]))

    def folds_with(self, pictures: int | None, seed: int) -> Folds:
        """The same scored rows, fitted with so many pictures; smaller numbers are subsets of larger ones.

        Raises `UserError` where a fold has fewer.
        """
        if pictures is None:
            return self.folds
        least = min(len(rows) for rows, _ in self.folds)
        if pictures > least:
            raise UserError(f"--pictures {pictures}: subject {self.name} has {least} to fit; write all for all of them")
        return [
            (np.sort(np.random.default_rng(derive(seed, "pictures", k)).permutation(rows)[:pictures]), scored)
            for k, (rows, scored) in enumerate(self.folds)
        ]


def read_subject(study: Study, config: Config, name: str, folds: int, test: bool, width: float | None) -> Subject:
    """Read and average a subject's rows; with ``test`` one fold, all training pictures and the test pictures."""
    from align.training.training_set import training_rows

    recording = study.recording(name)
    layout = layout_of(recording, study, width)
    trials = training_rows(recording, True, config.cache_dir)
    train = np.arange(len(trials))
    parts = [(layout.means(trials.x), trials.stimulus)]
    groups = np.asarray(recording.stimuli.groups)[trials.stimulus]
    pairs = grouped_folds(groups, folds, config.seed) if not test else []
    if test:
        tested = recording.test.averaged()
        parts.append((layout.means(tested.x), tested.stimulus))
        pairs = [(train, len(train) + np.arange(len(tested)))]
    scored = recording.test if test else recording.train
    ceiling = ceiling_of(recording, study, layout, scored, np.unique(scored.stimulus), config.seed)
    responses, stimulus = (np.concatenate(sides) for sides in zip(*parts, strict=True))
    return Subject(recording, layout, responses, stimulus, train, pairs, ceiling)


def known_rows(new: Subject, others: Sequence[Subject], kept_out: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Training rows of every other subject whose pictures show no scene that is scored, nor one that is ``kept_out``.

    ``kept_out``: the test pictures of all subjects, uint8. Raises `UserError` where a subject keeps no row.
    """
    from align.data.signals import pixel_hash

    stimuli = new.recording.stimuli
    shown = [int(i) for i in new.stimulus[new.scored]]
    hashes = [stimuli.hashes[i] for i in shown] + [pixel_hash(image) for image in kept_out]
    thumbs = thumbnails([*(stimuli.load(i) for i in shown), *kept_out])
    found = []
    for other in others:
        theirs, rows = other.recording.stimuli, other.stimulus[other.train]
        own = thumbnails(theirs.load(int(i)) for i in rows)
        twins = scene_twins(own, thumbs, [theirs.hashes[int(i)] for i in rows], hashes)
        found.append(other.train[~twins])
    return found
