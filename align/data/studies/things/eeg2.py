"""THINGS-EEG2 (Gifford, Dwivedi, Roig & Cichy 2022): 10 people see photographs of objects, EEG, 4 recording sessions.

``study.root`` is a folder that holds (at most two folders deep) ``sub-01``, ``sub-02``, ... in one of these variants,
recognised from the files or given as ``study.variant``:

=============  ==================================================  =====================================================
variant        files in ``sub-XX``                                 what they hold
=============  ==================================================  =====================================================
``official``   ``preprocessed_eeg_training.npy``, ``..._test.npy`` 17 channels x 100 samples at 100 Hz from -0.2 s; OSF
``nice``       the same names, but pickled                         63 x 250 at 250 Hz from 0 s; NICE and ATM
``ubp``        ``train.pt``, ``test.pt``                           the same in float16, with session and picture names
``neurobridge`` ``train.npy``, ``test.npy`` (and ``info.json``)    the same in float32; NeuroBridge and SAMGA
``raw``        ``ses-01/raw_eeg_training.npy``, ``..._test.npy``   63 channels at 1000 Hz, with a trigger channel; OSF
=============  ==================================================  =====================================================

Pictures: see `things_images`. Protocol: 1654 training concepts x 10 pictures x 4 repetitions, 200 other concepts x 1
picture x 80 repetitions as test. Whitened variants have no unit, raw signals are in V.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from align.config import Config
from align.data.signals import Stimuli
from align.data.studies.base import Fact, StudyInfo, require_root
from align.data.studies.things.block import Block, Published, block_facts, copied, require_alike
from align.data.studies.things.images import IN_ORDER, ThingsPictures, require_pictures_of
from align.data.studies.things.study import ThingsStudy
from align.data.studies.things.variants import Layout, find_layout, read_dict, read_plain, read_torch_dict
from align.errors import UserError

LAYOUT = "the folder that holds sub-01, sub-02, ... of THINGS-EEG2, and its pictures"
PUBLISHED = ((16540, 4), (200, 80))  # training, test: pictures, repetitions of each
# fmt: off
CHANNELS = (  # the order of every published file with 63 channels
    "Fp1", "Fp2", "AF7", "AF3", "AFz", "AF4", "AF8", "F7", "F5", "F3", "F1", "F2", "F4", "F6", "F8", "FT9", "FT7",
    "FC5", "FC3", "FC1", "FCz", "FC2", "FC4", "FC6", "FT8", "FT10", "T7", "C5", "C3", "C1", "Cz", "C2", "C4", "C6",
    "T8", "TP9", "TP7", "CP5", "CP3", "CP1", "CPz", "CP2", "CP4", "CP6", "TP8", "TP10", "P7", "P5", "P3", "P1", "Pz",
    "P2", "P4", "P6", "P8", "PO7", "PO3", "POz", "PO4", "PO8", "O1", "Oz", "O2",
)
# fmt: on

_PREPROCESSED = ("preprocessed_eeg_training.npy", "preprocessed_eeg_test.npy")
_EEG_250 = "63 x 250 at 250.0 Hz"
LAYOUTS = {
    "official": Layout(*_PREPROCESSED, "17 x 100 at 100.0 Hz", read_dict, "preprocessed_eeg_data", begins=b"\x93NUMPY"),
    "nice": Layout(*_PREPROCESSED, _EEG_250, read_dict, "preprocessed_eeg_data", begins=b"\x80"),
    "ubp": Layout("train.pt", "test.pt", _EEG_250, read_torch_dict, "eeg"),
    "neurobridge": Layout(
        "train.npy",
        "test.npy",
        _EEG_250,
        read_plain,
        "data",
        assumed={"ch_names": CHANNELS, "times": np.arange(250) / 250},
    ),
    "raw": Layout("ses-01/raw_eeg_training.npy", "ses-01/raw_eeg_test.npy", "63 x 300 at 250.0 Hz"),
}


class ThingsEEG2(ThingsStudy):
    """The recordings of one variant under ``study.root``."""

    published: ClassVar[Published] = PUBLISHED

    info: ClassVar[StudyInfo] = StudyInfo(
        name="things_eeg2",
        title="THINGS-EEG2, Gifford et al. 2022",
        signal="EEG",
        source="https://osf.io/3jk45",
        licence="CC BY 4.0; the pictures are those of THINGS, for research only",
        trial_s=0.2,  # 100 ms picture, 100 ms pause (Gifford et al. 2022, methods)
        subjects=tuple(f"{i:02d}" for i in range(1, 11)),
    )

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.root = require_root(config, LAYOUT)
        self.variant, self.folder, self.found = find_layout(self.root, LAYOUTS, config.study.variant, "THINGS-EEG2")

    def blocks(self, subject: str) -> tuple[Block, Block, Stimuli, str]:
        """Training and test as the files hold them, checked against each other and against the pictures."""
        layout, folder = LAYOUTS[self.variant], self.folder / f"sub-{subject}"
        blocks = []
        for name, pictures in zip((layout.train, layout.test), self.pictures[:2], strict=True):
            if layout.read is None:
                block = read_raw(folder, Path(name).name, pictures, Path(self.config.cache_dir))
            else:
                block = layout.read(folder / name, layout)
            require_pictures_of(block, pictures)
            blocks.append(block)
        require_alike(*blocks)
        return blocks[0], blocks[1], self.stimuli, self.pictures[2]

    def check(self) -> list[Fact]:
        """Declared subjects, pictures, repetitions, channels, samples, rate and finite values beside the files'."""
        facts = [
            copied("subjects", len(self.info.subjects), len(self.found)),
            Fact("row order", IN_ORDER, self.pictures[2], usable=True),
        ]
        for subject in self.config.subjects or self.subjects:
            self.require_subject(subject)
            train, test, *_ = self.blocks(subject)
            facts += block_facts(subject, train, test, PUBLISHED, LAYOUTS[self.variant].declared)
        return facts


def read_raw(folder: Path, name: str, pictures: ThingsPictures, cache: Path) -> Block:
    """The file ``name`` of every session as trials (`align.data.studies.things.epoching`: -0.2 to 1 s, baseline, 250
    Hz), in V.

    Event k belongs to picture k, from 1. Raises `UserError` for an event without a picture.
    """
    from align.data.studies.things.epoching import write_epochs

    files = sorted(folder.glob(f"ses-*/{name}"))
    if not files:
        raise UserError(f"{str(folder)!r} holds no ses-01/{name}; fetch it again")
    epoched = write_epochs(files, cache)
    row, n = epoched.event_id - 1, len(pictures.names)
    if row.min() < 0 or row.max() >= n:
        event = int(row.max() + 1 if row.max() >= n else row.min() + 1)
        raise UserError(f"{name} of {folder.name} has the event {event}, the folder {n} {pictures.split} pictures")
    notes = list(epoched.log)
    unseen = n - len(np.unique(row))
    if unseen:
        notes.append(f"{unseen} of {n} {pictures.split} pictures were not shown in the {len(files)} sessions found")
    return Block(
        path=files[0],
        x=epoched.x,
        row=row,
        repetition=epoched.repetition,
        n_images=n,
        ch_names=epoched.ch_names,
        times=epoched.times,
        session=epoched.session,
        notes=tuple(notes),
    )
