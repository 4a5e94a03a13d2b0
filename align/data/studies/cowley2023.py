"""Macaque V4 spikes for natural photographs (Cowley, Stan, Pillow & Smith 2023), as laid out by the public repository.

``study.root`` is the folder that holds ``data_V4_responses/``: ``images/images_{S}.zip`` (112 x 112 RGB) and
``responses_repeat_averaged/responses_{S}.npy``, float64 (units, images), spike counts per 100 ms averaged over repeats.
Column i of the responses is image i in sorted order of base file names. A ``subject`` is a recording session S, because
the recorded units differ from session to session: every session whose two files are there and are of equally many
pictures. What is declared of eight sessions (`DECLARED`) is compared with the files and decides nothing.

Protocol: test = the last 200 images; training = the others minus every scene twin of a test image
(`align.data.splits`); exact duplicates among the training images are averaged into one row. A session that loses more
than `MOST_REMOVED` of its training rows in this way shows one scene again and again (the occlusion experiment 210305
does); it stays out of averages over sessions.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from align.config import Config
from align.data.reading.safe_load import count_pictures, load_array, read_image_zip, require_finite, require_rows
from align.data.signals import Recording, Stimuli, Trials, pixel_hash
from align.data.splits import refuse_overlap, scene_groups, scene_twins, thumbnails
from align.data.studies.base import Fact, Study, StudyInfo, require_root
from align.errors import UserError

FOLDER = "data_V4_responses"
LAYOUT = f"the folder that holds {FOLDER}/ of the public repository cowleygroup/V4_compact_models"
N_TEST = 200
MOST_REMOVED = 0.4  # of the training rows; by the published files 0 to .2, and .5 in the occlusion experiment
_PICTURES, _RESPONSES = "images/images_{}.zip", "responses_repeat_averaged/responses_{}.npy"
_SINGLE = "responses_raw/responses_{}.npy"  # (units, images, repeats), NaN where a repeat is missing; of one session

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """Declared facts of one session. ``train``: training pictures left by the protocol."""

    animal: str
    units: int
    images: int
    distinct: int
    train: int


DECLARED = {  # the repository holds further sessions, of which nothing is declared
    "190925": Session("WE", units=36, images=1200, distinct=900, train=700),  # every test image was also shown before
    "190927": Session("WE", units=31, images=1200, distinct=1200, train=1000),
    "190928": Session("WE", units=24, images=1200, distinct=1200, train=1000),
    "190929": Session("WE", units=33, images=1200, distinct=1200, train=1000),
    "210224": Session("PE", units=67, images=800, distinct=800, train=600),
    "210305": Session("PE", units=70, images=400, distinct=400, train=100),  # scenes sharp, blurred, covered
    "210322": Session("PE", units=59, images=1200, distinct=1200, train=1000),
    "210325": Session("PE", units=50, images=640, distinct=640, train=439),
}


class Cowley2023V4(Study):
    """The V4 sessions under ``study.root``."""

    info: ClassVar[StudyInfo] = StudyInfo(
        name="cowley2023_v4",
        title="Macaque V4 spikes for natural photographs, Cowley et al. 2023",
        signal="spikes",
        source="https://github.com/cowleygroup/V4_compact_models",
        licence="GPL-3.0",
        row_order="pictures sorted by file name, as many as responses; there is nothing else to compare them with",
    )

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.folder = _folder(require_root(config, LAYOUT))
        self.sessions, self.unfit = sessions_in(self.folder)

    @property
    def subjects(self) -> tuple[str, ...]:
        """The sessions whose pictures and responses are there and fit together, in order of their names."""
        return self.sessions

    @cached_property
    def default_subjects(self) -> tuple[str, ...]:
        """All but those that lose more than `MOST_REMOVED` of their training rows to the test."""
        apart = [name for name in self.subjects if _is_apart(_pictures(self.folder, name)[1])]
        if apart and len(apart) < len(self.subjects):
            log.info("%s: kept out of averages over sessions; run apart with 'subjects=[...]'", ", ".join(apart))
            return tuple(name for name in self.subjects if name not in apart)
        return self.subjects

    def require_subject(self, subject: str) -> None:
        """Raise `UserError` for a session that is not there, or whose files do not fit together, with the reason."""
        if subject in self.unfit:
            raise UserError(f"session {subject} cannot be used: {self.unfit[subject]}; leave it out of subjects=[...]")
        super().require_subject(subject)

    def read(self, subject: str) -> Recording:
        """One session: ``x`` float32 (rows, units) in spikes per 100 ms, one row per picture, not standardised."""
        self.require_subject(subject)
        names, images, responses = self._read(subject)
        kept, log = _training_rows(images)
        stimulus_of = _numbers(images, kept)
        first_of: dict[int, int] = {}
        for row in kept:
            first_of.setdefault(stimulus_of[int(row)], int(row))
        first_row = list(first_of.values())
        if len(first_row) < len(kept):
            log.append(f"averaged exact duplicates: {len(kept)} training rows became {len(first_row)}")
        if _is_apart(images):
            log.append("most scenes stand in training and test: report it apart from averages over sessions")
        x = np.ascontiguousarray(responses.T, dtype=np.float32)
        train = _trials(x[kept], [stimulus_of[int(row)] for row in kept]).averaged()
        test = _trials(x[-N_TEST:], range(len(first_row), len(first_row) + N_TEST))
        shown = first_row + list(range(len(images) - N_TEST, len(images)))
        recording = Recording(
            study=self.info.name,
            subject=subject,
            train=train,
            test=test,
            stimuli=_stimuli([names[i] for i in shown], [images[i] for i in shown]),
            ch_names=tuple(f"unit-{i:02d}" for i in range(len(responses))),
            log=tuple(log),
        )
        refuse_overlap(recording)
        return recording

    def repetitions(self, subject: str) -> Trials | None:
        """The single presentations of one session, where ``responses_raw/`` has them.

        Raises `UserError` where they are of other units or pictures than the averages.
        """
        path = self.folder / _SINGLE.format(subject)
        if not path.is_file():
            return None
        raw = np.asarray(load_array(path), dtype=np.float64)
        _, images, responses = self._read(subject)
        if raw.ndim != 3 or raw.shape[:2] != responses.shape:
            raise UserError(
                f"{str(path)!r} has shape {raw.shape}; the averages are of (units, images) {responses.shape}, and "
                "repeats should follow them"
            )
        stimulus_of = _numbers(images, _training_rows(images)[0])
        rows = [(i, k) for i in sorted(stimulus_of) for k in np.flatnonzero(np.isfinite(raw[:, i]).all(axis=0))]
        image, repeat = np.array(rows, dtype=np.int64).reshape(-1, 2).T
        x = np.ascontiguousarray(raw[:, image, repeat].T, dtype=np.float32)
        return Trials(x, np.array([stimulus_of[int(i)] for i in image], dtype=np.int64), repeat)

    def further_pictures(self) -> Stimuli:
        """The training pictures of all sessions, without twins of any session's test pictures."""
        pairs = pretraining_images(self.folder)
        return _stimuli([name for name, _ in pairs], [image for _, image in pairs])

    def kept_out(self) -> list[np.ndarray]:
        """The test pictures of all sessions."""
        return test_images(self.folder)

    def check(self) -> list[Fact]:
        """Units x images, distinct and training pictures of every session; declared where they are (`DECLARED`)."""
        facts = [Fact("sessions", None, str(len(self.subjects)))]
        if self.unfit:
            unfit = "; ".join(f"{name} ({reason})" for name, reason in self.unfit.items())
            facts.append(Fact("sessions that cannot be used", "none", unfit, usable=bool(self.subjects)))
        for subject in self.config.subjects or self.subjects:
            self.require_subject(subject)
            declared = DECLARED.get(subject)
            _, images, responses = self._read(subject)
            units, columns = responses.shape
            hashes = [pixel_hash(image) for image in images]
            train = len({hashes[row] for row in _training_rows(images)[0]})
            shape = None if declared is None else f"{declared.units} x {declared.images}"
            facts += [
                Fact(f"{subject} units x images", shape, f"{units} x {columns}", usable=True),
                Fact(
                    f"{subject} distinct images",
                    None if declared is None else str(declared.distinct),
                    str(len(set(hashes))),
                    True,
                ),
                Fact(
                    f"{subject} training images",
                    None if declared is None else str(declared.train),
                    str(train),
                    usable=train > 0,
                ),
            ]
        return facts

    def _read(self, subject: str) -> tuple[list[str], list[np.ndarray], np.ndarray]:
        """Stimulus ids, pictures and responses (units, images) of one session, in the order of base names."""
        names, images = _pictures(self.folder, subject)
        responses = _responses(self.folder, subject)
        require_rows(responses.shape[1], len(images), f"session {subject}")
        if len(images) <= N_TEST:
            raise UserError(f"session {subject} {_too_few(len(images))}")
        return names, images, responses


