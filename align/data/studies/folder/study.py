"""Bring your own recordings: a folder with signals, a table of what was shown, and the pictures.

``study.root`` holds

- ``signals.npy`` (or ``.npz``, ``.h5``, ``.mat``): numbers (n, channels, samples) or (n, voxels), one row per trial;
- ``stimuli.csv``: one line per trial with the columns ``row`` (0 to n-1), ``image`` (file under the folder or its
  ``images/``; one that lies elsewhere, as `recon data import --link` leaves them, is read and told), ``split``
  (``train``, ``test`` or ``unused``), ``subject``, and optionally ``concept``, ``caption``, ``repetition``,
  ``session`` (the recording session; for all lines of a subject or none);
- optionally ``info.json``: ``sfreq`` (Hz), ``ch_names``, ``tmin`` (s), ``concept_disjoint`` (true: refuse a split
  whose training and test share a concept), ``roi`` (regions for ``study.roi``: {name: [channel names, or indices of
  channels or voxels from 0]}), and what an import writes: ``notes`` (sentences that `recon data check` repeats) and
  ``voxels`` (see `align.data.importing.voxels`).

Where voxels or channels differ from person to person, ``study.root`` holds a folder for each of them, such as
``root/01`` and ``root/02``, each with files of its own as above; their names are free, the people are those of the
tables. A person stands in one of them.

A split in which training and test share a picture is refused; near-duplicates over the split are named in the log.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from align.config import Config
from align.data.signals import Recording
from align.data.studies.base import Fact, Study, StudyInfo, require_root
from align.data.studies.folder.one import OneFolder
from align.errors import UserError
from align.files.labels import refuse_alike

LAYOUT = "a folder with signals.npy (or .npz, .h5, .mat), stimuli.csv and the images, or one such folder per person"
TABLE = "stimuli.csv"


class Folder(Study):
    """Recordings described by ``stimuli.csv`` in ``study.root``, or in each of its folders."""

    info: ClassVar[StudyInfo] = StudyInfo(
        name="folder",
        title="Recordings brought by the user",
        signal="any",
        source="the folder study.root",
        licence="that of the recordings",
        row_order="the column row of stimuli.csv, every row listed once; there is nothing else to compare it with",
    )

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.root = require_root(config, LAYOUT)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Subject labels in order of appearance, folder by folder."""
        return tuple(self.parts)

    @cached_property
    def parts(self) -> dict[str, OneFolder]:
        """Where each person lies. Raises `UserError` where two folders name one person, or labels that look alike."""
        found: dict[str, OneFolder] = {}
        for one in folders_of(self.root, self.info.name):
            with self._told(one):
                people = one.subjects
            for subject in people:
                if subject in found:
                    places = f"{found[subject].root.name!r} and {one.root.name!r}"
                    raise UserError(
                        f"subject {subject} stands in two folders of {str(self.root)!r}, {places}; import a person's "
                        "further files with recon data import --append, or give two people two labels"
                    )
                found[subject] = one
        refuse_alike(found, "subjects", str(self.root))
        return found

    def read(self, subject: str) -> Recording:
        """One subject: ``x`` float32 in the units of the file, not standardised; one `Trials` row per line."""
        self.require_subject(subject)
        one = self.parts[subject]
        with self._told(one):
            return one.read(subject)

    def rois(self, subject: str) -> dict[str, tuple[int | str, ...]]:
        """The regions of ``info.json``, the same for all people of one folder."""
        self.require_subject(subject)
        one = self.parts[subject]
        with self._told(one):
            return one.details.roi

    def notes(self) -> tuple[str, ...]:
        """What the import found doubtful, folder by folder."""
        found = []
        for one in dict.fromkeys(self.parts.values()):
            whose = "" if one.root == self.root else f"{one.root.name}: "
            with self._told(one):
                found += [f"{whose}{note}" for note in one.details.notes]
        return tuple(found)

    def check(self) -> list[Fact]:
        """What ``stimuli.csv`` lists beside what can be read; every fault in the files raises `UserError`."""
        asked = self.config.subjects or self.subjects
        facts: list[Fact] = []
        for subject in asked:
            self.require_subject(subject)
        for one in dict.fromkeys(self.parts[subject] for subject in asked):
            people = [subject for subject in asked if self.parts[subject] is one]
            with self._told(one):
                whole = one.trials()
            facts += [whole, *(fact for subject in people for fact in one.check(subject, self.recording(subject)))]
        return facts

    @contextmanager
    def _told(self, one: OneFolder) -> Iterator[None]:
        """Faults of one of several folders say which."""
        try:
            yield
        except UserError as error:
            if one.root == self.root:
                raise
            raise UserError(f"{one.root.name}: {error}") from error


def folders_of(root: Path, study: str) -> list[OneFolder]:
    """``root`` where it holds a table, else its folders that do, in the order of their names."""
    if (root / TABLE).is_file():
        return [OneFolder(root, study)]
    inside = sorted(path.parent for path in root.glob(f"*/{TABLE}"))
    return [OneFolder(path, study) for path in inside] or [OneFolder(root, study)]
