"""People of a study: their training rows and their test rows, with the tokens of the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from align.adaptation.people import Person, Pictures
from align.config import Config
from align.data.signals import Recording, Trials
from align.data.splits import thumbnails
from align.data.studies.base import Study
from align.encoders.shapes import SignalFacts
from align.training.training_set import training_rows
from align.vision.fused import candidate_targets, training_targets
from align.vision.taps import Backbone


@dataclass(frozen=True)
class Subject:
    """Training and test rows of one subject, averaged over repetitions; ``widths``: parts of D by layer."""

    recording: Recording
    train: Person
    test: Person
    shown: np.ndarray  # (n,) the stimulus of every training row
    widths: tuple[int, ...]
    key: str  # of the targets


def load_subject(study: Study, config: Config, backbone: Backbone, name: str, progress: bool = True) -> Subject:
    """Read a subject's rows and extract (or find) the tokens of its pictures; test tokens are those of candidates.

    ``config.target.layer`` is resolved. Raises `UserError` for faults in the files.
    """
    recording = study.recording(name)
    layer = config.target.layer
    options = (recording.stimuli, [layer], config.target, config.cache_dir, progress)
    seen, candidates = training_targets(backbone, *options)[layer], candidate_targets(backbone, *options)[layer]
    train = training_rows(recording, True, config.cache_dir)
    return Subject(
        recording,
        _person(recording, train, seen.tokens),
        _person(recording, recording.test.averaged(), candidates.tokens),
        train.stimulus,
        seen.widths or (seen.tokens.shape[2],),
        seen.key,
    )


def _person(recording: Recording, trials: Trials, tokens: np.ndarray) -> Person:
    stimuli, rows = recording.stimuli, trials.stimulus
    pictures = Pictures(tuple(stimuli.hashes[int(i)] for i in rows), thumbnails(stimuli.load(int(i)) for i in rows))
    x, groups, facts = np.asarray(trials.x), np.asarray(stimuli.groups)[rows], SignalFacts.of(recording)
    return Person(recording.subject, x, tokens[rows], groups, pictures, facts)


def known_to(new: Subject, others: Sequence[Subject], held_out: Person) -> list[Person]:
    """What known people bring: rows whose pictures show no scene of the new subject's test or held-out pictures."""
    return [other.train.without([new.test.pictures, held_out.pictures]) for other in others]
