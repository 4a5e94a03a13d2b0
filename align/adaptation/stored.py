"""Shared parts and adapters on disk: safetensors files; an adapter names its shared part by hash and refuses others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from align.adaptation.contract import Method, Shared
from align.adaptation.methods import METHODS
from align.checkpoint import require_numbers, stored_config, tensors_hash
from align.config import Config, to_dict
from align.encoders.shapes import SignalFacts
from align.errors import UserError
from align.files import read_tensors, save_tensors
from align.files.json_text import parse_json
from align.model.aligner import Aligner

_SHARED, _ADAPTER = "shared part", "adapter"
_FACTS = {"people": [str], "widths": [int], "base": str, "excluded?": {str: int}}
_PERSONAL = {
    "method": str,
    "study": str,
    "subject": str,
    "shared": str,
    "trials": int,
    "sfreq?": (float, None),
    "ch_names?": [str],
}


def save_shared(path: Path, shared: Shared, base: str) -> str:
    """Write a shared part; returns its hash, by which adapters name it."""
    facts = {**shared.facts, "people": list(shared.people), "widths": list(shared.widths), "base": base}
    texts = {"kind": _SHARED, "config": json.dumps(to_dict(shared.config)), "facts": json.dumps(facts)}
    save_tensors(path, shared.tensors, texts)
    return tensors_hash(shared.tensors)


def read_shared(path: Path) -> tuple[Shared, str, str]:
    """A shared part, the methods' ``base`` it is for, and its hash; raises `UserError` for anything else."""
    tensors, texts = _read(path, _SHARED)
    facts = parse_json(texts.get("facts", ""), f"{str(path)!r}, its facts", _FACTS)
    shared = Shared(stored_config(texts, path), tuple(facts["people"]), tuple(facts["widths"]), tensors, facts)
    return shared, facts["base"], tensors_hash(tensors)


def save_adapter(path: Path, personal: dict[str, torch.Tensor], config: Config, facts: dict[str, Any]) -> None:
    """Write a person's own tensors.

    ``facts``: method, study, subject, trials, ``shared`` (the hash), and for the decoder sfreq and ch_names.
    """
    texts = {"kind": _ADAPTER, "config": json.dumps(to_dict(config)), "facts": json.dumps(facts)}
    save_tensors(path, personal, texts)


def read_adapter(path: Path, shared_path: Path) -> tuple[Aligner, Config, dict[str, Any]]:
    """The decoder of an adapter and the shared part it belongs to, its configuration, and what is known of it.

    Raises `UserError` for damaged files, and for a shared part of another hash than the adapter names.
    """
    personal, texts = _read(path, _ADAPTER)
    facts = parse_json(texts.get("facts", ""), f"{str(path)!r}, its facts", _PERSONAL)
    shared, base, digest = read_shared(shared_path)
    if facts["shared"] != digest:
        raise UserError(
            f"{str(path)!r} belongs to the shared part {facts['shared'][:12]}, and {str(shared_path)!r} is "
            f"{digest[:12]}; give the shared part it was adapted from"
        )
    method = _method(facts["method"], base, path)
    config = stored_config(texts, path)
    try:
        aligner = method.rebuild(config, shared, personal)
    except (KeyError, RuntimeError, ValueError) as error:
        raise UserError(f"{str(path)!r} does not fit its shared part: {' '.join(str(error).split())}") from error
    aligner.facts = SignalFacts(facts.get("sfreq"), tuple(facts.get("ch_names", ())))
    return aligner, config, facts


def _method(name: str, base: str, path: Path) -> Method:
    if name not in METHODS or METHODS[name].base != base:
        raise UserError(f"{str(path)!r} is of method {name!r}, which does not belong to a shared part of {base!r}")
    return METHODS[name]


def _read(path: Path, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    tensors, texts = read_tensors(path)
    if texts.get("kind") != kind or "config" not in texts:
        raise UserError(
            f"{str(path)!r} is no {kind}; recon adapt writes them (shared_*.safetensors, adapter.safetensors)"
        )
    require_numbers(tensors, path)
    return tensors, texts
