"""An ordinary run from an adapter and its shared part: the two files are all that has to be sent to somebody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from align.adaptation.stored import read_adapter
from align.checkpoint import MODEL, save_run, tensors_hash
from align.config import set_key
from align.data.splits import manifest
from align.errors import UserError
from align.fields.loading import brief
from align.files import locked
from align.tracking import logger
from recon.config import places_in


def rebuild(adapter: Path, shared: Path, out: Path, pairs: Sequence[str] = (), overwrite: bool = False) -> Path:
    """Write the run of ``adapter``; ``pairs``: key=value, for where the study lies here (study.root, cache_dir).

    Raises `UserError` for files that do not belong together, a study that cannot be read, a run that is there already.
    """
    from align.data.studies import open_study

    _require_free(out, overwrite)
    aligner, config, facts = read_adapter(adapter, shared)
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key.startswith(("study.", "cache_dir", "backbone.weights")):
            raise UserError(
                f"{brief(pair)}: an adapter can only be given study.* places, cache_dir or backbone.weights"
            )
        set_key(config, key, value)
    if said := places_in(config, pairs):
        logger.info("%s", said)
    recording = open_study(config).recording(facts["subject"])
    told = {
        "n_training_rows": facts["trials"],
        "weights_hash": tensors_hash(aligner.state()),
        "adapted": f"{facts['method']}, rebuilt from its adapter",
    }
    aligner.config = replace(aligner.config, study=config.study, cache_dir=config.cache_dir, backbone=config.backbone)
    with locked(out / ".adapt.lock", f"rebuilding into {str(out)!r}", wait=None, keep=False):
        _require_free(out, overwrite)
        save_run(out, aligner, aligner.config, manifest(recording), told, [recording])
    return out


def _require_free(out: Path, overwrite: bool) -> None:
    if (out / MODEL).is_file() and not overwrite:
        raise UserError(f"{str(out)!r} holds a run; choose another --out DIR, or replace it with --overwrite")
