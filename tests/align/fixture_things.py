"""Writers of small THINGS-EEG2 and THINGS-MEG recordings in every variant, with the writers their publishers used."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.align.fixture_studies import picture

CH_NAMES = ("Fp1", "Cz", "P7", "Pz", "PO3", "O1", "Oz", "O2")  # in the order of the 63
OCCIPITAL = tuple(name for name in CH_NAMES if name[0] in "OP")
RATE = 50.0  # Hz
BEFORE, AFTER = 10, 25  # samples before and after onset: -0.2 to 0.5 s
TIMES = (np.arange(BEFORE + AFTER) - BEFORE) / RATE
TRAIN = [(f"{c + 1:05d}_kind{c:02d}", f"kind{c:02d}_{k:02d}s.jpg") for c in range(12) for k in range(10)]
TEST = [(f"{c + 1:05d}_other{c}", f"other{c}_03n.jpg") for c in range(6)]


@dataclass(frozen=True)
class Epochs:
    """One synthetic person: signals (pictures, repetitions, channels, -0.2 to 0.5 s), exact in float16."""

    train: np.ndarray
    test: np.ndarray

    def split(self, name: str) -> np.ndarray:
        return self.train if name == "train" else self.test


def epochs(seed: int = 0, train: int = len(TRAIN), test: int = len(TEST)) -> Epochs:
    """Each picture has its own response, each trial its own noise."""
    rng = np.random.default_rng(seed)
    size = (len(CH_NAMES), BEFORE + AFTER)
    parts = []
    for n, repetitions in ((train, 4), (test, 8)):
        evoked = rng.normal(size=(n, 1, *size))
        noisy = evoked + 0.5 * rng.normal(size=(n, repetitions, *size))
        parts.append(noisy.astype(np.float16).astype(np.float64))
    return Epochs(*parts)


def write_pictures(root: Path, train_folder: str = "training_images", metadata: bool = True) -> None:
    """JPEG files, and ``image_metadata.npy`` as an array of one dict."""
    for folder, names, first in ((train_folder, TRAIN, 0), ("test_images", TEST, 1000)):
        for i, (concept, file) in enumerate(names):
            (root / folder / concept).mkdir(parents=True, exist_ok=True)
            picture(first + i, 24).save(root / folder / concept / file, quality=90)
    if metadata:
        np.save(root / "image_metadata.npy", metadata_of(TRAIN, TEST))


def metadata_of(train: list[tuple[str, str]], test: list[tuple[str, str]]) -> dict[str, list[str]]:
    """The keys of the published file; test concepts have another number in the whole THINGS list."""
    out: dict[str, list[str]] = {}
    for split, names, offset in (("test", test, 500), ("train", train, 0)):
        out[f"{split}_img_concepts"] = [concept for concept, _ in names]
        out[f"{split}_img_files"] = [file for _, file in names]
        out[f"{split}_img_concepts_THINGS"] = [f"{int(c[:5]) + offset:05d}{c[5:]}" for c, _ in names]
    return out


def write_official(root: Path, recorded: Epochs, subject: str = "01") -> None:
    """``np.save`` of a dict: occipital and parietal channels, the whole epoch."""
    folder = _folder(root / "preprocessed_data", subject)
    rows = [CH_NAMES.index(name) for name in OCCIPITAL]
    for split, name in (("train", "training"), ("test", "test")):
        content = {
            "preprocessed_eeg_data": recorded.split(split)[:, :, rows],
            "ch_names": list(OCCIPITAL),
            "times": TIMES,
        }
        np.save(folder / f"preprocessed_eeg_{name}.npy", content)  # type: ignore[arg-type]


def write_nice(root: Path, recorded: Epochs, subject: str = "01", **changed: object) -> None:
    """A pickled dict under a ``.npy`` name: samples after onset, the times of the whole epoch."""
    folder = _folder(root / "Preprocessed_data_250Hz", subject)
    for split, name in (("train", "training"), ("test", "test")):
        content = {
            "preprocessed_eeg_data": np.ascontiguousarray(recorded.split(split)[..., BEFORE:]),
            "ch_names": list(CH_NAMES),
            "times": TIMES,
            **changed,
        }
        with (folder / f"preprocessed_eeg_{name}.npy").open("wb") as file:
            pickle.dump(content, file, protocol=4)


def write_ubp(root: Path, recorded: Epochs, subject: str = "01", **changed: object) -> None:
    """``torch.save`` of a dict of numpy arrays: float16, and what every trial was."""
    import torch

    folder = _folder(root / "Preprocessed_data_250Hz_whiten", subject)
    for split, names in (("train", TRAIN), ("test", TEST)):
        x = recorded.split(split)[..., BEFORE:].astype(np.float16)
        repetitions = x.shape[1]
        concepts = list(dict.fromkeys(concept for concept, _ in names))
        columns = {
            "label": np.array([concepts.index(concept) for concept, _ in names]),
            "img": np.array([f"{split}_images/{concept}/{file}" for concept, file in names]),
            "text": np.array([file.rsplit("_", 1)[0] for _, file in names]),
        }
        content = {
            "eeg": x,
            **{key: np.tile(value[:, None], (1, repetitions)) for key, value in columns.items()},
            "session": np.tile(np.arange(repetitions) // (repetitions // 4) * 1.0, (len(x), 1)),
            "ch_names": list(CH_NAMES),
            "times": TIMES,
            **(changed if split == "train" else {}),
        }
        torch.save(content, folder / f"{split}.pt", pickle_protocol=5)


def write_neurobridge(root: Path, recorded: Epochs, subject: str = "01", pickled: bool = False) -> None:
    """Plain float32 (concepts, pictures, repetitions, C, T) with ``info.json``; or the pickled dict of later files."""
    folder = _folder(root / "preprocessed_eeg", subject)
    told = {"ch_names": list(CH_NAMES), "times": TIMES.tolist()}
    for split, pictures in (("train", 10), ("test", 1)):
        x = recorded.split(split)[..., BEFORE:].astype(np.float32)
        x = x.reshape(-1, pictures, *x.shape[1:])
        if pickled:
            with (folder / f"{split}.npy").open("wb") as file:
                pickle.dump({"data": x, "ch_names": list(CH_NAMES), "times": TIMES}, file, protocol=4)
        else:
            np.save(folder / f"{split}.npy", x)
    if not pickled:
        (folder.parent / "info.json").write_text(json.dumps(told))


def write_raw(root: Path, n_train: int, n_test: int, subject: str = "01", noise: float = 0.0) -> None:
    """Four sessions at 1000 Hz: half of the training pictures twice, all test pictures twice, catch targets between.

    Channel c holds ``(c + 1) x event`` uV from 0 to 1.1 s after its onset and 0 before, and ``noise`` times as much
    noise.
    """
    rng = np.random.default_rng(0)
    for session in range(4):
        folder = root / "Raw_data" / f"sub-{subject}" / f"ses-{session + 1:02d}"
        folder.mkdir(parents=True)
        half = [i + 1 for i in range(n_train) if i % 2 == session % 2]
        for name, events in (("training", half * 2), ("test", list(range(1, n_test + 1)) * 2)):
            order = rng.permutation([*events, 99999])
            data = np.zeros((len(CH_NAMES) + 1, 1500 * (len(order) + 1)))
            for k, event in enumerate(order):
                onset = 1000 + 1500 * k
                data[-1, onset : onset + 20] = event
                data[:-1, onset : onset + 1100] = (np.arange(len(CH_NAMES)) + 1)[:, None] * (event % 99999) * 1e-6
            data[:-1] *= 1 + noise * rng.standard_normal(data[:-1].shape)  # else repetitions are the same numbers
            content = {
                "raw_eeg_data": data,
                "ch_names": [*CH_NAMES, "stim"],
                "ch_types": ["eeg"] * len(CH_NAMES) + ["stim"],
                "sfreq": 1000,
                "highpass": 0.01,
                "lowpass": 100.0,
            }
            np.save(folder / f"raw_eeg_{name}.npy", content)  # type: ignore[arg-type]


WRITERS = {"official": write_official, "nice": write_nice, "ubp": write_ubp, "neurobridge": write_neurobridge}


def write_meg(root: Path, n_concepts: int = 8, n_tests: int = 3) -> np.ndarray:
    """``-epo.fif`` of P1 with its tables and pictures; returns the events in the order of the file.

    Every concept has 4 pictures and a fifth; the fifth of every second concept is a test picture, shown 12 times, the
    other pictures once. Value of every sample = 1e-13 x event, plus noise of 1e-15 T.
    """
    import mne

    listed = [f"images/thing{c}/thing{c}_{k:02d}s.jpg" for c in range(n_concepts) for k in range(5)]
    tests = [5 * (2 * t) + 5 for t in range(n_tests)]  # event = line from 1
    shown = [event for event in range(1, len(listed) + 1) if event % 5 or event in tests]
    rng = np.random.default_rng(1)
    once = [event for event in shown if event not in tests]
    events = rng.permutation([*once, *tests * 12, *[999999] * 5])
    n_chans, rate = 6, 200.0
    info = mne.create_info([f"M{c:02d}" for c in range(n_chans)] + ["UPPT001"], rate, ["mag"] * n_chans + ["stim"])
    x = 1e-13 * events[:, None, None] + 1e-15 * rng.normal(size=(len(events), n_chans + 1, 281))
    marks = np.stack([np.arange(len(events)) * 400, np.zeros(len(events), int), events], axis=1)
    found = mne.EpochsArray(x, info, marks, tmin=-0.1, verbose="error")
    folder = root / "derivatives" / "preprocessed"
    folder.mkdir(parents=True, exist_ok=True)
    found.save(folder / "preprocessed_P1-epo.fif", fmt="single", overwrite=True, verbose="error")
    (root / "image_paths.csv").write_text("".join(f"{path}\n" for path in listed))
    (root / "image_concept_index.csv").write_text("".join(f"{i // 5 + 1}\n" for i in range(len(listed))))
    for i, path in enumerate(listed):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        picture(i, 24).save(root / path, quality=90)
    return events


def publish_as_openneuro(root: Path) -> None:
    """Make of what `write_meg` wrote the layout of today: epochs with a table of their trials, no lists of THINGS, and
    its pictures in ``object_images/``."""
    import mne
    import pandas as pd

    table = (root / "image_paths.csv").read_text().split()
    path = root / "derivatives" / "preprocessed" / "preprocessed_P1-epo.fif"
    epochs = mne.read_epochs(path, preload=True, verbose="error")
    rows, seen = [], np.bincount(epochs.events[:, 2][epochs.events[:, 2] != 999999])
    for event in epochs.events[:, 2]:
        if event == 999999:
            rows.append(("catch", "images_catch_meg/catch047.jpg", np.nan, np.nan))
            continue
        concept, file = table[event - 1].split("/")[1:]
        test = seen[event] > 1
        place = f"images_test_meg/{file}" if test else f"images_meg/{concept}/{file}"
        rows.append(("test" if test else "exp", place, (event - 1) // 5 + 1, event))
    columns = ["trial_type", "image_path", "things_category_nr", "things_image_nr"]
    epochs.metadata = pd.DataFrame(rows, columns=columns)
    epochs.save(path, fmt="single", overwrite=True, verbose="error")
    for name in ("image_paths.csv", "image_concept_index.csv"):
        (root / name).unlink()
    (root / "images").rename(root / "object_images")


def write_meg_repack(fif_root: Path, root: Path, variant: str) -> None:
    """The ATM, UBP or NeuroBridge files and pictures made from what `write_meg` wrote, as their authors' scripts do."""
    import mne

    table = (fif_root / "image_paths.csv").read_text().split()
    path = fif_root / "derivatives" / "preprocessed" / "preprocessed_P1-epo.fif"
    read = mne.read_epochs(path, preload=True, verbose="error").pick("mag").crop(0, 1.0)
    events = read.events[:, 2]
    order = np.argsort(events, kind="stable")
    events, x = events[order], read.get_data()[order]
    names, counts = np.unique(events, return_counts=True)
    tests = names[counts == 12]
    concept = (events - 1) // 5
    is_test = np.isin(events, tests)
    train = (events != 999999) & ~is_test & ~np.isin(concept, (tests - 1) // 5)
    folder = _folder(root / "preprocessed_MEG", "01")
    shapes = {"train": (-1, 4, 1), "test": (-1, 1, 12)}
    for split, rows in (("train", train), ("test", is_test)):
        data = x[rows].reshape(*shapes[split], *x.shape[1:])
        ids = list(dict.fromkeys(events[rows].tolist()))
        for event in ids:
            concept_name, file = table[event - 1].split("/")[1:]
            target = root / f"{split}{'ing' if split == 'train' else ''}_images"
            target = target / f"{(event - 1) // 5 + 1:05d}_{concept_name}"
            target.mkdir(parents=True, exist_ok=True)
            (target / file).write_bytes((fif_root / table[event - 1]).read_bytes())
        if variant == "atm":
            content = {"meg_data": data, "ch_names": read.ch_names, "times": read.times}
            name = "training" if split == "train" else "zs_test"
            with (folder / f"preprocessed_meg_{name}.pkl").open("wb") as out:
                pickle.dump(content, out, protocol=4)
        elif variant == "ubp":
            import torch

            img = [f"{split}_images/{(e - 1) // 5 + 1:05d}_{'/'.join(table[e - 1].split('/')[1:])}" for e in ids]
            flat = data.reshape(len(ids), -1, *x.shape[1:])
            torch.save({"eeg": flat, "img": np.array(img)}, folder / f"{split}.pt", pickle_protocol=5)
        else:
            content = {"data": data[..., :-1].astype(np.float32), "ch_names": [], "times": np.linspace(0, 0.995, 200)}
            with (folder / f"{split}.npy").open("wb") as out:
                pickle.dump(content, out, protocol=4)


def _folder(root: Path, subject: str) -> Path:
    folder = root / f"sub-{subject}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
