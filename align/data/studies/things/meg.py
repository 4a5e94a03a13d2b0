"""THINGS-MEG (Hebart et al. 2023): 4 people see photographs of objects, 271 MEG sensors, 12 recording sessions.

``study.root`` is a folder that holds (at most four folders deep) one of these variants, recognised from the files or
given as ``study.variant``:

===============  ==========================================================  ==========================================
variant          files                                                       what they hold
===============  ==========================================================  ==========================================
``openneuro``    ``preprocessed_P1-epo.fif`` (and ``image-paths.csv``,       271 x 281 at 200 Hz from -0.1 s; OpenNeuro
                 for epochs without a table of their trials)                 ds004212
``atm``          ``sub-01/preprocessed_meg_training.pkl``, ``_zs_test.pkl``  271 x 201 at 200 Hz from 0 s
``ubp``          ``sub-01/train.pt``, ``test.pt``                            the same, with picture names
``neurobridge``  ``sub-01/train.npy``, ``test.npy``                          271 x 200
===============  ==========================================================  ==========================================

Protocol: the 200 pictures that were shown 12 times are the test; of the 1854 concepts that were shown once per
picture, the 200 of the test are removed, which leaves 1654 x 12 training trials. Pictures: as in `things_images` for
the repacks; ``openneuro`` and ``ubp``, which name their pictures, also find those of THINGS itself
(``object_images/aardvark/aardvark_01b.jpg``).
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from align.config import Config
from align.data.signals import Stimuli
from align.data.studies.base import Fact, StudyInfo, require_root
from align.data.studies.things.block import Block, Published, block_facts, copied, require_alike
from align.data.studies.things.images import pictures_by_name, require_pictures_of, sorted_folders, stimuli_of
from align.data.studies.things.meg_epochs import METADATA, Table, find_epochs, pictures_of, read_epochs, read_list
from align.data.studies.things.study import ThingsStudy
from align.data.studies.things.variants import Layout, find_layout, read_dict, read_plain, read_torch_dict
from align.errors import UserError

LAYOUT = "the folder that holds preprocessed_P1-epo.fif (or sub-01, ...) of THINGS-MEG, and its pictures"
PUBLISHED = ((19848, 1), (200, 12))  # training (1654 concepts x 12), test: pictures, repetitions of each
OPENNEURO = "openneuro"
LAYOUTS = {
    "atm": Layout(
        "preprocessed_meg_training.pkl", "preprocessed_meg_zs_test.pkl", "271 x 201 at 200.0 Hz", read_dict, "meg_data"
    ),
    "ubp": Layout(
        "train.pt",
        "test.pt",
        "271 x 201 at 200.0 Hz",
        read_torch_dict,
        "eeg",
        assumed={"times": np.arange(201) / 200},
    ),
    "neurobridge": Layout("train.npy", "test.npy", "271 x 200 at 200.0 Hz", read_plain, "data"),
}


class ThingsMEG(ThingsStudy):
    """The recordings of one variant under ``study.root``."""

    published: ClassVar[Published] = PUBLISHED

    info: ClassVar[StudyInfo] = StudyInfo(
        name="things_meg",
        title="THINGS-MEG, Hebart et al. 2023",
        signal="MEG",
        source="https://openneuro.org/datasets/ds004212",
        licence="CC0; the pictures are those of THINGS, for research only",
        trial_s=1.5,  # 500 ms picture, 1000 ms pause on average (Hebart et al. 2023, methods)
        subjects=("01", "02", "03", "04"),
    )

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.root = require_root(config, LAYOUT)
        self.epochs = find_epochs(self.root) if config.study.variant in (None, OPENNEURO) else {}
        if self.epochs:
            self.variant, self.folder, self.found = OPENNEURO, self.root, tuple(self.epochs)
        elif config.study.variant == OPENNEURO:
            raise UserError(f"study.root={str(self.root)!r} holds no preprocessed_P1-epo.fif; it should be {LAYOUT}")
        else:
            self.variant, self.folder, self.found = find_layout(self.root, LAYOUTS, config.study.variant, "THINGS-MEG")

    @cached_property
    def table(self) -> Table | None:
        """THINGS' list of pictures, for epochs that carry no table of their own; None where it is absent."""
        return read_list(self.root, self.config.study.images)

    def blocks(self, subject: str) -> tuple[Block, Block, Stimuli, str]:
        """Training and test as the files hold them, their pictures, and what the order of the two rests on."""
        if self.variant == OPENNEURO:
            cache = Path(self.config.cache_dir)
            train, test, events, table = read_epochs(self.epochs[subject], self.table, cache)
            pictures = [
                pictures_of(split, event, table, self.root, self.config.study.images)
                for split, event in zip(("train", "test"), events, strict=True)
            ]
            order = METADATA if table.source == METADATA else f"the events' numbers, by {table.source}"
            return train, test, stimuli_of(pictures[0], pictures[1], self.config.cache_dir), order
        layout, folder = LAYOUTS[self.variant], self.folder / f"sub-{subject}"
        assert layout.read is not None
        train, test = layout.read(folder / layout.train, layout), layout.read(folder / layout.test, layout)
        require_alike(train, test)
        if train.images and test.images and sorted_folders(self.root, self.config.study.images) is None:
            listed = [
                pictures_by_name(split, block.images or (), self.root, self.config.study.images)
                for split, block in (("train", train), ("test", test))
            ]
            order = "the pictures that the signal files list"
            return train, test, stimuli_of(listed[0], listed[1], self.config.cache_dir), order
        for block, shown_pictures in zip((train, test), self.pictures[:2], strict=True):
            require_pictures_of(block, shown_pictures)
        return train, test, self.stimuli, self.pictures[2]

    def check(self) -> list[Fact]:
        """Declared subjects, pictures, repetitions, concepts, channels, samples, rate and finite values."""
        declared = "271 x 281 at 200.0 Hz" if self.variant == OPENNEURO else LAYOUTS[self.variant].declared
        facts = [copied("subjects", len(self.info.subjects), len(self.found))]
        for subject in self.config.subjects or self.subjects:
            self.require_subject(subject)
            train, test, stimuli, _ = self.blocks(subject)
            concepts = [set(part) for part in (stimuli.concepts[: train.n_images], stimuli.concepts[train.n_images :])]
            facts += block_facts(subject, train, test, PUBLISHED, declared)
            facts += [
                copied(f"{subject} training concepts", 1654, len(concepts[0])),
                Fact(f"{subject} concepts shared by training and test", "0", str(len(concepts[0] & concepts[1]))),
            ]
        return facts
