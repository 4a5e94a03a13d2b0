"""Signals as stored to signals as used: the steps of ``config.preprocess``, fitted on training rows only.

The result is written once to ``<cache_dir>/signals/<key>/`` (``train.npy``, ``test.npy`` float32, ``signals.json``, and
what the steps learned in ``preparation.safetensors``) and mapped from there. The key holds everything that changes it:
the steps, the trials and their sessions, and the signals themselves. Repetitions stay apart: averaging comes after all
steps and costs seconds (`Trials.averaged`), so one file serves single-trial training, averaged training and the
averaged test alike.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from align.config import PreprocessConfig
from align.data.download.part import human
from align.data.preparing.raw import PREPARATION, Preparation
from align.data.preparing.steps import Chain, fit_chain, plan_chain
from align.data.reading.safe_load import require_finite
from align.data.signals import Recording, Trials, fingerprint, save_rows
from align.errors import Damaged, UserError
from align.files import read_json, read_made_for, write_sealed
from align.files.checksums import MADE_FOR, map_npy, of_folder, require_made_for, require_npy
from align.files.made_once import made_once

log = logging.getLogger(__name__)
_RECIPE = 1  # raise it when the numbers of a step change


def prepare(
    recording: Recording, config: PreprocessConfig, cache_dir: str | Path, picks: np.ndarray | None = None
) -> Recording:
    """The recording after the steps that ``config`` asks for; itself where it asks for none.

    ``picks``: indices of the channels or voxels that are read at all, in place of ``config.channels``. Signals are
    read, worked on and written a few MiB at a time, whatever their size and float type.

    Raises
    ------
    UserError
        A key that the signals cannot follow (unknown channel, window outside, no time axis, no rate), values that are
        not finite, no room on the disk.
    """
    if config == PreprocessConfig() and picks is None:
        return recording
    folder = _folder(recording, config, cache_dir, picks)
    files = {"train": folder / "train.npy", "test": folder / "test.npy"}
    facts_file = folder / "signals.json"

    def read() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        facts = read_json(facts_file)
        require_made_for(facts_file, facts, folder.name)
        return {split: map_npy(path, of_folder(path)) for split, path in files.items()}, facts

    def make() -> None:
        chain = plan_chain(recording, config, picks)
        _require_room(folder, chain, recording)
        fit_chain(chain, config)
        Preparation.of_chain(recording, config, picks, chain).save(folder / PREPARATION, key=folder.name)
        for split, path in files.items():
            if not _is_whole(path):
                _write(path, chain, getattr(recording, split), f"signals of {chain.what}, {split} rows")
        facts = {"ch_names": list(chain.ch_names), "sfreq": chain.sfreq, "tmin": chain.tmin, "log": chain.log}
        write_sealed(facts_file, {**facts, "preprocess": asdict(config), MADE_FOR: folder.name})

    if not facts_file.is_file():
        _make_folder(folder)
    x, facts = made_once(facts_file, read, make, f"signals of {recording.study} subject {recording.subject}")
    return replace(
        recording,
        train=replace(recording.train, x=x["train"]),
        test=replace(recording.test, x=x["test"]),
        ch_names=tuple(facts["ch_names"]),
        sfreq=facts["sfreq"],
        tmin=facts["tmin"],
        log=(*recording.log, *facts["log"]),
        preparation=preparation_of(recording, config, cache_dir, picks),
    )


def preparation_of(
    recording: Recording, config: PreprocessConfig, cache_dir: str | Path, picks: np.ndarray | None = None
) -> Preparation:
    """What `prepare` does to trials, as it was fitted there; fitted here where the cache does not hold it."""
    stored = _folder(recording, config, cache_dir, picks) / PREPARATION
    if (config != PreprocessConfig() or picks is not None) and stored.is_file():
        try:
            read_made_for(stored, stored.parent.name)
            return Preparation.load(stored)
        except Damaged as error:
            log.warning("%s; it is made again", error)
    return Preparation.fit(recording, config, picks)


def _folder(recording: Recording, config: PreprocessConfig, cache_dir: str | Path, picks: np.ndarray | None) -> Path:
    return Path(cache_dir) / "signals" / cache_key(recording, config, picks)


def cache_key(recording: Recording, config: PreprocessConfig, picks: np.ndarray | None = None) -> str:
    """Changes with the steps, the picks, the recording's facts, its trials, and its signals (see `fingerprint`)."""
    digest = hashlib.sha256()
    facts = [_RECIPE, asdict(config), recording.study, recording.subject, list(recording.ch_names)]
    digest.update(json.dumps([*facts, recording.sfreq, recording.tmin]).encode())
    if picks is not None:
        digest.update(json.dumps({"picks": picks.tolist()}).encode())
    for trials in (recording.train, recording.test):
        digest.update(np.ascontiguousarray(trials.stimulus).tobytes())
        digest.update(json.dumps(None if trials.session is None else np.asarray(trials.session).tolist()).encode())
        digest.update(fingerprint(trials.x).encode())
    return digest.hexdigest()[:16]


def _is_whole(path: Path) -> bool:
    try:
        require_npy(path, of_folder(path))
    except Damaged:
        return False
    return True


def _write(path: Path, chain: Chain, trials: Trials, what: str) -> None:
    def pieces() -> Iterator[np.ndarray]:
        for rows, x in chain.pieces(trials):
            with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite and is named here
                out = x.astype("<f4", order="C")
            require_finite(out, f"{what} {rows[0]} to {rows[-1]} after preprocess")
            yield out

    try:
        save_rows(path, (len(trials), *chain.shape), pieces(), of_folder(path))
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {str(path)!r}: {reason}; make room or set cache_dir=FOLDER") from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cache_dir: cannot make {str(folder)!r}: {error.strerror or error}; choose another") from error


def _require_room(folder: Path, chain: Chain, recording: Recording) -> None:
    """Raise `UserError` before hours of work where the disk cannot hold the result."""
    needed = 4 * math.prod(chain.shape) * (len(recording.train) + len(recording.test))
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"preprocessed signals of {chain.what} need {human(needed)} in {str(folder)!r}, {human(free)} are free; "
            "set cache_dir=FOLDER on a larger disk, or keep fewer channels or samples"
        )
