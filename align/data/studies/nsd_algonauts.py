"""NSD on the cortical surface: the layout of the Algonauts Project 2023 challenge (Gifford et al. 2023).

For every subject ``subj01/`` holds, at most two folders below ``study.root``:

- ``training_split/training_fmri/{lh,rh}_training_fmri.npy``, float32 (pictures, vertices of fsaverage), betas that the
  organisers averaged over the repetitions of a picture;
- ``training_split/training_images/train-0001_nsd-00013.png``: row 1, picture 13 (from 0) of the 73,000;
- ``test_split/`` of the same form with ``test`` for ``training`` (it may lie in another folder of root, as the
  organisers' ``test_data/``); its responses were published after the challenge;
- optionally ``roi_masks/lh.NAME_challenge_space.npy`` with ``mapping_NAME.npy``: regions by hemisphere.

A channel is a vertex: those of the left hemisphere, then those of the right. Without responses for the test pictures,
training pictures stand in: those whose index has a SHA-256 that begins with 0 or 1 (one in eight), so that a picture
is test or training of every subject alike.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from align.data.reading.convert import open_container
from align.data.reading.safe_load import decode_image, load_array, require_finite
from align.data.signals import Recording, Stimuli, Trials, mapped_file, save_rows
from align.errors import UserError
from align.files.checksums import map_npy
from align.files.made_once import made_once

HEMISPHERES = ("lh", "rh")
_DEPTH = ("", "*/", "*/*/")
_SUBJECT = re.compile(r"subj(\d+)")
_PICTURE = re.compile(r"\w+-(\d+)_nsd-(\d+)\.png")
_MASK = re.compile(r"([lr]h)\.(.+)_challenge_space\.npy")
_STAND_IN = "01"  # first hexadecimal digits of the pictures that stand in for a test: 2 of 16
_BLOCK = 256  # rows that are copied at once


@dataclass(frozen=True)
class Part:
    """One split of one subject: responses by hemisphere (n, V), mapped; (path, COCO-73k index) of each row."""

    hemispheres: tuple[np.ndarray, ...]
    pictures: tuple[tuple[Path, int], ...]

    def rows(self, wanted: np.ndarray) -> Iterator[np.ndarray]:
        """Pieces (at most 256, V) of the rows that are wanted, left hemisphere first."""
        for start in range(0, len(wanted), _BLOCK):
            take = wanted[start : start + _BLOCK]
            piece = np.concatenate([np.asarray(part[take], np.float32) for part in self.hemispheres], axis=1)
            require_finite(piece, f"responses of {self.pictures[take[0]][0].parent}")
            yield piece


def find_algonauts(root: Path) -> Path | None:
    """``root`` itself where some subject's ``training_split`` lies at or below it; None otherwise."""
    return root if subjects_in(root) else None


def subjects_in(root: Path) -> tuple[str, ...]:
    """Labels of the subjects that have training responses: "01" for subj01."""
    places = (path.parents[1].name for path in _below(root, "subj*/training_split/training_fmri"))
    return tuple(sorted({match[1] for match in map(_SUBJECT.fullmatch, places) if match}))


def read_algonauts(root: Path, subject: str, cache: Path, study: str) -> Recording:
    """One subject: ``x`` float32 (pictures, vertices) mapped from ``cache``, one row per picture.

    Raises `UserError` where rows and pictures do not match, hemispheres or splits differ in size, values are not
    finite, or a picture is in training and test.
    """
    parts = {"train": _part(root, subject, "training"), "test": _part(root, subject, "test")}
    given, tested = parts["train"], parts["test"]
    if given is None:
        raise UserError(f"{str(root)!r} holds no training responses of subj{subject}; fetch them")
    index = np.array([coco for _, coco in given.pictures])
    stands_in = np.array([hashlib.sha256(f"{coco}".encode()).hexdigest()[0] in _STAND_IN for coco in index])
    if tested is None:
        picked = {"train": (given, np.flatnonzero(~stands_in)), "test": (given, np.flatnonzero(stands_in))}
    else:
        picked = {"train": (given, np.arange(len(index))), "test": (tested, np.arange(len(tested.pictures)))}
    _require_alike(picked, subject)
    files = {coco: path for part, rows in picked.values() for path, coco in (part.pictures[row] for row in rows)}
    shown = sorted(files)
    return Recording(
        study=study,
        subject=subject,
        train=_trials(*picked["train"], shown, cache),
        test=_trials(*picked["test"], shown, cache),
        stimuli=Stimuli(
            ids=tuple(f"{coco:05d}" for coco in shown),
            load=lambda i: decode_image(files[shown[i]]),
            groups=np.arange(len(shown)),
            concepts=("",) * len(shown),
            captions=("",) * len(shown),
        ),
        log=(
            f"algonauts: {len(picked['train'][1])} training and {len(picked['test'][1])} test pictures; "
            + ("responses of the test split" if tested else "no test responses are there: training pictures stand in"),
            "rows were averaged over repetitions by their makers: no noise ceiling can be computed from them",
            "semantic clusters are not known: validation folds are by picture and may share a category",
        ),
    )


