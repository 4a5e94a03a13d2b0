"""Run folders: weights, configuration, metrics, split and card of one trained encoder; strict loading; finding runs."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.config import Config, PreprocessConfig, dump_yaml, flatten, load_config, set_key, to_dict
from align.data.names import labelled
from align.errors import UserError
from align.files import atomic_path, read_tensors, save_tensors, write_atomic, write_sealed
from align.files.json_text import parse_json, reading
from align.files.together import CONFIG_OF, require_together

if TYPE_CHECKING:
    import torch

    from align.data.preparing.raw import Preparation
    from align.data.signals import Recording
    from align.model.aligner import Aligner

logger = logging.getLogger(__name__)
LIBRARY = "shallow-recon"  # what model cards name
MODEL, CONFIG, SPLIT, CARD, METRICS = "model.safetensors", "config.yaml", "split.json", "README.md", "metrics.jsonl"
PREPARATION = "preparation_sub-{}.safetensors"
_FORMAT = "1"
_META = {  # what `load_run` needs of the facts beside the weights
    "study": str,
    "subject": str,
    "subjects?": [str],
    "trained_on?": [str],
    "in_shape": [int],
    "signal_components": (int, None),
    "token_shape": [int],
    "components": int,
    "n_subjects?": int,
    "sfreq?": (float, None),
    "ch_names?": [str],
    "chosen_on?": str,
    "weights_hash?": str,
    "targets?": {str: str},
    "backbone?": str,
    "layer?": str,
    "pooling?": str,
    "resizing?": str,
    "n_training_rows?": int,
    "trained?": {"device": str, "seconds": float},
    "adapted?": str,
}


@dataclass(frozen=True, repr=False)
class Run:
    """A trained encoder and where it came from. ``meta``: the facts stored beside the weights."""

    config: Config
    aligner: Aligner
    subject: str
    study: str
    meta: dict[str, Any]
    path: Path

    @property
    def number(self) -> int | None:
        """The place of ``subject`` among those the encoder was trained on; None where it is none of them."""
        trained_on = self.meta.get("trained_on", [self.subject])
        return trained_on.index(self.subject) if self.subject in trained_on else None

    @cached_property
    def preparation(self) -> Preparation:
        """What was done to stored trials of the subject in training; from the run's folder, else from the study.

        Raises `UserError` where the folder does not say it and the study cannot be read.
        """
        from align.data.preparing.raw import Preparation
        from align.data.studies import open_study

        stored = preparation_path(self.path, self.subject)
        if stored.is_file():
            return Preparation.load(stored)
        if not self.config.changes_signals:
            return Preparation.none(self.study, self.subject, self.aligner.in_shape)
        try:
            return open_study(self.config).preparation(self.subject)
        except UserError as error:
            raise UserError(
                f"run {str(self.path)!r} has no {stored.name}, which says how signals are prepared, and its study "
                f"cannot be read ({error}); give study.root=FOLDER, or train again"
            ) from error

    def predict(self, signals: Any, session: Any = None) -> dict[str, np.ndarray]:
        """``embeds`` (n, E) and, where the run has a token head, ``tokens`` (n, N, D) of trials (n, C, T) or (n, V).

        ``signals``: raw, as the study stores them: they are prepared here as the training trials were. Repetitions are
        not averaged. ``session`` (n,): of each trial, where training whitened by session (``preprocess.mvnn``).
        Raises `UserError` for trials of another shape than the stored ones, text, NaN and infinity.
        """
        from align.data.importing.arrays import as_signals

        return self.aligner.predict(self.preparation(as_signals(signals), session))

    def __repr__(self) -> str:
        config = self.config
        return (
            f"<Run {self.study} subject {self.subject}: {config.encoder.name} to layer {config.target.layer} of "
            f"{config.backbone.name}, seed {config.seed}>"
        )

    def _repr_html_(self) -> str:
        from align.notebook import facts_table

        config, meta = self.config, self.meta
        facts = {
            "study": self.study,
            "subject": self.subject,
            "trained on": ", ".join(meta.get("trained_on", [self.subject])),
            "target": f"{config.backbone.name}, layer {config.target.layer} ({config.target.chosen_on})",
            "encoder": config.encoder.name,
            "trials": " x ".join(map(str, self.aligner.in_shape)),
            "training rows": meta.get("n_training_rows"),
            "seed": config.seed,
            "weights": str(meta.get("weights_hash", ""))[:12] or None,
            "folder": self.path,
        }
        return facts_table("Run", facts)


def preparation_path(folder: Path, subject: str) -> Path:
    """Where a run keeps what was done to the stored trials of a subject."""
    return labelled(folder, PREPARATION, subject)


def save_run(
    run_dir: str | Path,
    aligner: Aligner,
    config: Config,
    recording_manifest: dict[str, Any],
    extra: dict[str, Any],
    recordings: Iterable[Recording] = (),
) -> Path:
    """Write the run of ``recording_manifest``'s study and subject; the weights come last and complete the folder.

    They are on the disk before any other file is replaced, and every file names their hash: of a run that is being
    replaced, a stop leaves the old one, the new one, or one that `load_run` refuses.
    ``extra``: further facts for the metadata and the card (values ready for JSON). ``recordings``: of the subjects that
    it is for, so that the folder says how their signals were prepared, and which they were. Returns the path of the
    weights.
    """
    from align.data.mark import signals_mark
    from align.data.preparing.raw import Preparation

    run_dir = Path(run_dir)
    study, subject, state = recording_manifest["study"], recording_manifest["subject"], aligner.state()
    digest = extra.get("weights_hash") or tensors_hash(state)
    meta = {
        "format": _FORMAT,
        "study": study,
        "subject": subject,
        "subjects": recording_manifest.get("subjects", [subject]),
        "trained_on": recording_manifest.get("trained_on", [subject]),
        "backbone": config.backbone.name,
        "layer": config.target.layer,
        "pooling": config.target.pooling,
        "chosen_on": config.target.chosen_on,
        **aligner.shapes(),
        **extra,
        "weights_hash": digest,
    }
    texts = {name: value for name, value in meta.items() if isinstance(value, str)}
    texts["subjects"] = json.dumps(meta["subjects"])
    stored = {**texts, "meta": json.dumps(meta), "config": json.dumps(to_dict(config))}
    done = {one.subject: one.preparation or Preparation.fit(one, PreprocessConfig()) for one in recordings}
    marks = {one.subject: signals_mark(one.train) for one in recordings}
    marks |= recording_manifest.get("signals", {})  # also of those that it was trained on
    known = {"signals": marks} if marks else {}
    with atomic_path(run_dir / MODEL) as temporary:
        save_tensors(temporary, state, stored)
        write_sealed(run_dir / SPLIT, {**recording_manifest, **known, "weights": digest})
        write_atomic(run_dir / CONFIG, f"{CONFIG_OF}{digest}\n{dump_yaml(config)}")
        write_atomic(run_dir / CARD, _card(config, meta, recording_manifest))
        for name, preparation in done.items():
            preparation.save(preparation_path(run_dir, name), weights=digest)
    return run_dir / MODEL


def load_run(path: str | Path, subject: str | None = None) -> Run:
    """Load a run folder; the weights file alone is enough, its metadata holds the configuration.

    ``subject``: whose recording is meant, where the encoder is for several subjects (protocol=pooled).

    Raises
    ------
    UserError
        No run there, a truncated, damaged or foreign file, names or shapes that do not fit (strict; wrapped models
        refused), another subject's run, weights that are not those their metadata name, a configuration, split or
        preparation beside them that is of other weights.
    """
    from align.model.aligner import Aligner

    path = Path(path).expanduser()
    folder, file = (path.parent, path) if path.suffix == ".safetensors" else (path, path / MODEL)
    if not file.is_file():
        runs = sorted(str(found.parent) for found in path.glob(f"*/{MODEL}"))
        wanted = f"one of its runs: {', '.join(runs)}" if runs else "the folder of a run that recon train made"
        raise UserError(f"{str(path)!r} holds no {MODEL}; pass {wanted}")
    tensors, metadata = read_tensors(file)
    if metadata.get("format") != _FORMAT or "config" not in metadata:
        raise UserError(f"{str(file)!r} is not the model of an alignment run (format {metadata.get('format')!r})")
    config, meta = stored_config(metadata, file), stored_meta(metadata, file)
    subjects = meta.get("subjects", [meta["subject"]])
    if subject is None and len(subjects) > 1:
        raise UserError(f"{str(path)!r} is an encoder of several subjects; say whose recording: {', '.join(subjects)}")
    if subject is not None and subject not in subjects:
        raise UserError(f"run {str(path)!r} is of subject {', '.join(subjects)}, not {subject!r}; pass another --run")
    require_numbers(tensors, file)
    try:
        with reading(repr(str(file))):
            aligner = Aligner.from_state(config, tensors, meta)
    except UserError as error:
        raise UserError(f"{str(file)!r}: {str(error).removeprefix(f'{str(file)!r} ')}") from error
    require_named(tensors_hash(tensors), meta, file)
    require_together(folder / SPLIT, folder / CONFIG, preparation_path(folder, subject or subjects[0]), meta)
    return Run(config, aligner, subject or subjects[0], meta["study"], meta, folder)


def stored_config(metadata: dict[str, str], file: Path) -> Config:
    """The configuration that the metadata of weights holds; raises `UserError` for one that is none, or out of range.

    Files and folders it names are not looked for: those of whoever trained may be elsewhere here.
    """
    config, source = load_config(Config), f"{str(file)!r}, its config"
    try:
        config.backbone.crop = "none"  # of weights that were stored before there was a choice
        for key, value in flatten(parse_json(metadata["config"], source, {})):
            set_key(config, key, value)
        config.check()
    except UserError as error:
        raise UserError(f"{source}: {str(error).removeprefix(source)}".replace(": :", ":")) from error
    return config


def stored_meta(metadata: dict[str, str], file: Path) -> dict[str, Any]:
    """The facts beside the weights; raises `UserError` naming the file and the first one that is missing or wrong."""
    source = f"{str(file)!r}, its meta"
    if "meta" not in metadata:
        raise UserError(f"{source} is missing; the file is damaged or of another program")
    meta: dict[str, Any] = parse_json(metadata["meta"], source, _META)
    if not meta.get("subjects", [meta["subject"]]) or len(meta["token_shape"]) != 2:
        raise UserError(f"{source}: subjects is empty, or token_shape is not two numbers; the file is damaged")
    return meta


def require_numbers(tensors: dict[str, torch.Tensor], source: str | Path) -> None:
    """Raise `UserError` for the first tensor that holds NaN or infinity, or no real numbers at all."""
    import torch

    for name, value in tensors.items():
        if value.dtype.is_complex:
            raise UserError(f"{str(source)!r}: tensor {name!r} is of type {value.dtype}; real numbers are needed")
        numbers = value if not value.dtype.is_floating_point or value.element_size() > 1 else value.float()
        if value.dtype.is_floating_point and not bool(torch.isfinite(numbers).all()):
            raise UserError(f"{str(source)!r}: tensor {name!r} holds values that are not finite (NaN or infinity)")


def home() -> Path:
    """The folder that holds ``runs``: RECON_HOME where set, else the working folder."""
    return Path(os.environ.get("RECON_HOME") or ".")


def find_run(subject: str, home: str | Path = ".") -> Path:
    """The newest run of ``subject`` under ``<home>/runs``; runs with held-out pictures (``study.held_out``) aside.

    Raises `UserError` when there is none (naming the command that makes one), or when runs of two studies hold the
    subject (listing them).
    """
    found = []
    for file in (Path(home) / "runs").rglob(MODEL):
        facts = _facts(file)
        try:
            listed = parse_json(facts.get("subjects", "[]"), repr(str(file)), [str])
            stored = parse_json(facts.get("config", "{}"), repr(str(file)), {"study?": {"held_out?": int}})
        except UserError as error:
            logger.warning("passed over: %s", error)
            continue
        subjects = listed or [facts.get("subject")]
        held_out = stored.get("study", {}).get("held_out", 0)
        if subject in subjects and "study" in facts and not held_out:
            found.append((file.stat().st_mtime_ns, file.parent, facts["study"]))
    if not found:
        raise UserError(
            f"no run of subject {subject!r} under {str(Path(home) / 'runs')!r}; make one (recon train --subject "
            f"{subject} with the --config of its study), or give --run FOLDER"
        )
    found.sort()
    if len({study for _, _, study in found}) > 1:
        listed = ", ".join(f"{folder} ({study})" for _, folder, study in found)
        raise UserError(f"runs of several studies hold subject {subject!r}; pass --run with one of: {listed}")
    return found[-1][1]


def stored_facts(folder: Path) -> tuple[Config, dict[str, Any]] | None:
    """Configuration and facts beside the weights in a folder; None where there are none, or a damaged file."""
    file = folder / MODEL
    metadata = _facts(file) if file.is_file() else {}
    if metadata.get("format") != _FORMAT or "config" not in metadata:
        return None
    return stored_config(metadata, file), stored_meta(metadata, file)


def weights_id(folder: Path, subject: str) -> str | None:
    """What reports call the training whose weights lie in a folder (`run_id`); None where it holds no weights of ours.

    The weights themselves are read and hashed, once for each state of the file in a process. Raises `UserError` where
    they are damaged, or are not those that their own metadata name.
    """
    file = folder / MODEL
    if not file.is_file():
        return None
    stat = file.stat()
    digest, metadata = _hashed(file, (stat.st_size, stat.st_mtime_ns))
    if metadata.get("format") != _FORMAT:
        return None
    meta = stored_meta(metadata, file)
    require_named(digest, meta, file)
    return (
        f"{meta['study']}_sub-{subject}@{digest[:12]}" if subject in meta.get("subjects", [meta["subject"]]) else None
    )


def require_named(digest: str, meta: dict[str, Any], file: Path) -> None:
    """Raise `UserError` where the facts beside weights name others than those with this hash."""
    if meta.get("weights_hash", digest) != digest:
        raise UserError(f"{str(file)!r} holds other weights than its metadata names; train the run again")


@lru_cache(maxsize=64)
def _hashed(file: Path, state: tuple[int, int]) -> tuple[str, dict[str, str]]:
    """Hash of the weights in a file (`tensors_hash`) and the metadata beside them; ``state``: its size and time."""
    tensors, metadata = read_tensors(file)
    return tensors_hash(tensors), metadata


def _facts(file: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="np") as opened:
            return dict(opened.metadata() or {})
    except SafetensorError:
        return {}


def tensors_hash(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and values; independent of the order of the tensors and of metadata."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_hash(path: str | Path) -> str:
    """`tensors_hash` of a safetensors file, or of the weights in a run folder."""
    path = Path(path)
    return tensors_hash(read_tensors(path / MODEL if path.is_dir() else path)[0])


def _card(config: Config, meta: dict[str, Any], manifest: dict[str, Any]) -> str:
    train, test = manifest["train"], manifest["test"]
    facts = {
        "study": meta["study"],
        "subject": ", ".join(meta["subjects"]),
        "trained on": f"subject {', '.join(meta['trained_on'])}",
        "target": f"{config.backbone.name}, layer {config.target.layer}, pooling {config.target.pooling}",
        "layer chosen on": config.target.chosen_on,
        "encoder": config.encoder.name,
        "seed": config.seed,
        "training rows": f"{train['n_trials']} trials of {len(train['ids'])} pictures",
        "test pictures": f"{len(test['ids'])}, not read in training",
        "weights": f"SHA-256 {meta['weights_hash']}" if "weights_hash" in meta else MODEL,
    }
    lines = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    header = f"---\nlibrary_name: {LIBRARY}\ntags: [brain-decoding, {meta['study']}]\n---\n"
    return (
        f"{header}\n# Brain encoder: {meta['study']}, subject {', '.join(meta['subjects'])}\n\n"
        f"Predicts embeds and backbone tokens of the picture that was seen from a recording. {_valid_for(meta)}\n\n"
        f"| | |\n|---|---|\n{lines}\n\n"
        "**Made by** `python -m align.train --config config.yaml`. **Scores** are in `report_sub-*.json` once "
        "`recon evaluate` has run; the last epoch is kept, no test row steers training.\n\n"
        "**Limits.** Valid for recordings made and prepared in the same way only. Predictions show what the decoder "
        "expects from its training pictures; they are not a recording of thought. The terms of the study's data "
        "apply.\n"
    )


def _valid_for(meta: dict[str, Any]) -> str:
    if "adapted" in meta:
        return f"Adapted to this subject ({meta['adapted']}); of the others only what people share was taken."
    if meta["subjects"] == meta["trained_on"]:
        return "For the subjects it was trained on." if len(meta["subjects"]) > 1 else "For this subject only."
    return "No recording of the subject it is tested on took part in training."
