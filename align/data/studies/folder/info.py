"""``info.json`` of a folder of recordings: rate, channels, regions, and what its import found doubtful."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from align.errors import UserError
from align.files import read_json


@dataclass(frozen=True)
class Info:
    """What ``info.json`` may say."""

    sfreq: float | None = None
    ch_names: tuple[str, ...] = ()
    tmin: float = 0.0
    concept_disjoint: bool = False
    roi: dict[str, tuple[int | str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_info(path: Path) -> Info:
    if not path.exists():
        return Info()
    content = read_json(path)
    names = ("sfreq", "ch_names", "tmin", "concept_disjoint", "roi", "voxels", "notes")
    unknown = [name for name in content if name not in names] if isinstance(content, dict) else [json.dumps(content)]
    if unknown:
        raise UserError(f"info.json: {unknown[0]!r} is not known; it may hold {', '.join(names)}")
    ch_names = content.get("ch_names", [])
    if not isinstance(ch_names, list) or not all(isinstance(name, str) for name in ch_names):
        raise UserError("info.json: ch_names is not a list of texts")
    sfreq = None if content.get("sfreq") is None else _number(content["sfreq"], "sfreq")
    if sfreq is not None and sfreq <= 0:
        raise UserError(f"info.json: sfreq {sfreq} is not a rate in Hz above 0")
    disjoint = content.get("concept_disjoint", False)
    if not isinstance(disjoint, bool):
        raise UserError(f"info.json: concept_disjoint {disjoint!r} is not true or false")
    roi, notes = _read_rois(content.get("roi", {})), content.get("notes", [])
    if not isinstance(notes, list) or not all(isinstance(text, str) for text in notes):
        raise UserError("info.json: notes is not a list of texts")
    return Info(sfreq, tuple(ch_names), _number(content.get("tmin", 0.0), "tmin"), disjoint, roi, tuple(notes))


def _read_rois(content: object) -> dict[str, tuple[int | str, ...]]:
    """Regions by name, each a list of texts or whole numbers; whether they fit the signals is seen when one is used."""
    if not isinstance(content, dict):
        raise UserError('info.json: roi is no object of lists, such as {"V1": [0, 1, 2]}')
    for name, members in content.items():
        if not isinstance(members, list) or not all(type(entry) in (int, str) for entry in members):
            raise UserError(f"info.json: roi {name!r} is not a list of channel names or whole numbers")
    return {name: tuple(members) for name, members in content.items()}


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UserError(f"info.json: {name} {value!r} is not a number")
    return float(value)