def rois_algonauts(root: Path, subject: str) -> dict[str, tuple[int | str, ...]]:
    """Vertices (from 0, left hemisphere first) of every region of ``roi_masks/``, both hemispheres together.

    A region is a value of a mask, called as its mapping says ("V1v"), with the mask's name ("streams-2") where the
    mapping is absent. 0 = in no region.
    """
    given = _part(root, subject, "training")
    found: dict[str, list[int]] = {}
    sizes = [] if given is None else [part.shape[1] for part in given.hemispheres]
    for folder in _below(root, f"subj{subject}/roi_masks"):
        for path in sorted(folder.glob("*_challenge_space.npy")):
            match = _MASK.fullmatch(path.name)
            if match is None or not sizes:
                continue
            side = HEMISPHERES.index(match[1])
            codes, names = load_array(path), _mapping(folder / f"mapping_{match[2]}.npy", match[2])
            if codes.shape != (sizes[side],):
                raise UserError(f"{str(path)!r} has shape {codes.shape}, the responses {sizes[side]} vertices")
            for code in np.unique(codes[codes != 0]).tolist():
                vertices = np.flatnonzero(codes == code) + sum(sizes[:side])
                found.setdefault(names.get(int(code), f"{match[2]}-{int(code)}"), []).extend(vertices.tolist())
        break
    return {name: tuple(sorted(set(vertices))) for name, vertices in found.items()}


def _below(root: Path, pattern: str) -> list[Path]:
    return [path for depth in _DEPTH for path in sorted(root.glob(f"{depth}{pattern}")) if path.is_dir()]


def _part(root: Path, subject: str, split: str) -> Part | None:
    """A split whose responses are there; None where they are not."""
    folder = next(iter(_below(root, f"subj{subject}/{split}_split/{split}_fmri")), None)
    if folder is None:
        return None
    hemispheres = tuple(load_array(folder / f"{side}_{split}_fmri.npy", mapped=True) for side in HEMISPHERES)
    images = folder.parent / f"{split}_images"
    matches = [(_PICTURE.fullmatch(path.name), path) for path in images.glob("*.png")]
    listed = sorted((int(match[1]), int(match[2]), path) for match, path in matches if match)
    if [number for number, _, _ in listed] != list(range(1, len(listed) + 1)):
        raise UserError(f"{str(images)!r}: pictures are not numbered 1 to {len(listed)} (train-0001_nsd-00013.png)")
    for side, rows in zip(HEMISPHERES, hemispheres, strict=True):
        if rows.ndim != 2 or len(rows) != len(listed) or rows.dtype.kind != "f":
            raise UserError(
                f"{str(folder)!r}: {side} responses are {rows.dtype} {rows.shape}, "
                f"expected floats ({len(listed)} pictures of {images.name}, vertices)"
            )
    return Part(hemispheres, tuple((path, coco) for _, coco, path in listed))


def _require_alike(picked: dict[str, tuple[Part, np.ndarray]], subject: str) -> None:
    """One number of vertices in both splits; no picture in both or twice in one; none of them empty."""
    sizes = {tuple(side.shape[1] for side in part.hemispheres) for part, _ in picked.values()}
    if len(sizes) != 1:
        raise UserError(f"subject {subject}: training and test have {sorted(sizes)} vertices (left, right)")
    index = [[part.pictures[row][1] for row in rows] for part, rows in picked.values()]
    for split, own in zip(picked, index, strict=True):
        if len(own) < 2 or len(set(own)) != len(own):
            raise UserError(f"subject {subject}: {len(set(own))} pictures in {len(own)} {split} rows; fetch them again")
    both = set(index[0]) & set(index[1])
    if both:
        raise UserError(f"subject {subject}: training and test share {len(both)} pictures, first {min(both)}")


def _trials(part: Part, rows: np.ndarray, shown: Sequence[int], cache: Path) -> Trials:
    """The rows of one split, copied once into ``cache`` with both hemispheres side by side."""
    files = [Path(str(at.filename)) for at in map(mapped_file, part.hemispheres) if at is not None]
    stats = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    key = hashlib.sha256(repr(stats).encode() + rows.tobytes()).hexdigest()[:16]
    path = cache / "nsd_algonauts" / f"{key}.npy"
    shape = (len(rows), sum(side.shape[1] for side in part.hemispheres))
    x = made_once(path, lambda: map_npy(path), lambda: save_rows(path, shape, part.rows(rows)), "surface responses")
    stimulus = np.searchsorted(np.asarray(shown), [part.pictures[row][1] for row in rows])
    return Trials(x=x, stimulus=stimulus.astype(np.int64), repetition=np.zeros(len(rows), dtype=np.int64))


def _mapping(path: Path, mask: str) -> dict[int, str]:
    """Name by value out of the organisers' pickled dictionary, {} where it is absent."""
    if not path.is_file():
        return {}
    held = open_container(path)
    if not isinstance(held, dict) or not all(isinstance(c, int) and isinstance(n, str) for c, n in held.items()):
        raise UserError(f"{str(path)!r} holds no names by whole number for the regions of {mask}")
    return dict(held)
