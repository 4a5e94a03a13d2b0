"""The simulated study: three subjects "see" rendered pictures; an ordinary member of the list, made on first use.

460 training concepts x 2 pictures x 4 repetitions, 200 test concepts x 1 picture x 20 repetitions. Stored under
``study.root`` (default ``<cache_dir>/simulated``) as plain .npy and ``info.json``.
"""

from __future__ import annotations

import hashlib
import inspect
from functools import cached_property
from pathlib import Path

import numpy as np

from align.config import Config
from align.data.reading.safe_load import require_finite
from align.data.signals import Recording, Stimuli, Trials
from align.data.studies.base import Fact, Study, StudyInfo
from align.data.studies.simulated import brain, rendering
from align.data.studies.simulated.rendering import TEST_CONCEPTS, TRAIN_CONCEPTS, picture, scene_of
from align.errors import UserError
from align.files import atomic_path, read_json, write_sealed
from align.files.checksums import MADE_FOR, append_checksum, map_npy, of_folder, require_made_for
from align.files.made_once import made_once

PICTURES_PER_CONCEPT, TRAIN_REPETITIONS, TEST_REPETITIONS = 2, 4, 20
FURTHER_PER_CONCEPT = 40
_FIRST_FURTHER = 1000  # number of the first picture of a concept that belongs to no subject


class Simulated(Study):
    """See the module. ``simulated.code`` = mixed | late_only | no_signal; ``simulated.noise`` = eeg | low."""

    info = StudyInfo(
        name="simulated",
        title="Rendered objects on natural textures, simulated 63-channel EEG",
        signal="EEG",
        source="rendered and simulated by align.data",
        licence="MIT; textures from the photographs inside scikit-image",
        subjects=("01", "02", "03"),
        row_order="signals are simulated row by row from the list of pictures",
    )

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.code, self.noise = config.simulated.code, config.simulated.noise
        root = Path(config.study.root).expanduser() if config.study.root else Path(config.cache_dir) / "simulated"
        self.root = root / "-".join([self.code, *(["low-noise"] if self.noise == "low" else []), _recipe_hash()])

    @cached_property
    def train_ids(self) -> tuple[str, ...]:
        return tuple(f"{concept}-{k}" for concept in TRAIN_CONCEPTS for k in range(PICTURES_PER_CONCEPT))

    @cached_property
    def test_ids(self) -> tuple[str, ...]:
        return tuple(f"{concept}-0" for concept in TEST_CONCEPTS)

    @cached_property
    def stimuli(self) -> Stimuli:
        """Training pictures, then test pictures; groups = concepts."""
        return _stimuli(self.train_ids + self.test_ids, self._images())

    def further_pictures(self) -> Stimuli:
        """More pictures of the training concepts, rendered once per root."""
        ids = tuple(f"{concept}-{_FIRST_FURTHER + k}" for k in range(FURTHER_PER_CONCEPT) for concept in TRAIN_CONCEPTS)
        path = self.root / f"further_{len(ids)}.npy"
        return _stimuli(ids, _rendered(path, ids))

    def read(self, subject: str) -> Recording:
        self.require_subject(subject)
        folder = self.root / f"sub-{subject}"
        stored = made_once(
            folder / "info.json",
            lambda: _parts(folder),
            lambda: self._simulate(subject, folder),
            f"the recording of simulated subject {subject}",
        )
        n_train, n_test = len(self.train_ids), len(self.test_ids)
        noise = " simulated.noise=low" if self.noise == "low" else ""
        parts = []
        for name, first, n, repetitions in (
            ("train", 0, n_train, TRAIN_REPETITIONS),
            ("test", n_train, n_test, TEST_REPETITIONS),
        ):
            x = stored[name]
            shape = (n * repetitions, len(brain.CHANNELS), brain.N_TIMES)
            if x.shape != shape:
                raise UserError(
                    f"{folder / name}.npy has shape {x.shape}, not {shape}; delete {folder} to make it anew"
                )
            require_finite(x, f"{folder / name}.npy")
            stimulus = np.tile(np.arange(first, first + n), repetitions)
            repetition = np.repeat(np.arange(repetitions), n)
            parts.append(Trials(x.astype(np.float32), stimulus, repetition))
        return Recording(
            study=self.info.name,
            subject=subject,
            train=parts[0],
            test=parts[1],
            stimuli=self.stimuli,
            ch_names=brain.CHANNELS,
            sfreq=brain.SFREQ,
            log=(f"simulated.code={self.code}{noise}: both codes are there by construction",),
        )

    def rois(self, subject: str) -> dict[str, tuple[int | str, ...]]:
        """The channels over which the early and the late code lie."""
        return {"occipital": brain.OCCIPITAL, "temporal": brain.TEMPORAL}

    def check(self) -> list[Fact]:
        facts = [Fact("concepts shared by train and test", "0", str(len(set(TRAIN_CONCEPTS) & set(TEST_CONCEPTS))))]
        for subject in self.subjects:
            recording = self.recording(subject)
            shape = (len(brain.CHANNELS), brain.N_TIMES)
            facts += [
                Fact(
                    f"{subject} training trials",
                    str(len(self.train_ids) * TRAIN_REPETITIONS),
                    str(len(recording.train)),
                ),
                Fact(f"{subject} test trials", str(len(self.test_ids) * TEST_REPETITIONS), str(len(recording.test))),
                Fact(f"{subject} channels x samples", f"{shape}", f"{recording.train.x.shape[1:]}"),
            ]
        info = read_json(self.root / f"sub-{self.subjects[0]}" / "info.json")
        return [*facts, Fact("sampling rate (Hz)", str(brain.SFREQ), str(info["sfreq"]))]

    def _images(self) -> np.ndarray:
        """All pictures, uint8 (n, 64, 64, 3), rendered once per root."""
        path = self.root / "images.npy"
        return _rendered(path, self.train_ids + self.test_ids)

    def _simulate(self, subject: str, folder: Path) -> None:
        images = self._images()
        n_train = len(self.train_ids)
        response = brain.evoked(
            brain.early_features(images),
            brain.late_features(self.train_ids + self.test_ids),
            np.arange(n_train),
            subject,
            self.code,
        )
        for name, rows, repetitions in (
            ("train", response[:n_train], TRAIN_REPETITIONS),
            ("test", response[n_train:], TEST_REPETITIONS),
        ):
            seed = int(hashlib.sha256(f"{subject}/{name}".encode()).hexdigest()[:12], 16)
            trials = [x.astype(np.float16) for x in brain.trials(rows, repetitions, seed, self.noise)]
            _save(folder / f"{name}.npy", np.concatenate(trials))
        info = {
            "ch_names": list(brain.CHANNELS),
            "sfreq": brain.SFREQ,
            "tmin": 0.0,
            "code": self.code,
            "noise": self.noise,
            "train_ids": list(self.train_ids),
            "test_ids": list(self.test_ids),
            "rows": "repetition-major: row r * n + i is repetition r of id i",
        }
        write_sealed(folder / "info.json", {**info, MADE_FOR: of_folder(folder)})


