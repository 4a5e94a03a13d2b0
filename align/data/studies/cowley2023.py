"""Macaque V4 spikes for natural photographs (Cowley, Stan, Pillow & Smith 2023), as laid out by the public repository.

``study.root`` is the folder that holds ``data_V4_responses/``: ``images/images_{S}.zip`` (112 x 112 RGB) and
``responses_repeat_averaged/responses_{S}.npy``, float64 (units, images), spike counts per 100 ms averaged over repeats.
Column i of the responses is image i in sorted order of base file names. A ``subject`` is a recording session S, because
the recorded units differ from session to session.

Protocol: test = the last 200 images; training = the others minus every scene twin of a test image
(`align.data.splits`); exact duplicates among the training images are averaged into one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from align.config import Config
from align.data.reading.safe_load import load_array, read_image_zip, require_finite, require_rows
from align.data.signals import Recording, Stimuli, Trials, pixel_hash
from align.data.splits import refuse_overlap, scene_groups, scene_twins, thumbnails
from align.data.studies.base import Fact, Study, StudyInfo, require_root
from align.errors import UserError

FOLDER = "data_V4_responses"
LAYOUT = f"the folder that holds {FOLDER}/ of the public repository cowleygroup/V4_compact_models"
N_TEST = 200


@dataclass(frozen=True)
class Session:
    """Declared facts of one session. ``train``: training pictures left by the protocol. ``apart``: not in averages."""

    animal: str
    units: int
    images: int
    distinct: int
    train: int
    apart: bool = False


SESSIONS = {
    "190925": Session("WE", units=36, images=1200, distinct=900, train=700),  # every test image was also shown before
    "190927": Session("WE", units=31, images=1200, distinct=1200, train=1000),
    "190928": Session("WE", units=24, images=1200, distinct=1200, train=1000),
    "190929": Session("WE", units=33, images=1200, distinct=1200, train=1000),
    "210224": Session("PE", units=67, images=800, distinct=800, train=600),
    "210305": Session(
        "PE", units=70, images=400, distinct=400, train=100, apart=True
    ),  # scenes sharp, blurred, covered
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
        subjects=tuple(SESSIONS),
    )
    apart: ClassVar[tuple[str, ...]] = tuple(name for name, session in SESSIONS.items() if session.apart)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.folder = _folder(require_root(config, LAYOUT))

    def read(self, subject: str) -> Recording:
        """One session: ``x`` float32 (rows, units) in spikes per 100 ms, one row per picture, not standardised."""
        self.require_subject(subject)
        names, images, responses = self._read(subject)
        kept, log = _training_rows(images)
        stimulus_of: dict[str, int] = {}  # pixel hash -> stimulus index
        first_row: list[int] = []
        for row in kept:
            if stimulus_of.setdefault(pixel_hash(images[row]), len(first_row)) == len(first_row):
                first_row.append(int(row))
        if len(first_row) < len(kept):
            log.append(f"averaged exact duplicates: {len(kept)} training rows became {len(first_row)}")
        if SESSIONS[subject].apart:
            log.append("kept out of averages over sessions and reported apart (occlusion experiment)")
        x = np.ascontiguousarray(responses.T, dtype=np.float32)
        train = _trials(x[kept], [stimulus_of[pixel_hash(images[row])] for row in kept]).averaged()
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

    def further_pictures(self) -> Stimuli:
        """The training pictures of all sessions, without twins of any session's test pictures."""
        pairs = pretraining_images(self.folder)
        return _stimuli([name for name, _ in pairs], [image for _, image in pairs])

    def kept_out(self) -> list[np.ndarray]:
        """The test pictures of all sessions."""
        return test_images(self.folder)

    def check(self) -> list[Fact]:
        """Units x images, distinct pictures and training pictures of every configured session beside the files'."""
        facts = []
        for subject in self.config.subjects or self.subjects:
            self.require_subject(subject)
            declared = SESSIONS[subject]
            _, images, responses = self._read(subject)
            units, columns = responses.shape
            hashes = [pixel_hash(image) for image in images]
            train = len({hashes[row] for row in _training_rows(images)[0]})
            facts += [
                Fact(f"{subject} units x images", f"{declared.units} x {declared.images}", f"{units} x {columns}"),
                Fact(f"{subject} distinct images", str(declared.distinct), str(len(set(hashes)))),
                Fact(f"{subject} training images", str(declared.train), str(train)),
            ]
        return facts

    def _read(self, subject: str) -> tuple[list[str], list[np.ndarray], np.ndarray]:
        """Stimulus ids, pictures and responses (units, images) of one session, in the order of base names."""
        names, images = _pictures(self.folder, subject)
        responses = _responses(self.folder, subject)
        require_rows(responses.shape[1], len(images), f"session {subject}")
        if len(images) <= N_TEST:
            raise UserError(f"session {subject} has {len(images)} images; {N_TEST} are the test, none is left to train")
        return names, images, responses


def pretraining_images(root: str | Path) -> list[tuple[str, np.ndarray]]:
    """Pictures on which anything but a brain encoder may be trained: (id, uint8 (H, W, 3)), no picture twice.

    They are the training images of all sessions that are no scene twin of a test image of ANY session; all sessions
    must therefore be there, or `UserError` names the missing file.
    """
    folder = _folder(Path(root).expanduser())
    train: list[tuple[str, np.ndarray]] = []
    test: list[np.ndarray] = []
    for subject in SESSIONS:
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
    """The test pictures of all sessions, uint8 (H, W, 3): nothing that is trained may have seen a twin of one."""
    folder = _folder(Path(root).expanduser())
    return [image for subject in SESSIONS for image in _pictures(folder, subject)[1][-N_TEST:]]


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


def _folder(root: Path) -> Path:
    for folder in (root / FOLDER, root):
        if (folder / "images").is_dir() and (folder / "responses_repeat_averaged").is_dir():
            return folder
    raise UserError(f"study.root={str(root)!r} holds no {FOLDER}/images and responses; it should be {LAYOUT}")


def _pictures(folder: Path, subject: str) -> tuple[list[str], list[np.ndarray]]:
    """Stimulus ids and decoded pictures of one session in sorted order of base names."""
    pairs = read_image_zip(folder / "images" / f"images_{subject}.zip")
    return [f"{subject}_{Path(name).stem}" for name, _ in pairs], [image for _, image in pairs]


def _responses(folder: Path, subject: str) -> np.ndarray:
    path = folder / "responses_repeat_averaged" / f"responses_{subject}.npy"
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
