"""Training pictures that stand in for the test pictures, so that a choice can be made without these.

The test rows of the recording are left out. Whatever reads the result, training included, goes on as with any other
recording: what is fitted on its training rows has not seen the held-out pictures, nor pictures of their groups.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from align.data.signals import Recording, Trials, fingerprint, fits, mapped_file, save_rows
from align.errors import UserError
from align.files.checksums import map_npy
from align.files.made_once import made_once
from align.seeding import derive

LEAST = 2  # pictures: with fewer none can be told from another


def hold_out(recording: Recording, count: int, seed: int, cache_dir: str | Path) -> Recording:
    """The recording with at most ``count`` training pictures and their trials as its test, and the rest as training.

    Held out are whole groups (`Stimuli.groups`: scenes, or concepts where the study has concepts). Rows too large to
    be held in memory are written to ``<cache_dir>/signals/`` and mapped. Raises `UserError` where it cannot be done.
    """
    train = recording.train
    shown = np.unique(train.stimulus)
    groups = np.asarray(recording.stimuli.groups)[shown]
    what = f"{recording.study} subject {recording.subject}"
    out = np.isin(train.stimulus, shown[chosen_pictures(groups, count, seed, what)])
    kept, held_out = (_take(train, np.flatnonzero(rows), Path(cache_dir)) for rows in (~out, out))
    n = len(np.unique(held_out.stimulus))
    sentence = f"{n} of {len(shown)} training pictures held out (study.held_out={count}); test rows left out"
    return replace(recording, train=kept, test=held_out, log=(*recording.log, sentence))


def chosen_pictures(groups: np.ndarray, count: int, seed: int, what: str) -> np.ndarray:
    """Bool (n,): pictures of groups (n,) drawn by ``seed``; a group that would exceed ``count`` pictures is passed."""
    if count > len(groups) // 2:
        raise UserError(
            f"{what} has {len(groups)} training pictures; hold out {len(groups) // 2} of them or fewer, not {count}"
        )
    names, sizes = np.unique(groups, return_counts=True)
    taken, filled = [], 0
    for group in np.random.default_rng(derive(seed, "held out")).permutation(len(names)):
        if filled + sizes[group] <= count:
            taken.append(names[group])
            filled += sizes[group]
    if filled < LEAST:
        raise UserError(
            f"{what}: {count} pictures cannot be held out as whole groups (scenes or concepts); the smallest of "
            f"{len(names)} groups has {sizes.min()} pictures, and {LEAST} pictures or more are needed"
        )
    return np.isin(groups, taken)


def _take(trials: Trials, rows: np.ndarray, cache_dir: Path) -> Trials:
    shape = (len(rows), *trials.x.shape[1:])
    if mapped_file(trials.x) is None or fits(4 * int(np.prod(shape))):
        return trials.take(rows)
    key = hashlib.sha256(fingerprint(trials.x).encode() + rows.tobytes()).hexdigest()[:16]
    path = cache_dir / "signals" / f"held-out-{key}.npy"
    x = made_once(
        path, lambda: map_npy(path), lambda: save_rows(path, shape, (trials.x[row] for row in rows)), "held-out signals"
    )
    session = None if trials.session is None else trials.session[rows]
    return Trials(x, trials.stimulus[rows], trials.repetition[rows], session)
