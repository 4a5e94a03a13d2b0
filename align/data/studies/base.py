"""The contract every study keeps: declared facts, and one `Recording` per subject."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from align.config import Config, PreprocessConfig
from align.data.signals import Recording, Stimuli, Trials
from align.errors import UserError

if TYPE_CHECKING:
    from align.data.preparing.raw import Preparation


@dataclass(frozen=True)
class StudyInfo:
    """Facts a study declares; `Study.check` compares them with the files. ``subjects`` () = read from the files.

    ``trial_s``: seconds of recording that one trial takes, pauses included; None where that is not known.
    """

    name: str
    title: str
    signal: str  # "EEG", "MEG", "fMRI", "spikes", "any"
    source: str  # public home of the data
    licence: str
    subjects: tuple[str, ...] = ()
    trial_s: float | None = None
    row_order: str = "not told"  # what ties a row of the signals to its picture, and what it was compared with


@dataclass(frozen=True)
class Fact:
    """One declared fact beside what the files say; ``declared`` None: nothing is known to compare it with.

    ``usable``: what was found differs, but can be used: a part of what was published, or the same prepared otherwise.
    """

    what: str
    declared: str | None
    found: str
    usable: bool = False

    @property
    def as_declared(self) -> bool:
        """The files say what was declared, or nothing was."""
        return self.declared in (None, self.found)

    @property
    def holds(self) -> bool:
        """As declared, or different in a way that can be used."""
        return self.as_declared or self.usable


class Study(ABC):
    """A dataset. Subclasses set ``info`` and read their files lazily; construction only checks that root exists."""

    info: ClassVar[StudyInfo]

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def subjects(self) -> tuple[str, ...]:
        """Subject labels, text, in order."""
        return self.info.subjects

    @property
    def default_subjects(self) -> tuple[str, ...]:
        """The subjects that are trained and averaged when none are asked for: all, but for those a study sets apart."""
        return self.subjects

    def recording(self, subject: str) -> Recording:
        """Training and test trials of one subject: the part ``config.study`` asks for, after ``config.preprocess``.

        With ``study.held_out`` the test trials are those of held-out training pictures (`align.data.held_out`).
        Raises `UserError` on any fault in the files or in what they hold (`align.data.sound`).
        """
        from align.data.preparing.preprocess import prepare
        from align.data.preparing.selection import with_regions

        stored, steps, picks = self._as_stored(subject)
        made = prepare(stored, steps, self.config.cache_dir, picks)
        return with_regions(self.config.encoder.regions, stored, made, picks, lambda: self.rois(subject))

    def preparation(self, subject: str) -> Preparation:
        """What `recording` does to stored trials of the subject, for trials that come later."""
        from align.data.preparing.preprocess import preparation_of

        stored, steps, picks = self._as_stored(subject)
        return preparation_of(stored, steps, self.config.cache_dir, picks)

    def _as_stored(self, subject: str) -> tuple[Recording, PreprocessConfig, np.ndarray | None]:
        """Trials as stored, in their splits, with the steps and the channels that are chosen."""
        from align.data.held_out import hold_out
        from align.data.preparing.selection import resolve
        from align.data.sound import require_sound

        recording, part = require_sound(self.read(subject), self.config.preprocess), self.config.study
        if part.held_out:
            recording = hold_out(recording, part.held_out, part.held_out_seed, self.config.cache_dir)
        steps, picks = resolve(self.config, recording, lambda: self.rois(subject))
        return recording, steps, picks

    def rois(self, subject: str) -> dict[str, tuple[int | str, ...]]:
        """Regions that ``study.roi`` may name: channels or voxels by index from 0, or channels by name."""
        return {}

    def notes(self) -> Sequence[str]:
        """What whoever made the files found doubtful, in sentences for `recon data check`."""
        return ()

    def further_pictures(self) -> Stimuli | None:
        """Pictures like those of the study that were not shown to the subject, and are no test picture; None = none."""
        return None

    def kept_out(self) -> Sequence[np.ndarray]:
        """Test pictures of any subject, uint8 (H, W, 3): no twin of one may stand in for pictures of the study.

        Empty where those of the recording that is read are all there is to keep out.
        """
        return ()

    def repetitions(self, subject: str) -> Trials | None:
        """Single trials, unprepared, where files hold them beside the averages that `read` gives; None = they do not.

        ``stimulus`` counts as in `read`, whose channels these have. For the ceiling that noise sets, not for training.
        """
        return None

    @abstractmethod
    def read(self, subject: str) -> Recording:
        """Training and test trials of one subject as they are stored."""

    @abstractmethod
    def check(self) -> list[Fact]:
        """Declared facts beside the facts found in the files."""

    def require_subject(self, subject: str) -> None:
        """Raise `UserError` with the nearest label when the study has no such subject."""
        if subject in self.subjects:
            return
        near = difflib.get_close_matches(subject, self.subjects, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        known = ", ".join(self.subjects)
        choose = f"; choose with subjects=[{self.subjects[0]}]" if subject in self.config.subjects else ""
        raise UserError(f"{self.info.name} has no subject {subject!r}{hint} Known: {known}{choose}")


def require_root(config: Config, example: str) -> Path:
    """``study.root`` as an existing folder, or a `UserError` that says what it should hold."""
    if config.study.root is None:
        raise UserError(f"study {config.study.name!r} needs study.root=FOLDER ({example})")
    root = Path(config.study.root).expanduser()
    if not root.is_dir():
        raise UserError(f"study.root={str(root)!r} is not a folder; it should be {example}")
    return root
