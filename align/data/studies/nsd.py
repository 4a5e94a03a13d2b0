"""Human 7 T fMRI for photographs of everyday scenes (NSD, Allen et al. 2022), in the layout MindEye2 distributes.

``study.root`` is a copy, whole or in part, of the Hugging Face dataset repository pscotti/mindeyev2:

- ``betas_all_subj01_fp32_renorm.hdf5``: ``betas`` (30000, 15724) float32, single-trial betas of the nsdgeneral voxels,
  unitless, standardised by its makers per recording session; row = trial in the order of the recording;
- ``coco_images_224_float16.hdf5``: ``images`` (73000, 3, 224, 224) float16 in [0, 1] (in ``study.images`` if given);
- ``wds/subj01/train/{0..39}.tar``, one per recording session, and ``wds/subj01/new_test/0.tar``: what was shown when;
- optionally ``shared1000.npy``, ``COCO_73k_semantic_cluster.npy`` (with ``semantic_cluster_names.npy``), and captions
  (`align.data.studies.nsd_captions`).

Two more layouts are read in files of their own: a root with ``webdataset_avg_split/`` is MindEye1's
(``study.variant=averaged``), one with ``subj01/training_split/`` that of the Algonauts 2023 challenge (``algonauts``).

Protocol: test = the pictures all subjects saw (up to 1000, three repetitions, averaged at prediction); training =
single trials of the others, of all recording sessions (``study.variant=40-hour``) or of the first (``1-hour``). The two
share no picture, but most test pictures have training pictures of their semantic cluster; the log says how many, and
clusters are the groups of validation folds. Access to the data needs the signed form of the Natural Scenes Dataset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from align.config import Config
from align.data.signals import Recording, Stimuli, Trials
from align.data.studies.base import Fact, Study, StudyInfo, require_root
from align.data.studies.nsd_captions import read_captions
from align.data.studies.nsd_files import (
    IN_MEMORY,
    Behaviour,
    NsdPictures,
    betas_shape,
    read_behaviour,
    read_betas,
    read_clusters,
    read_shared,
)
from align.data.studies.nsd_layouts import LAYOUTS, Layout
from align.errors import UserError

LAYOUT = "a copy of the Hugging Face dataset repository pscotti/mindeyev2 (betas_all_subj01_fp32_renorm.hdf5, ...)"
PICTURES_FILE = "coco_images_224_float16.hdf5"
PICTURES = 73000
SESSION_TRIALS = 750
VARIANTS = ("40-hour", "1-hour")  # of MindEye2's layout; the first is the default
_BETAS = "betas_all_subj{}_fp32_renorm.hdf5"


@dataclass(frozen=True)
class Person:
    """Declared facts: voxels of nsdgeneral, recording sessions, trials of the test."""

    voxels: int
    sessions: int
    test: int


SUBJECTS = {
    "01": Person(15724, 40, 3000),
    "02": Person(14278, 40, 3000),
    "03": Person(15226, 32, 2371),
    "04": Person(13153, 30, 2188),
    "05": Person(13039, 40, 3000),
    "06": Person(17907, 32, 2371),
    "07": Person(12682, 40, 3000),
    "08": Person(14386, 30, 2188),
}


def in_use(subject: str, variant: str) -> str:
    """What the signals of a subject take when they are used, in a sentence; from the declared facts alone.

    float32, single trials of training (`VARIANTS`) and of the test; of one hour all trials of its session are counted.
    """
    person = SUBJECTS[subject]
    trials = SESSION_TRIALS if variant == VARIANTS[1] else person.sessions * SESSION_TRIALS - person.test
    train, test = (4 * n * person.voxels for n in (trials, person.test))
    places = [
        f"{n:,} {name} trials x {person.voxels:,} voxels {size / 1e9:.2f} GB {'in memory' if fits else 'on disk'}"
        for name, n, size, fits in (
            ("training", trials, train, train <= IN_MEMORY),
            ("test", person.test, test, test <= IN_MEMORY),
        )
    ]
    return f"subject {subject}: {', '.join(places)}"


class Nsd(Study):
    """The subjects of NSD whose betas lie under ``study.root``."""

    info: ClassVar[StudyInfo] = StudyInfo(
        name="nsd",
        title="Natural Scenes Dataset, 7 T fMRI, Allen et al. 2022, as distributed by MindEye2",
        signal="fMRI",
        source="https://huggingface.co/datasets/pscotti/mindeyev2",
        licence="NSD terms and conditions (signed form), no redistribution",
        trial_s=4.8,  # 750 trials in 12 runs of 5 minutes (Allen et al. 2022, methods)
        row_order="trial tables, whose rows of betas are checked against recording sessions, pictures and shared1000",
    )

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.root = require_root(config, LAYOUT)
        asked = config.study.variant
        own = {name: LAYOUTS[name].find(self.root) for name in LAYOUTS if asked in (None, name)}
        if asked in LAYOUTS and own[asked] is None:
            raise UserError(f"study.root={str(self.root)!r} holds no {LAYOUTS[asked].holds}")
        if asked is None and any(self.root.glob(_BETAS.format("*"))):
            own = {}
        found = next(((name, folder) for name, folder in own.items() if folder is not None), None)
        self.layout: Layout | None = LAYOUTS[found[0]] if found else None
        self.folder = found[1] if found else self.root
        self.variant = found[0] if found else asked or VARIANTS[0]
        self.pictures = NsdPictures(Path(config.study.images or self.root).expanduser() / PICTURES_FILE)

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects whose betas are there, whether or not anything is declared of them (`SUBJECTS`)."""
        if self.layout is not None:
            return self.layout.subjects(self.folder)
        start, end = _BETAS.split("{}")
        names = (path.name[len(start) : -len(end)] for path in self.root.glob(_BETAS.format("*")))
        return tuple(sorted(name for name in names if name.isascii() and name.isdigit()))

    @cached_property
    def clusters(self) -> tuple[str, ...] | None:
        """The semantic cluster of each of the 73,000 pictures, None where the file is absent."""
        return read_clusters(self.root, self.pictures.count())

    def require_subject(self, subject: str) -> None:
        """Raise `UserError` for an unknown subject and for one whose betas are not there."""
        if self.layout is None and subject in SUBJECTS and subject not in self.subjects:
            raise UserError(f"{str(self._betas(subject))!r} does not exist; fetch it or leave subject {subject} out")
        super().require_subject(subject)

    def read(self, subject: str) -> Recording:
        """One subject: ``x`` float32 (trials, voxels) as stored, one row per trial, test repetitions kept apart.

        27,000 training trials of subject 01 are 1.7 GB: above 512 MB they are written once to ``cache_dir`` and mapped
        from there; only the rows that are needed are read, so the 1-hour variant reads one recording session.
        """
        self.require_subject(subject)
        if self.layout is not None:
            return self._of_layout(self.layout, subject)
        train, test, n_sessions = self._trials(subject)
        shown = np.unique(np.concatenate([train.picture, test.picture]))
        stimuli = self._stimuli(shown)
        twins = _twins(stimuli, np.searchsorted(shown, test.picture))
        log = [_about_sessions(subject, self.variant, n_sessions, train), *self._about_clusters(train, test)]
        voxels = betas_shape(self._betas(subject))[1]
        if subject in SUBJECTS and voxels != SUBJECTS[subject].voxels:
            log.append(f"{voxels} voxels, not the {SUBJECTS[subject].voxels} of nsdgeneral: a mask of your own")
        if len(twins):
            same = np.isin(train.picture, shown[twins])
            log.append(f"removed {int(same.sum())} training trials of {len(twins)} pictures equal to a test picture")
            train = train.take(~same)
            shown = np.delete(shown, twins)
            stimuli = self._stimuli(shown)
        return Recording(
            study=self.info.name,
            subject=subject,
            train=self._signals(subject, train, shown),
            test=self._signals(subject, test, shown),
            stimuli=stimuli,
            log=tuple(log),
        )

    def check(self) -> list[Fact]:
        """Declared facts beside the files'. Counts that fall short are those of a partial copy, which is usable."""
        if (layout := self.layout) is not None:
            return [fact for name in self.config.subjects or self.subjects for fact in self._layout_facts(layout, name)]
        found = self.pictures.count()
        facts = [_at_most("pictures", PICTURES, found)]
        if found:
            self.pictures.load(found - 1)
        for subject in self.config.subjects or self.subjects:
            self.require_subject(subject)
            declared = SUBJECTS.get(subject)
            train, test, n_sessions = self._trials(subject)
            rows, voxels = betas_shape(self._betas(subject))
            _, near = self._near_test(train, test)
            facts += [
                Fact(f"{subject} voxels", None if declared is None else str(declared.voxels), str(voxels), usable=True),
                _at_most(
                    f"{subject} rows of betas", None if declared is None else SESSION_TRIALS * declared.sessions, rows
                ),
                _at_most(f"{subject} recording sessions", None if declared is None else declared.sessions, n_sessions),
                _at_most(f"{subject} test trials", None if declared is None else declared.test, len(test)),
                Fact(f"{subject} pictures in training and test", "0", str(len(_shared(train, test)))),
                Fact(f"{subject} test pictures with a training picture of their semantic cluster", near, near),
            ]
        return facts

    def rois(self, subject: str) -> dict[str, tuple[int | str, ...]]:
        """Regions that the files name; only the Algonauts layout has some."""
        return {} if self.layout is None else self.layout.rois(self.folder, subject)

    def _of_layout(self, layout: Layout, subject: str) -> Recording:
        recording = layout.read(self.folder, subject, Path(self.config.cache_dir), self.info.name)
        captions = self._captions([int(name) for name in recording.stimuli.ids])
        return replace(recording, stimuli=replace(recording.stimuli, captions=captions))

    def _layout_facts(self, layout: Layout, subject: str) -> list[Fact]:
        self.require_subject(subject)
        recording = self._of_layout(layout, subject)
        declared = SUBJECTS.get(subject) if layout.voxels_declared else None
        pictures = [len(np.unique(part.stimulus)) for part in (recording.train, recording.test)]
        voxels = str(recording.train.x.shape[1])
        return [
            Fact(f"{subject} voxels", None if declared is None else str(declared.voxels), voxels, usable=True),
            Fact(f"{subject} training pictures", None, str(pictures[0])),
            Fact(f"{subject} test pictures", None, str(pictures[1])),
        ]

    def _captions(self, shown: Sequence[int]) -> tuple[str, ...]:
        """The first caption of every picture, "" where the table of captions is absent."""
        return read_captions(Path(self.config.study.images or self.root).expanduser(), self.root, shown)

    def _betas(self, subject: str) -> Path:
        return self.root / _BETAS.format(subject)

    def _trials(self, subject: str) -> tuple[Behaviour, Behaviour, int]:
        """Trials of training and test, checked against betas and pictures, and the number of sessions on disk."""
        folder = self.root / "wds" / f"subj{subject}"
        tars = _session_tars(folder / "train", SUBJECTS.get(subject))
        test_tar = folder / "new_test" / "0.tar"
        if not test_tar.is_file():
            old = " (test/0.tar is of an earlier release)" if (folder / "test" / "0.tar").is_file() else ""
            raise UserError(f"{str(test_tar)!r} does not exist{old}; fetch it")
        if self.variant == "1-hour" and 0 not in tars:
            raise UserError(
                f"{str(folder / 'train' / '0.tar')!r}, the first recording session, does not exist; fetch it"
            )
        chosen = {0: tars[0]} if self.variant == "1-hour" else tars
        train = read_behaviour(list(chosen.values()), int(subject))
        test = read_behaviour([test_tar], int(subject))
        astray = set(train.session.tolist()) ^ {number + 1 for number in chosen}
        if astray:
            raise UserError(
                f"{str(folder / 'train')!r}: recording session {min(astray)} is not in the tar of its number"
            )
        self._require_sound(subject, train, test)
        return train, test, len(tars)

    def _require_sound(self, subject: str, train: Behaviour, test: Behaviour) -> None:
        """Raise `UserError` where tables, betas, pictures and declared facts do not fit together."""
        path = self._betas(subject)
        rows, voxels = betas_shape(path)
        mistaken = _mistaken(subject, voxels)
        if mistaken:
            raise UserError(f"{str(path)!r} has {voxels} voxels, not {SUBJECTS[subject].voxels}; {mistaken}")
        count = self.pictures.count()
        shared = read_shared(self.root, count)
        for name, part, flag in (("training", train, False), ("test", test, True)):
            what = f"subject {subject}, {name}"
            if part.row.max() >= rows:
                raise UserError(f"{what}: trial {part.row.max()} is beyond the {rows} rows of the betas; fetch both")
            if part.picture.max() >= count:
                raise UserError(f"{what}: picture {part.picture.max()} is beyond the {count} in {PICTURES_FILE}")
            astray = np.flatnonzero(part.row // SESSION_TRIALS + 1 != part.session)
            if len(astray) and subject in SUBJECTS:  # of others the trials per session are not known
                row, session = part.row[astray[0]], part.session[astray[0]]
                raise UserError(f"{what}: trial {row} is not of recording session {session}; the order is lost")
            wrong = part.shared != flag
            if shared is not None:
                wrong |= shared[part.picture] != flag
            if wrong.any():
                picture = part.picture[wrong][0]
                raise UserError(f"{what}: picture {picture} is{' not' * flag} one of shared1000; the split is mixed up")
        both = _shared(train, test)
        if len(both):
            raise UserError(f"subject {subject}: training and test share {len(both)} pictures, first {both[0]}")

    def _signals(self, subject: str, part: Behaviour, shown: np.ndarray) -> Trials:
        seen: Counter[int] = Counter()
        repetition = []
        for picture in part.picture.tolist():
            repetition.append(seen[picture])
            seen[picture] += 1
        return Trials(
            x=read_betas(self._betas(subject), part.row, self.config.cache_dir),
            stimulus=np.searchsorted(shown, part.picture).astype(np.int64),
            repetition=np.array(repetition, dtype=np.int64),
            session=part.session,
        )

    def _stimuli(self, shown: np.ndarray) -> Stimuli:
        """Pictures by rising COCO-73k index, which (in text) is their id; groups = semantic clusters where known."""
        clusters = self.clusters
        concepts = ("",) * len(shown) if clusters is None else tuple(clusters[i] for i in shown)
        groups = np.arange(len(shown)) if clusters is None else np.unique(concepts, return_inverse=True)[1]
        return Stimuli(
            ids=tuple(f"{i:05d}" for i in shown),
            load=lambda i: self.pictures.load(int(shown[i])),
            groups=groups.astype(np.int64),
            concepts=concepts,
            captions=self._captions(shown.tolist()),
        )

    def _near_test(self, train: Behaviour, test: Behaviour) -> tuple[bool, str]:
        """Whether clusters are known, and how many test pictures share theirs with a training picture."""
        clusters = self.clusters
        if clusters is None:
            return False, "not known (COCO_73k_semantic_cluster.npy is absent)"
        known = {clusters[i] for i in np.unique(train.picture)}
        pictures = np.unique(test.picture)
        return True, f"{sum(clusters[i] in known for i in pictures)} of {len(pictures)}"

    def _about_clusters(self, train: Behaviour, test: Behaviour) -> list[str]:
        known, near = self._near_test(train, test)
        if not known:
            return ["semantic clusters are not known: validation folds are by picture and may share a category"]
        return [
            f"{near} test pictures have a training picture of their semantic cluster: a decoder that only names the "
            "cluster scores above chance here (Shirakawa et al. 2025)"
        ]


def _session_tars(folder: Path, person: Person | None) -> dict[int, Path]:
    """Tar by recording session from 0, in order; raises `UserError` where there is none, or one more than declared."""
    found = {int(path.stem): path for path in folder.glob("*.tar") if path.stem.isascii() and path.stem.isdigit()}
    if not found:
        raise UserError(f"{str(folder)!r} holds no 0.tar, 1.tar, ...; fetch the recording sessions")
    if person is not None and max(found) >= person.sessions:
        text = f"is beyond the {person.sessions} recording sessions of this subject"
        raise UserError(f"{str(found[max(found)])!r} {text}; the folders are mixed up")
    return dict(sorted(found.items()))


def _mistaken(subject: str, voxels: int) -> str | None:
    """Which mistake a number of voxels gives away; None for the declared number and for a mask of one's own."""
    person = SUBJECTS.get(subject)
    if person is None or person.voxels == voxels:
        return None
    others = [name for name, other in SUBJECTS.items() if other.voxels == voxels]
    if others:
        return f"that is subject {others[0]}, the files are mixed up"
    if voxels > 4 * person.voxels:
        return "the mask nsdgeneral is coded -1, 0, 1: select the voxels of value 1"
    return None


def _about_sessions(subject: str, variant: str, n_sessions: int, train: Behaviour) -> str:
    declared = SUBJECTS[subject].sessions if subject in SUBJECTS else n_sessions
    used = len(np.unique(train.session))
    text = f"{variant}: {len(train)} training trials of {len(np.unique(train.picture))} pictures, "
    text += f"{used} of {declared} recording sessions"
    return text if n_sessions == declared else f"{text}; a partial copy, {n_sessions} recording sessions are there"


def _twins(stimuli: Stimuli, test: Sequence[int] | np.ndarray) -> np.ndarray:
    """Places of pictures outside the test whose pixels equal a test picture's under another index."""
    tested = set(np.asarray(test).tolist())
    hashes = {stimuli.hashes[i] for i in tested}
    return np.array([i for i in range(len(stimuli)) if i not in tested and stimuli.hashes[i] in hashes], dtype=np.int64)


def _shared(train: Behaviour, test: Behaviour) -> np.ndarray:
    return np.intersect1d(train.picture, test.picture)


def _at_most(what: str, declared: int | None, found: int) -> Fact:
    """A count of which a partial copy holds less; None: nothing is declared."""
    return Fact(
        what,
        None if declared is None else str(declared),
        str(found),
        usable=declared is not None and 0 < found < declared,
    )