def sessions_in(folder: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """Sessions below ``data_V4_responses/`` that can be used, and why the others cannot, both in order of names.

    Counts come from the list of the zip and the header of the array. A file that is broken is left to its reader.
    """
    named = sorted({*_named(folder, _PICTURES), *_named(folder, _RESPONSES)})
    unfit = {name: reason for name in named if (reason := _unfit(folder, name)) is not None}
    return tuple(name for name in named if name not in unfit), unfit


def pretraining_images(root: str | Path) -> list[tuple[str, np.ndarray]]:
    """Pictures on which anything but a brain encoder may be trained: (id, uint8 (H, W, 3)), no picture twice.

    They are the training images of all sessions that are there and no scene twin of a test image of ANY of them.
    """
    folder = _folder(Path(root).expanduser())
    train: list[tuple[str, np.ndarray]] = []
    test: list[np.ndarray] = []
    for subject in sessions_in(folder)[0]:
        names, images = _pictures(folder, subject)
        train += list(zip(names, images, strict=True))[:-N_TEST]
        test += images[-N_TEST:]
    by_hash: dict[str, tuple[str, np.ndarray]] = {}
    for pair in train:
        by_hash.setdefault(pixel_hash(pair[1]), pair)
    candidates = list(by_hash.values())
    twins = scene_twins(
        thumbnails(image for _, image in candidates),
        thumbnails(test),
        list(by_hash),
        [pixel_hash(image) for image in test],
    )
    return [pair for pair, twin in zip(candidates, twins, strict=True) if not twin]


def test_images(root: str | Path) -> list[np.ndarray]:
    """The test pictures of all sessions there, uint8 (H, W, 3): nothing that is trained may have seen a twin of one."""
    return [image for images in test_images_of(root).values() for image in images]


def test_images_of(root: str | Path) -> dict[str, list[np.ndarray]]:
    """As `test_images`, by session."""
    folder = _folder(Path(root).expanduser())
    return {session: _pictures(folder, session)[1][-N_TEST:] for session in sessions_in(folder)[0]}


def _named(folder: Path, pattern: str) -> list[str]:
    """What stands in the place of ``{}`` in the names of the files that are there."""
    start, end = pattern.split("{}")
    found = (path.relative_to(folder).as_posix() for path in folder.glob(f"{start}*{end}"))
    return [name[len(start) : -len(end)] for name in found if len(name) > len(start + end)]


def _unfit(folder: Path, session: str) -> str | None:
    """Why a session cannot be used; None where it can, or where its reader has to say."""
    paths = [folder / pattern.format(session) for pattern in (_PICTURES, _RESPONSES)]
    absent = [path for path in paths if not path.is_file()]
    if absent:
        return f"{absent[0].parent.name}/{absent[0].name} is absent"
    try:
        pictures, responses = count_pictures(paths[0]), load_array(paths[1], mapped=True).shape
    except UserError:
        return None
    if len(responses) == 2 and responses[1] != pictures:
        return f"{responses[1]} responses but {pictures} images, so which belong together is not known"
    return _too_few(pictures) if pictures <= N_TEST else None


def _too_few(pictures: int) -> str:
    return f"has {pictures} images; {N_TEST} are the test, none is left to train"


def _is_apart(images: Sequence[np.ndarray]) -> bool:
    """Whether more than `MOST_REMOVED` of the rows before the test show a scene of the test."""
    return len(_training_rows(images)[0]) < (1 - MOST_REMOVED) * (len(images) - N_TEST)


def _training_rows(images: Sequence[np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """Rows before the test that show no scene of a test image, and a sentence about those removed."""
    hashes = [pixel_hash(image) for image in images]
    thumbs = thumbnails(images)
    twins = scene_twins(thumbs[:-N_TEST], thumbs[-N_TEST:], hashes[:-N_TEST], hashes[-N_TEST:])
    same = sum(name in set(hashes[-N_TEST:]) for name in hashes[:-N_TEST])
    sentence = (
        f"test = the last {N_TEST} of {len(images)} images; removed {int(twins.sum())} of {len(twins)} training rows "
        f"that show a scene of the test: {same} with equal pixels, {int(twins.sum()) - same} with thumbnail r > .97"
    )
    return np.flatnonzero(~twins), [sentence]


def _numbers(images: Sequence[np.ndarray], kept: np.ndarray) -> dict[int, int]:
    """Number of the stimulus of every row that is used: distinct training pictures, then those of the test."""
    number: dict[str, int] = {}
    found = {int(row): number.setdefault(pixel_hash(images[row]), len(number)) for row in kept}
    return found | {len(images) - N_TEST + k: len(number) + k for k in range(N_TEST)}


def _folder(root: Path) -> Path:
    for folder in (root / FOLDER, root):
        if (folder / "images").is_dir() and (folder / "responses_repeat_averaged").is_dir():
            return folder
    raise UserError(f"study.root={str(root)!r} holds no {FOLDER}/images and responses; it should be {LAYOUT}")


def _pictures(folder: Path, subject: str) -> tuple[list[str], list[np.ndarray]]:
    """Stimulus ids and decoded pictures of one session in sorted order of base names."""
    pairs = read_image_zip(folder / _PICTURES.format(subject))
    return [f"{subject}_{Path(name).stem}" for name, _ in pairs], [image for _, image in pairs]


def _responses(folder: Path, subject: str) -> np.ndarray:
    path = folder / _RESPONSES.format(subject)
    responses = load_array(path)
    if responses.ndim != 2:
        raise UserError(f"{str(path)!r} has shape {responses.shape}; expected (units, images)")
    require_finite(responses, str(path))
    return responses


def _trials(x: np.ndarray, stimulus: Sequence[int]) -> Trials:
    index = np.array(stimulus, dtype=np.int64)
    return Trials(x=x, stimulus=index, repetition=np.zeros(len(index), dtype=np.int64))


def _stimuli(ids: list[str], images: list[np.ndarray]) -> Stimuli:
    groups = scene_groups(thumbnails(images), [pixel_hash(image) for image in images])
    blank = ("",) * len(ids)
    return Stimuli(ids=tuple(ids), load=images.__getitem__, groups=groups, concepts=blank, captions=blank)
