"""NSD in MindEye1's layout, which MindBridge and UMBRAE use too: one sample per picture, with its repetitions.

``webdataset_avg_split/{train,val,test}/subj01/`` (Hugging Face pscotti/naturalscenesdataset) holds, unpacked or in tars
(also ``train/train_subj01_0.tar``), for every picture ``NAME.nsdgeneral.npy`` (repetitions, voxels) or (voxels,),
``NAME.coco73k.npy`` (its index) and ``NAME.jpg``. Training = train and val, test = test. Files are read member by
member and copied once into the cache, where signals are mapped from; a repetition that repeats another one bit by bit
is one.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.data.reading.archives import members
from align.data.reading.safe_load import decode_image, require_finite
from align.data.signals import Recording, Stimuli, Trials, save_rows
from align.errors import UserError
from align.files import read_json, write_atomic, write_sealed
from align.files.checksums import MADE_FOR, map_npy, of_folder, require_made_for
from align.files.made_once import made_once

FOLDER = "webdataset_avg_split"
PARTS = {"train": ("train", "val"), "test": ("test",)}
BETAS, INDEX, PICTURE = "nsdgeneral.npy", "coco73k.npy", "jpg"
_SUBJECT = re.compile(r"subj(\d+)")


@dataclass(frozen=True)
class Sample:
    """One picture: its index among the 73,000, betas (repetitions, V), JPEG bytes."""

    coco: int
    betas: np.ndarray
    picture: bytes


def find_averaged(root: Path) -> Path | None:
    """The folder ``webdataset_avg_split``, at or below ``root``; None where there is none."""
    places = [root, root / FOLDER, *sorted(root.glob(f"*/{FOLDER}"))]
    return next((place for place in places if (place / "train").is_dir() and (place / "test").is_dir()), None)


def subjects_in(folder: Path) -> tuple[str, ...]:
    """Labels of the subjects that have training samples: "01" for subj01."""
    names = (_SUBJECT.search(path.name) for path in (folder / "train").iterdir())
    return tuple(sorted({match[1] for match in names if match}))


def read_averaged(folder: Path, subject: str, cache: Path, study: str) -> Recording:
    """One subject: ``x`` float32 (rows, voxels) mapped from ``cache``, one row per repetition.

    Raises `UserError` for missing or broken samples, two sizes of betas, and a picture in training and test.
    """
    files = {split: _files(folder, parts, subject) for split, parts in PARTS.items()}
    stats = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for own in files.values() for p in own]
    own = cache / "nsd_averaged" / hashlib.sha256(repr(stats).encode()).hexdigest()[:16]
    stored, facts = made_once(
        own / "facts.json",
        lambda: _stored(own),
        lambda: _copy(files, own),
        f"a copy of the samples of subject {subject}",
    )
    both = set(facts["train"]) & set(facts["test"])
    if both:
        raise UserError(f"subject {subject}: training and test share {len(both)} pictures, first {min(both)}")
    shown = np.unique([*facts["train"], *facts["test"]])
    return Recording(
        study=study,
        subject=subject,
        train=_trials(stored["train"], facts["train"], shown),
        test=_trials(stored["test"], facts["test"], shown),
        stimuli=Stimuli(
            ids=tuple(f"{i:05d}" for i in shown),
            load=lambda i: decode_image(own / "pictures" / f"{shown[i]:05d}.jpg"),
            groups=np.arange(len(shown)),
            concepts=("",) * len(shown),
            captions=("",) * len(shown),
        ),
        log=(
            f"averaged: {len(set(facts['train']))} training pictures (train and val), {len(set(facts['test']))} test "
            f"pictures; {facts['repeated']} repetitions that repeat another bit by bit were left out",
            "semantic clusters are not known: validation folds are by picture and may share a category",
        ),
    )


def _trials(x: np.ndarray, coco: list[int], shown: np.ndarray) -> Trials:
    stimulus = np.searchsorted(shown, coco).astype(np.int64)
    first: dict[int, int] = {}
    repetition = []
    for picture in coco:
        repetition.append(first.get(picture, 0))
        first[picture] = repetition[-1] + 1
    return Trials(x=x, stimulus=stimulus, repetition=np.array(repetition, dtype=np.int64))


def _files(folder: Path, parts: tuple[str, ...], subject: str) -> list[Path]:
    """Loose samples and tars of one subject, in order."""
    found: list[Path] = []
    for part in parts:
        own = folder / part / f"subj{subject}"
        found += sorted(own.glob("*.tar")) + sorted((folder / part).glob(f"{part}_subj{subject}_*.tar"))
        found += sorted(path for path in own.glob("*.*") if _wanted(path.name))  # the three of a sample stand together
    if not found:
        raise UserError(f"{str(folder / parts[0])!r} holds no samples of subj{subject}; fetch them")
    return found


def _members(files: list[Path]) -> Iterator[tuple[str, bytes]]:
    for path in files:
        if path.suffix == ".tar":
            yield from ((f"{path}/{name}", data) for name, data in members(path, _wanted))
        else:
            yield str(path), path.read_bytes()


def _wanted(name: str) -> bool:
    return name.partition(".")[2] in (BETAS, INDEX, PICTURE)


def _samples(files: list[Path]) -> Iterator[Sample]:
    """Every sample once its three members are there."""
    waiting: dict[str, dict[str, bytes]] = {}
    for name, data in _members(files):
        folder, _, file = name.rpartition("/")
        stem, _, kind = file.partition(".")
        own = waiting.setdefault(f"{folder}/{stem}", {})
        own[kind] = data
        if len(own) == len((BETAS, INDEX, PICTURE)):
            del waiting[f"{folder}/{stem}"]
            yield Sample(_coco(own[INDEX], name), _betas(own[BETAS], name), own[PICTURE])
    if waiting:
        name, own = next(iter(waiting.items()))
        lacking = next(kind for kind in (BETAS, INDEX, PICTURE) if kind not in own)
        raise UserError(f"sample {name!r} has no .{lacking}; fetch it again")


def _coco(data: bytes, name: str) -> int:
    value = _array(data, name)
    if value.size != 1 or value.dtype.kind not in "iuf" or float(value.reshape(-1)[0]) % 1:
        raise UserError(f"{name!r}: the index is {value.dtype} {value.shape}, expected one whole number")
    return int(value.reshape(-1)[0])


def _betas(data: bytes, name: str) -> np.ndarray:
    """(repetitions, V) float32, each repetition once."""
    value = _array(data, name)
    if value.dtype.kind != "f" or value.ndim not in (1, 2) or value.size == 0:
        raise UserError(f"{name!r}: betas are {value.dtype} {value.shape}, expected floats (repetitions, voxels)")
    value = np.atleast_2d(value).astype(np.float32)
    require_finite(value, name)
    return value


def _array(data: bytes, name: str) -> np.ndarray:
    try:
        return np.asarray(np.lib.format.read_array(io.BytesIO(data), allow_pickle=False))
    except Exception as error:  # numpy's parser raises whatever it likes
        raise UserError(f"{name!r} is no plain .npy ({' '.join(str(error).split())}); fetch it again") from error


def _distinct(betas: np.ndarray) -> np.ndarray:
    _, first = np.unique(betas, axis=0, return_index=True)
    return betas[np.sort(first)]


def _stored(own: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Signals by split and the facts of a copy; raises `Damaged` for those of another folder, too."""
    facts = read_json(own / "facts.json")
    require_made_for(own / "facts.json", facts, own.name)
    paths = {split: own / f"{split}.npy" for split in PARTS}
    return {split: map_npy(path, of_folder(path)) for split, path in paths.items()}, facts


def _copy(files: dict[str, list[Path]], own: Path) -> None:
    """Signals and pictures into ``own``; ``facts.json`` last."""
    facts: dict[str, object] = {}
    repeated, voxels = 0, set()
    for split, paths in files.items():
        coco: list[int] = []
        for sample in _samples(paths):
            kept = len(_distinct(sample.betas))
            repeated += len(sample.betas) - kept
            voxels.add(sample.betas.shape[1])
            coco += [sample.coco] * kept
            write_atomic(own / "pictures" / f"{sample.coco:05d}.jpg", sample.picture)
        if len(voxels) != 1:
            raise UserError(
                f"{str(paths[0].parent)!r} holds betas of {sorted(voxels)} voxels; they must be of one mask"
            )
        target = own / f"{split}.npy"
        save_rows(target, (len(coco), *voxels), (_distinct(s.betas) for s in _samples(paths)), of_folder(target))
        facts[split] = coco
    write_sealed(own / "facts.json", {**facts, "repeated": repeated, MADE_FOR: own.name})
