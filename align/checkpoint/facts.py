"""What is stored beside the weights of a run: its configuration and its facts, read strictly."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from align.checkpoint.hashes import require_named, tensors_hash
from align.checkpoint.names import FORMAT, MODEL
from align.config import Config, flatten, load_config, set_key
from align.errors import UserError
from align.files import read_tensors
from align.files.json_text import parse_json

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


def stored_facts(folder: Path) -> tuple[Config, dict[str, Any]] | None:
    """Configuration and facts beside the weights in a folder; None where there are none, or a damaged file."""
    file = folder / MODEL
    metadata = facts_of(file) if file.is_file() else {}
    if metadata.get("format") != FORMAT or "config" not in metadata:
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
    if metadata.get("format") != FORMAT:
        return None
    meta = stored_meta(metadata, file)
    require_named(digest, meta, file)
    return (
        f"{meta['study']}_sub-{subject}@{digest[:12]}" if subject in meta.get("subjects", [meta["subject"]]) else None
    )


@lru_cache(maxsize=64)
def _hashed(file: Path, state: tuple[int, int]) -> tuple[str, dict[str, str]]:
    """Hash of the weights in a file (`tensors_hash`) and the metadata beside them; ``state``: its size and time."""
    tensors, metadata = read_tensors(file)
    return tensors_hash(tensors), metadata


def facts_of(file: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="np") as opened:
            return dict(opened.metadata() or {})
    except SafetensorError:
        return {}
