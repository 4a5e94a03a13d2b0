"""No adaptation at all: one decoder for all known people, used on a new one whose channels are the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from align.adaptation.people import Person
from align.adaptation.trunk import distinct, groups_of
from align.config import Config
from align.data.rows import Rows
from align.model.aligner import Aligner
from align.training.fit import fit
from align.training.training_set import device


def same_channels(people: Sequence[Person]) -> bool:
    """Whether one decoder can read the trials of all: one shape, and the same channel names as far as there are any."""
    first = people[0]
    return all(
        person.x.shape[1:] == first.x.shape[1:] and person.facts.channels == first.facts.channels for person in people
    )


def zero_shot(config: Config, people: Sequence[Person], widths: Sequence[int]) -> Aligner:
    """``config.encoder`` trained on the rows of all ``people`` together, as ``protocol=loso`` does.

    Raises `UserError` for settings and sizes that the encoder does not go with.
    """
    tokens, stimulus = distinct(people)
    signals = Rows([(person.x, np.arange(len(person))) for person in people])
    return fit(
        config,
        signals,
        tokens,
        stimulus,
        groups=groups_of(people, stimulus),
        widths=widths,
        facts=people[0].facts,
        device=device(),
    )
