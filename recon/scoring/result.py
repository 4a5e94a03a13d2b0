"""One report of a run, or one file of `recon score --out`, as a table reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Result:
    """One file: scores by name, and per score the value of each stimulus where stored."""

    path: Path
    method: str
    subject: str
    seed: str
    # name -> value, better, n; retrieval: chance; controls: name -> value, ci95; p: control ("" = permutation) -> p
    metrics: dict[str, dict[str, Any]]
    stimuli: dict[str, dict[str, float]]  # name -> {stimulus id: value}
    n: int
    candidates: float | None
    generator: str = ""
    judge: tuple[str, str] = ("", "")  # the first one's name and weights; empty where none scored
    drawn: dict[str, Any] | None = None  # how its pictures were drawn, see `recon.scoring.drawn`; None without any
    apart: str = ""  # a note where others of its method were drawn in another way
    recipe: dict[str, Any] | None = None  # settings that are not the defaults; None = not stored
