"""Writes small copies of NSD in MindEye2's layout: the real shapes, types, keys and names, most chunks never written.

``betas`` (30000, voxels) float32 and ``images`` (73000, 3, 224, 224) float16 keep their full shapes: HDF5 stores only
the chunks that were written, so a copy has some megabytes. The tars are those of webdataset's TarWriter: members
``sample000000000.behav.npy`` (1, 17), ``past_behav.npy`` (15, 17) and so on, float64, -1 where there is no value.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from align.data.studies.nsd import SESSION_TRIALS, SUBJECTS

SUBJECT = "07"  # the fewest voxels
CLUSTERS = tuple(f"photo of {name}" for name in ("surfer", "zebra", "pizza", "train", "clock", "kitchen", "giraffe"))
TEST_PICTURES = (2950, 5106, 40000, 41000, 42000, 43000, 44000, 72999)
TRAIN_PICTURES = tuple(range(100, 140))


@dataclass(frozen=True)
class Trial:
    """One presentation: COCO-73k index, row of the betas."""

    picture: int
    row: int

    @property
    def session(self) -> int:
        """Recording session, from 1."""
        return self.row // SESSION_TRIALS + 1


def training_trials(session: int = 0, pictures: Iterable[int] = TRAIN_PICTURES) -> list[Trial]:
    """One recording session (from 0): the first five pictures are shown twice."""
    shown = list(pictures)
    return [Trial(picture, session * SESSION_TRIALS + 3 * i) for i, picture in enumerate(shown + shown[:5])]


def trials_of_test(pictures: Iterable[int] = TEST_PICTURES) -> list[Trial]:
    """Every test picture three times, in the first, second and last session of the recording."""
    last = SUBJECTS[SUBJECT].sessions - 1
    starts = (1, SESSION_TRIALS + 1, last * SESSION_TRIALS + 1)
    return [Trial(picture, start + 3 * i) for start in starts for i, picture in enumerate(pictures)]


def picture(index: int) -> np.ndarray:
    """uint8 (224, 224, 3): what `write_nsd` stores as picture ``index``."""
    pixels = np.random.default_rng(index).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(pixels).resize((224, 224), Image.Resampling.BILINEAR))


def beta(trial: Trial, voxels: int) -> np.ndarray:
    """float32 (voxels,): a pattern of the picture plus noise of the trial."""
    pattern = np.random.default_rng(trial.picture).normal(size=voxels)
    noise = np.random.default_rng(10**6 + trial.row).normal(size=voxels)
    return (pattern + noise).astype(np.float32)


def write_nsd(
    root: Path,
    sessions: dict[int, list[Trial]] | None = None,
    test: list[Trial] | None = None,
    subject: str = SUBJECT,
    voxels: int | None = None,
) -> Path:
    """One subject; ``sessions``: training trials by recording session from 0. The clusters go round by index."""
    sessions = {0: training_trials()} if sessions is None else sessions
    test = trials_of_test() if test is None else test
    voxels = SUBJECTS[subject].voxels if voxels is None else voxels
    root.mkdir(parents=True, exist_ok=True)
    trials = [trial for part in (*sessions.values(), test) for trial in part]
    rows = SESSION_TRIALS * SUBJECTS[subject].sessions
    with h5py.File(root / f"betas_all_subj{subject}_fp32_renorm.hdf5", "w") as file:
        betas = file.create_dataset("betas", (rows, voxels), "f4", chunks=(1, voxels))
        for trial in trials:
            if trial.row < rows:
                betas[trial.row] = beta(trial, voxels)
    with h5py.File(root / "coco_images_224_float16.hdf5", "w") as file:
        images = file.create_dataset("images", (73000, 3, 224, 224), "f2", chunks=(1, 3, 224, 224))
        for index in sorted({trial.picture for trial in trials if trial.picture < 73000}):
            images[index] = (picture(index).transpose(2, 0, 1) / 255).astype(np.float16)
    for session, part in sessions.items():
        write_tar(root / "wds" / f"subj{subject}" / "train" / f"{session}.tar", part, int(subject), shared=False)
    write_tar(root / "wds" / f"subj{subject}" / "new_test" / "0.tar", test, int(subject), shared=True)
    mask = np.zeros(73000, dtype=bool)
    mask[[trial.picture for trial in test if trial.picture < 73000]] = True
    np.save(root / "shared1000.npy", mask)
    names = np.array(CLUSTERS, dtype="<U32")
    np.save(root / "semantic_cluster_names.npy", names)
    np.save(root / "COCO_73k_semantic_cluster.npy", names[np.arange(73000) % len(names)])
    return root


def write_tar(path: Path, trials: list[Trial], subject: int, shared: bool) -> None:
    """One webdataset shard of these trials."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for number, trial in enumerate(trials):
            tables = {"behav": row_of(trial, subject, shared)}
            tables |= {name: np.full((15, 17), -1.0) for name in ("past_behav", "future_behav")}
            tables["past_behav"][0] = row_of(Trial(trial.picture + 1, trial.row + 1), subject, shared)
            tables["olds_behav"] = np.full((3, 17), -1.0)
            for name, table in tables.items():
                add(archive, f"sample{number:09d}.{name}.npy", table)


def row_of(trial: Trial, subject: int, shared: bool) -> np.ndarray:
    """(1, 17) float64 in the order of the distribution's README."""
    row = np.full((1, 17), -1.0)
    in_session = trial.row % SESSION_TRIALS
    row[0, :7] = trial.picture, subject, trial.session, in_session // 63 + 1, in_session % 63 + 1, trial.row, 100.0
    row[0, 16] = float(shared)
    return row


def add(archive: tarfile.TarFile, name: str, table: np.ndarray) -> None:
    """One member as TarWriter writes it."""
    buffer = io.BytesIO()
    np.save(buffer, table)
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime, info.uname, info.gname = buffer.tell(), 0o444, 1_700_000_000, "bigdata", "bigdata"
    buffer.seek(0)
    archive.addfile(info, buffer)
