"""The inner run: the same training without some training pictures, which stand in its place of test pictures.

It is an ordinary run of the ordinary pipeline, with ``study.held_out`` in its configuration: predictions, library,
coarse pictures and everything else that is fitted on a run is fitted on the remaining training pictures. It lies in the
cache, and is made again only when run, number or seed change.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from align.errors import UserError
from align.known_names import CLOSED_FORM, OWN

if TYPE_CHECKING:
    from align.checkpoint import Run

log = logging.getLogger(__name__)


def inner_run(run: Run, count: int, seed: int) -> Run:
    """``run`` trained again without at most ``count`` training pictures drawn by ``seed``; its test are these.

    Raises `UserError` where these cannot be held out, or the run cannot be trained again.
    """
    from align.checkpoint import MODEL, load_run
    from align.files.made_once import made_once
    from align.train import train

    _require_trainable(run)
    folder = inner_folder(run, count, seed)

    def make() -> None:
        name = run.config.encoder.name
        how = "solved again" if name in CLOSED_FORM else "trained again, as long as the run itself was,"
        log.info("tune-pictures: encoder %s is %s without held-out training pictures, in %s", name, how, folder)
        several = run.config.protocol == "pooled"
        config = replace(
            run.config,
            study=replace(run.config.study, held_out=count, held_out_seed=seed),
            subjects=list(run.meta["subjects"]) if several else [run.subject],
            run_dir=str(folder),
            tracker="none",
        )
        train(config)

    inner = made_once(folder / MODEL, lambda: load_run(folder, run.subject), make, f"the inner run {str(folder)!r}")
    own, places = inner.config, run.config  # files may have moved since the inner run was trained
    own.study.root, own.cache_dir, own.backbone.weights = (
        places.study.root,
        places.cache_dir,
        places.backbone.weights,
    )
    return inner


def inner_folder(run: Run, count: int, seed: int) -> Path:
    """Where the inner run lies: ``<cache_dir>/tuning/<16 digits>``, of run, number and seed."""
    from recon.decoding.predict import run_id

    key = hashlib.sha256(json.dumps([run_id(run), count, seed]).encode()).hexdigest()[:16]
    return Path(run.config.cache_dir) / "tuning" / key


def _require_trainable(run: Run) -> None:
    if run.config.study.held_out:
        raise UserError(f"run {run.path} holds pictures out itself (study.held_out); pass the run that is in use")
    if run.config.encoder.name == OWN:
        raise UserError("encoder.name=own is a module of a Python session, which this command cannot train again")
    if run.number is None:
        raise UserError(
            f"run {run.path} was not trained on subject {run.subject} (protocol=loso): it has no training pictures of "
            "that subject to hold out"
        )
