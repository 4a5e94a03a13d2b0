"""One new subject after the other, or several at a time: its learning curve, and the run of what was chosen."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from align.adaptation.contract import Method
from align.adaptation.loading import Subject, load_subject
from align.adaptation.stored import save_adapter, save_shared
from align.checkpoint import MODEL, save_run, tensors_hash
from align.config import Config
from align.data.places import Claim
from align.data.signals import Recording
from align.data.splits import joint_manifest, refuse_overlap
from align.errors import UserError
from align.files import read_json
from align.sweep.workers import divide, run_tasks, threads_each
from align.tracking import logger
from recon.adaptation.curve import Curve, learning_curve
from recon.adaptation.results import write_results
from recon.adaptation.summary import summarise

CURVE, ADAPTER, RUN = "adapt.json", "adapter.safetensors", "run"


@dataclass(frozen=True)
class Fold:
    """A new subject, and the folder of its results with the claim on it."""

    subject: str
    place: Path
    claim: Claim

    @property
    def finished(self) -> bool:
        """Whether all of it is there, and of the same configuration."""
        there = (self.place / CURVE).is_file() and (self.place / RUN / MODEL).is_file()
        return there and not self.claim.replaces

    def read(self) -> dict[str, Any]:
        """The content of adapt.json."""
        found: dict[str, Any] = read_json(self.place / CURVE)
        return found


@dataclass(frozen=True)
class _Task:
    """What one worker is given; it reads recordings and targets itself."""

    config: Config
    folds: tuple[Fold, ...]
    known: tuple[str, ...]
    methods: tuple[Method, ...]
    trials: tuple[int | None, ...]
    threads: int
    claims: tuple[Claim, ...]  # beside those of the folds


def compute_folds(
    config: Config,
    folds: Sequence[Fold],
    claims: Sequence[Claim],
    known: Sequence[str],
    methods: Sequence[Method],
    trials: Sequence[int | None],
    jobs: int,
    progress: bool,
) -> None:
    """Fit and write ``folds``, ``jobs`` at a time. Raises `UserError` when one fails; what is finished is kept.

    ``claims``: on other results that those of the folds replace. All are taken when the first of them is computed.
    """
    if not folds:
        return
    own = tuple(known), tuple(methods), tuple(trials)
    if min(jobs, len(folds)) == 1:
        _compute(_Task(config, tuple(folds), *own, 0, tuple(claims)), progress)
        return
    threads = threads_each(jobs)
    tasks = [_Task(config, share, *own, threads, tuple(claims)) for share in divide(folds, jobs)]
    said: set[int] = set()

    def seen(done: int) -> None:
        if done not in said:
            logger.info("%d of %d new subjects are finished", done, len(folds))
        said.add(done)

    run_tasks(_work, tasks, threads, "adapt", seen)


def _work(task: _Task, report: Connection) -> None:
    """A worker's life: one message per finished fold, or the sentence of an error."""
    torch.set_num_threads(task.threads)
    try:
        _compute(task, False, lambda: report.send(None))
    except (UserError, OSError) as error:
        report.send(str(error))
    except KeyboardInterrupt:
        pass  # the parent was interrupted too, and says so


def _compute(task: _Task, progress: bool, finished: Callable[[], None] = lambda: None) -> None:
    from align.data.studies import open_study
    from align.vision.backbones import load_backbone

    config, parent = task.config, multiprocessing.parent_process()
    study, backbone = open_study(config), load_backbone(config.backbone)
    names = dict.fromkeys((*task.known, *(fold.subject for fold in task.folds)))
    subjects = {name: load_subject(study, config, backbone, name, progress) for name in names}
    for fold in task.folds:
        if parent is not None and not parent.is_alive():
            return
        others = [subjects[other] for other in task.known if other != fold.subject]
        _one(task, subjects[fold.subject], others, fold)
        finished()


def _one(task: _Task, new: Subject, others: Sequence[Subject], fold: Fold) -> None:
    curve = learning_curve(task.config, new, others, task.methods, task.trials)
    for claim in (*task.claims, fold.claim):
        claim.take()
    run = _write_run(task.config, new, others, curve, fold.place)
    result = {
        "study": new.recording.study,
        "subject": curve.subject,
        "known": [person.name for person in curve.known],
        "held_out": curve.held_out,
        "removed": curve.removed,
        "shared_seconds": curve.shared_seconds,
        "rows": curve.rows,
        "zero_shot": curve.zero_shot,
        "chosen": {key: curve.chosen[key] for key in ("method", "kind", "trials")},
        "final": curve.final,
        "run": run.name,
    }
    summary = summarise([result], task.trials)
    write_results(fold.place, CURVE, result, summary, f"subject {curve.subject}")


def _write_run(config: Config, new: Subject, others: Sequence[Subject], curve: Curve, folder: Path) -> Path:
    """The chosen decoder as an ordinary run, with its adapter and shared part where it was adapted."""
    run, aligner = folder / RUN, curve.decoder.aligner
    known = [_trimmed(other, person.pictures.hashes) for other, person in zip(others, curve.known, strict=True)]
    trained = [new.recording, *(known if curve.shared is not None else [])]
    refuse_overlap(new.recording, trained_on=trained)
    final = curve.final
    method = f"{final['method']}, {final['kind']}, {final['trials']} pictures"
    told = {
        "targets": {curve.subject: new.key},
        "n_training_rows": final["trials"],
        "weights_hash": tensors_hash(aligner.state()),
        "adapted": method,
    }
    for former in (run / ADAPTER, *run.glob("shared_*.safetensors")):  # of what was chosen in another configuration
        former.unlink(missing_ok=True)
    if curve.shared is not None:
        base = _base(curve)
        digest = save_shared(run / f"shared_{base}.safetensors", curve.shared, base)
        facts = {"method": final["method"], "study": new.recording.study, "subject": curve.subject}
        facts |= {"sfreq": new.recording.sfreq, "ch_names": list(new.recording.ch_names)}
        save_adapter(
            run / ADAPTER, curve.decoder.personal, config, {**facts, "trials": final["trials"], "shared": digest}
        )
    save_run(run, aligner, aligner.config, joint_manifest(trained, [new.recording]), told, [new.recording])
    return run


def _base(curve: Curve) -> str:
    from align.adaptation.methods import METHODS

    return METHODS[curve.chosen["method"]].base


def _trimmed(subject: Subject, hashes: Sequence[str]) -> Recording:
    """The recording with the training trials of these pictures alone."""
    stimuli, train = subject.recording.stimuli, subject.recording.train
    kept = {i for i in subject.shown if stimuli.hashes[int(i)] in set(hashes)}
    return replace(subject.recording, train=train.take(np.flatnonzero(np.isin(train.stimulus, list(kept)))))
