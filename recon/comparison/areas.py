"""The brains of `recon rsa`: dissimilarities of pictures in an area, one vector per subject."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from align.comparison.rdm import dissimilarities, pairs_of
from align.config import Config
from align.data.reading.safe_load import load_array, require_finite
from align.data.signals import Stimuli
from align.errors import UserError
from align.seeding import derive
from recon.analysis.windows import Window, sliding_windows
from recon.comparison.brains import Brain, read_brain, require_same_windows, window_signals
from recon.comparison.pictures import LEAST, subset

_ALIKE = 1e-6  # of the largest distance, by which the two triangles of a matrix may differ


@dataclass(frozen=True)
class Area:
    """``rdms`` (S, pairs) of ``subjects`` for the pictures ``stimuli``, which stand among those of ``source``.

    ``timed`` (S, W, pairs): the same in each of the ``windows``, where these are asked for.
    """

    name: str
    subjects: tuple[str, ...]
    stimuli: Stimuli
    source: Stimuli
    rdms: np.ndarray
    windows: tuple[Window, ...] = ()
    timed: np.ndarray | None = None
    recorded: bool = True


def measured_areas(entries: Sequence[str], stimuli: Stimuli, most: int, seed: int) -> list[Area]:
    """Areas from files: ``NAME=FILE[:KEY]`` of (K, K) or (S, K, K), K pictures in the order of ``stimuli``.

    Raises `UserError` for another number of pictures, values that are not finite, a matrix that is not symmetric.
    """
    rows = _drawn(len(stimuli), most, seed)
    part, found = subset(stimuli, rows), []
    for entry in entries:
        match = re.fullmatch(r"([^=]+)=(.+?\.\w+)(?::([^:/\\]+))?", entry)
        if match is None:
            raise UserError(f"--rdm {entry!r} should be NAME=FILE or NAME=FILE:KEY, such as IT=it.npy")
        name, file, key = match.groups()
        square = np.asarray(load_array(Path(file).expanduser(), key), dtype=np.float64)
        square = square[None] if square.ndim == 2 else square
        if square.ndim != 3 or square.shape[1:] != (len(stimuli),) * 2:
            raise UserError(
                f"{file!r} has the shape {square.shape}; ({len(stimuli)}, {len(stimuli)}) or (subjects, ...) is "
                "needed, a row for each picture of --images in the order of names"
            )
        require_finite(square, f"--rdm {name}")
        if np.abs(square - square.transpose(0, 2, 1)).max() > _ALIKE * np.abs(square).max():
            raise UserError(f"{file!r} is not symmetric; a dissimilarity of two pictures has one value")
        upper = pairs_of(len(rows))
        rdms = np.stack([one[np.ix_(rows, rows)][upper] for one in square])
        people = tuple(str(i + 1) for i in range(len(rdms)))
        found.append(Area(name, people, part, stimuli, rdms, recorded=False))
    _refuse_twice([area.name for area in found])
    return found


def study_areas(
    config: Config, names: Sequence[str], distance: str, most: int, test: bool, walk: tuple[float, float] | None = None
) -> list[Area]:
    """Areas of a study: of the whole recording, or of each region in ``names``.

    Subjects who saw `LEAST` or more common pictures are compared on these; else each is an area of its own. ``walk``:
    width and step, s, of windows that are compared, too. Raises `UserError` where there is no time to cut, and for
    subjects of other times who are compared.
    """
    from align.data.studies import open_study

    areas: list[Area] = []
    for name in names or [""]:
        own = replace(config, study=replace(config.study, roi=[name])) if name else config
        study = open_study(own)
        subjects = list(dict.fromkeys(own.subjects or study.default_subjects))
        for subject in subjects:
            study.require_subject(subject)
        brains = [read_brain(study.recording(subject), test, own.cache_dir) for subject in subjects]
        cuts = [tuple(sliding_windows(brain.recording, *walk)) if walk else () for brain in brains]
        areas += _compared(name or study.info.name, brains, cuts, distance, most, config.seed)
    return areas


def _compared(
    name: str, brains: Sequence[Brain], cuts: Sequence[tuple[Window, ...]], distance: str, most: int, seed: int
) -> list[Area]:
    common = set.intersection(*(set(brain.stimuli.hashes) for brain in brains))
    if len(common) >= LEAST:
        require_same_windows(cuts)
        first = [value for value in dict.fromkeys(brains[0].stimuli.hashes) if value in common]
        hashes = [first[row] for row in _drawn(len(first), most, seed)]
        rows = [_rows(brain, hashes) for brain in brains]
        return [_area_of(name, brains, rows, cuts[0], distance)]
    found = []
    for brain, windows in zip(brains, cuts, strict=True):
        rows = [_drawn(len(brain.stimuli), most, seed)]
        found.append(_area_of(f"{name} {brain.subject}", [brain], rows, windows, distance))
    return found


def _area_of(
    name: str, brains: Sequence[Brain], rows: Sequence[np.ndarray], windows: tuple[Window, ...], distance: str
) -> Area:
    """``rows`` of every brain: the same pictures, in one order."""
    rdms = [_rdm(brain.signals[own], distance) for brain, own in zip(brains, rows, strict=True)]
    timed = [
        [_rdm(window_signals(brain, window)[own], distance) for window in windows]
        for brain, own in zip(brains, rows, strict=True)
    ]
    people = tuple(brain.subject for brain in brains)
    stimuli, source = subset(brains[0].stimuli, rows[0]), brains[0].recording.stimuli
    return Area(name, people, stimuli, source, np.stack(rdms), windows, np.array(timed) if windows else None)


def _rows(brain: Brain, hashes: Sequence[str]) -> np.ndarray:
    at = {value: row for row, value in enumerate(brain.stimuli.hashes)}
    return np.array([at[value] for value in hashes])


def _rdm(x: np.ndarray, distance: str) -> np.ndarray:
    """Channels (n, V) are brought to mean 0 and deviation 1 over the pictures first: units fire at own rates."""
    deviation = x.std(axis=0)
    return dissimilarities((x - x.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0), distance)


def _drawn(count: int, most: int, seed: int) -> np.ndarray:
    if count < LEAST:
        raise UserError(f"{count} pictures are too few to compare; {LEAST} are needed")
    rng = np.random.default_rng(derive(seed, "rsa"))
    return np.sort(rng.choice(count, min(count, most), replace=False))


def _refuse_twice(names: Sequence[str]) -> None:
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise UserError(f"--rdm names {twice[0]!r} twice; give each area a name of its own")
