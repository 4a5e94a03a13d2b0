"""What a trained encoder predicts for one split, on disk: the only file that picture making needs from a recording."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.data.names import labelled
from align.data.signals import fingerprint
from align.errors import Damaged, UserError
from align.files import read_tensors, save_tensors
from align.files.json_text import parse_json

if TYPE_CHECKING:
    import torch

    from align.checkpoint import Run
    from align.data.signals import Recording, Trials

SPLITS = ("test", "train")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predictions:
    """Rows are stimuli, in the order of ``ids``.

    ``embeds`` (n, E); ``tokens`` (n, N, D) in the units of the backbone; ``zero_tokens`` (N, D) = what the token head
    gives for all-zero standardised signals, i.e. what it says without a brain. Both are None for a run whose token
    head was not trained (``loss.regression`` 0).
    """

    ids: tuple[str, ...]
    embeds: np.ndarray
    tokens: np.ndarray | None
    zero_tokens: np.ndarray | None
    split: str
    run_id: str
    path: Path
    signals: str | None = None  # `_signals_of` what was recorded; None in files from before it was kept
    mark: str = ""  # `align.data.mark.signals_mark` of the same; "" likewise


def predict(run: Run, split: str = "test") -> Path:
    """Predict embeds and tokens of every stimulus of ``split`` (repetitions averaged) and store them.

    Writes ``<run>/predictions/sub-<subject>_<split>.safetensors``. Raises `UserError` when the split is unknown, when
    the recording cannot be read, or when its pictures are no longer those the run was trained with.
    """
    import torch

    from align.data.mark import signals_mark

    if split not in SPLITS:
        raise UserError(f"split {split!r} is not known; pass one of {', '.join(SPLITS)}")
    recording = open_recording(run)
    trials = split_trials(recording, split)
    estimate = run.aligner.predict(trials.x)
    ids = [recording.stimuli.ids[i] for i in trials.stimulus]
    tensors = dict(estimate)
    if "tokens" in estimate:
        tensors["zero_tokens"] = run.aligner.predict(signals_at_rest(run))["tokens"][0]
    path, mark = predictions_path(run, split), signals_mark(recording.test if split == "test" else recording.train)
    if _of_others(path, run, mark):
        log.warning(
            "%s subject %s: the %s recordings are others than those predicted or scored before with run %s; earlier "
            "scores and pictures are of other signals",
            *(run.study, run.subject, split, run.path),
        )
    save_tensors(
        path,
        {name: torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32)) for name, value in tensors.items()},
        {
            "ids": json.dumps(ids),
            "split": split,
            "run": run_id(run),
            "signals": _signals_of(recording, split),
            "mark": mark,
            "study": run.study,
            "subject": run.subject,
            "backbone": run.config.backbone.name,
            "layer": run.config.target.layer,
            "pooling": run.config.target.pooling,
        },
    )
    return path


def _of_others(path: Path, run: Run, mark: str) -> bool:
    """Whether a file holds what this very run predicted of other signals than those with this mark."""
    try:
        before = read_predictions(path) if path.is_file() else None
    except UserError:
        return False
    return before is not None and before.run_id == run_id(run) and before.mark not in ("", mark)


def open_recording(run: Run) -> Recording:
    """The recording the run was trained on.

    Raises `UserError` when its channels, voxels or times differ from those of the run (other files, or ``info.json``
    was changed), its test pictures from the run's manifest, or its training signals from those of the training.
    """
    from align.data.studies import open_study

    return _unchanged(run, open_study(run.config).recording(run.subject))


def _unchanged(run: Run, recording: Recording) -> Recording:
    from align.checkpoint import preparation_path
    from align.data.mark import signals_mark
    from align.data.preparing.raw import Preparation
    from align.data.splits import manifest, read_split

    prepared = preparation_path(run.path, run.subject)
    changed = Preparation.load(prepared).differs(recording) if prepared.is_file() else ""
    if changed:
        raise UserError(
            f"{run.study} subject {run.subject} has {changed} than when run {str(run.path)!r} was trained; put the "
            "files of the study (info.json) back, or train again"
        )
    stored = run.path / "split.json"
    if not stored.is_file():
        return recording
    split = read_split(stored)
    before, now = split.get("test_of", {}).get(run.subject, split["test"]), manifest(recording)["test"]
    again = "pass study.root=FOLDER of the files the run was trained with, or train again"
    if before != now:
        told = _other_test(before, now)
        raise UserError(f"the test pictures of {run.study} subject {run.subject} {told} {stored}; {again}")
    if split.get("signals", {}).get(run.subject) not in (None, signals_mark(recording.train)):
        raise UserError(
            f"the signals of {run.study} subject {run.subject}{_in(run)} are other recordings than run "
            f"{str(run.path)!r} was trained for (another person, or changed files); {again} into another run_dir"
        )
    return recording


def _in(run: Run) -> str:
    return f" in {run.config.study.root!r}" if run.config.study.root else ""


def _other_test(before: dict[str, Any], now: dict[str, Any]) -> str:
    """How the test of a recording differs from that of a manifest, to be followed by where that is."""
    one, two = (list(zip(side["ids"], side["hashes"], strict=True)) for side in (before, now))
    if one == two:
        return "have other concepts, groups or numbers of trials than in"
    return "are the same, but in another order than in" if sorted(one) == sorted(two) else "differ from those in"


def picture_tokens(run: Run, recording: Recording) -> np.ndarray:
    """Tokens (n, N, D) that the run's backbone gives for every stimulus of the recording, from the targets cache.

    Raises `UserError` when backbone weights or pictures are not those the run was trained with.
    """
    from align.vision.backbones import load_backbone
    from align.vision.fused import candidate_targets, candidates_alike

    target = run.config.target
    backbone = load_backbone(run.config.backbone)
    layer, cache = target.layer, run.config.cache_dir
    found = candidate_targets(backbone, recording.stimuli, [layer], target, cache)[layer]
    if candidates_alike(target) and run.meta.get("targets", {}).get(run.subject, found.key) != found.key:
        raise UserError(
            f"the tokens of {backbone.name} layer {target.layer} differ from those run {run.path} was trained with; "
            "give backbone.weights=FILE of the same weights, or train again"
        )
    return found.tokens


def split_trials(recording: Recording, split: str) -> Trials:
    """Trials of one split, one averaged row per stimulus."""
    return (recording.test if split == "test" else recording.train).averaged()


def signals_at_rest(run: Run) -> np.ndarray:
    """One row (1, ...) of raw signals that standardises to zero: the training mean of every channel and sample."""
    mean: np.ndarray = run.aligner.signals.mean.cpu().numpy()
    return mean[None]


def load_predictions(run: Run, split: str = "test", refresh: bool = False) -> Predictions:
    """Stored predictions of this very run, predicted first when absent or damaged.

    Likewise when they are of another training of the run, or of other signals than the study holds now. Where the study
    cannot be read, the stored ones are taken.
    """
    path = predictions_path(run, split)
    if path.is_file() and not refresh:
        try:
            stored = read_predictions(path)
            if stored.run_id == run_id(run) and same_signals(run, stored):
                return stored
        except Damaged as error:
            log.warning("%s; it is predicted again", error)
    predict(run, split)
    return read_predictions(path)


def same_signals(run: Run, stored: Predictions) -> bool:
    """Whether predictions are of the signals that the study holds now; True where the study cannot be read.

    Raises `UserError` as `open_recording` does for a recording that has changed since the training.
    """
    from align.data.studies import open_study

    try:
        recording = open_study(run.config).recording(run.subject)
    except UserError as error:
        log.info("stored predictions of %s are taken as they are: %s", run.subject, error)
        return True
    return stored.signals == _signals_of(_unchanged(run, recording), stored.split)


def _signals_of(recording: Recording, split: str) -> str:
    """SHA-256 that stands for the trials of a split, and the pictures that they are of."""
    trials = recording.test if split == "test" else recording.train
    digest = hashlib.sha256(fingerprint(trials.x).encode())
    digest.update(np.ascontiguousarray(trials.stimulus).tobytes())
    return digest.hexdigest()


def read_predictions(path: Path) -> Predictions:
    """Read what `predict` wrote; raises `UserError` for another kind of file."""
    tensors, metadata = read_tensors(path)
    missing = {"embeds"} - set(tensors) | {"ids", "split", "run"} - set(metadata)
    if missing:
        raise UserError(f"{str(path)!r} holds no predictions ({sorted(missing)[0]!r} is missing); run recon predict")
    ids = parse_json(metadata["ids"], f"{str(path)!r}, its ids", [str])
    _require_rows(path, ids, tensors)
    arrays = {name: value.numpy() for name, value in tensors.items()}
    return Predictions(
        ids=tuple(ids),
        embeds=arrays["embeds"],
        tokens=arrays.get("tokens"),
        zero_tokens=arrays.get("zero_tokens"),
        split=metadata["split"],
        run_id=metadata["run"],
        path=path,
        signals=metadata.get("signals"),
        mark=metadata.get("mark", ""),
    )


def _require_rows(path: Path, ids: list[str], tensors: dict[str, torch.Tensor]) -> None:
    """Raise `UserError` unless there is one finite float32 row for each of ``ids``, none of them named twice."""
    from align.checkpoint import require_numbers

    require_numbers(tensors, path)
    if len(set(ids)) != len(ids) or not ids:
        raise UserError(f"{str(path)!r}: its ids name no stimulus or one twice; run recon predict again")
    tokens = tensors.get("tokens")
    dims = {"embeds": 2, "tokens": 3, "zero_tokens": 2}
    for name, value in tensors.items():
        rows = len(value) if value.ndim else 0
        due = f"{dims.get(name, value.ndim)} dimensions" + ("" if name == "zero_tokens" else f", {len(ids)} rows")
        if value.ndim != dims.get(name, value.ndim) or (name in ("embeds", "tokens") and rows != len(ids)):
            raise UserError(f"{str(path)!r}: {name} has shape {tuple(value.shape)} instead of {due}; predict again")
        if name in dims and str(value.dtype) != "torch.float32":
            raise UserError(f"{str(path)!r}: {name} is of type {value.dtype}, not float32; run recon predict again")
    zero = tensors.get("zero_tokens")
    if (zero is None) != (tokens is None) or (
        tokens is not None and zero is not None and zero.shape != tokens.shape[1:]
    ):
        raise UserError(f"{str(path)!r}: tokens and zero_tokens do not go together; run recon predict again")


def predictions_path(run: Run, split: str) -> Path:
    """Where the predictions of one split lie."""
    return labelled(run.path / "predictions", f"sub-{{}}_{split}.safetensors", run.subject)


def run_id(run: Run) -> str:
    """Study, subject and the first 12 digits of the weights' hash: the same training of a run, wherever it lies."""
    from align.checkpoint import weights_hash

    digest = run.meta.get("weights_hash") or weights_hash(run.path)
    return f"{run.study}_sub-{run.subject}@{digest[:12]}"
