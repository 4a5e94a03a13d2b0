"""Writing a run folder: weights, configuration, split, card, preparation of signals."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.checkpoint.card import card
from align.checkpoint.hashes import tensors_hash
from align.checkpoint.names import CARD, CONFIG, FORMAT, MODEL, SPLIT, preparation_path
from align.config import Config, PreprocessConfig, dump_yaml, to_dict
from align.files import atomic_path, save_tensors, write_atomic, write_sealed
from align.files.together import CONFIG_OF

if TYPE_CHECKING:
    from align.data.signals import Recording
    from align.model.aligner import Aligner


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
        "format": FORMAT,
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
        write_atomic(run_dir / CARD, card(config, meta, recording_manifest))
        for name, preparation in done.items():
            preparation.save(preparation_path(run_dir, name), weights=digest)
    return run_dir / MODEL