def _parts(folder: Path) -> dict[str, np.ndarray]:
    """The signals of one subject by split, compared with their checksums, as the facts beside them are."""
    info = folder / "info.json"
    require_made_for(info, read_json(info), of_folder(folder))
    files = {name: folder / f"{name}.npy" for name in ("train", "test")}
    return {name: np.array(map_npy(path, _of(path))) for name, path in files.items()}


def _of(path: Path) -> str:
    """What a file is of: the recipe and the place below it."""
    return f"{path.parent.parent.name}/{of_folder(path)}" if path.parent.name.startswith("sub-") else of_folder(path)


def _rendered(path: Path, ids: tuple[str, ...]) -> np.ndarray:
    """Pictures, uint8 (n, 64, 64, 3), from the file, rendered where it is absent or damaged."""
    return made_once(
        path,
        lambda: np.array(map_npy(path, _of(path))),
        lambda: _save(path, np.stack([picture(name) for name in ids])),
        f"{len(ids)} rendered pictures",
    )


def _stimuli(ids: tuple[str, ...], images: np.ndarray) -> Stimuli:
    scenes = [scene_of(name) for name in ids]
    _, groups = np.unique([scene.concept for scene in scenes], return_inverse=True)
    return Stimuli(
        ids=ids,
        load=lambda i: np.asarray(images[i]),
        groups=groups,
        concepts=tuple(scene.concept for scene in scenes),
        captions=tuple(scene.caption for scene in scenes),
    )


def _save(path: Path, array: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        np.save(temporary, array)
        append_checksum(temporary, _of(path))


def _recipe_hash() -> str:
    """Changes when the rendering or the brain changes, so that stale files are never read."""
    text = inspect.getsource(rendering) + inspect.getsource(brain)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
