"""What THINGS-EEG2 and THINGS-MEG have in common: two blocks of one subject become a recording of shared pictures."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from align.data.signals import Recording, Stimuli
from align.data.studies.base import Study
from align.data.studies.things.block import Block, Published, partial_copy, require_finite, trials_of
from align.data.studies.things.images import ThingsPictures, find_pictures, stimuli_of


class ThingsStudy(Study):
    """Subclasses set ``published``, find their files on construction, and give the `blocks` of a subject."""

    published: ClassVar[Published]
    root: Path
    variant: str
    folder: Path
    found: tuple[str, ...]

    @property
    def subjects(self) -> tuple[str, ...]:
        """Labels of the subjects whose files are there."""
        return self.found

    @cached_property
    def pictures(self) -> tuple[ThingsPictures, ThingsPictures, str]:
        """Training pictures, test pictures, and what their order rests on."""
        return find_pictures(self.root, self.config.study.images)

    @cached_property
    def stimuli(self) -> Stimuli:
        """All pictures, shared by all subjects."""
        return stimuli_of(*self.pictures[:2], self.config.cache_dir)

    @abstractmethod
    def blocks(self, subject: str) -> tuple[Block, Block, Stimuli, str]:
        """Training and test as the files hold them, their pictures, and what the order of the two rests on."""

    def read(self, subject: str) -> Recording:
        """One subject as stored: ``x`` (n, C, T) mapped from a file where possible, one row per repetition."""
        self.require_subject(subject)
        train, test, stimuli, order = self.blocks(subject)
        require_finite(test)
        return Recording(
            study=self.info.name,
            subject=subject,
            train=trials_of(train, 0),
            test=trials_of(test, train.n_images),
            stimuli=stimuli,
            ch_names=train.ch_names,
            sfreq=train.sfreq,
            tmin=round(float(train.times[0]), 6),
            log=(
                f"variant {self.variant}: {self.folder}",
                f"row order: {order}",
                *dict.fromkeys(train.notes + test.notes),
                *partial_copy(train, test, self.published),
            ),
        )
