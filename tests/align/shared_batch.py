"""A training whose processes note what they did; started by `test_distributed`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from accelerate.state import AcceleratorState, PartialState

from align import train
from align.training import objective, optimise
from align.training.distributed import own_part, world


def main(words: list[str]) -> int:
    """``NOTES [blind] key=value ...``: a folder for the notes; ``blind``: no process sees the embeds of the others."""
    notes, *arguments = words
    AcceleratorState._reset_state(reset_partial_state=True)  # of the process that this one is a copy of
    assert not PartialState._shared_state
    sizes: set[int] = set()

    def noted(rows: np.ndarray) -> np.ndarray:
        part = own_part(rows)
        sizes.add(len(part))
        return part

    optimise.own_part = noted
    if arguments[0] == "blind":
        arguments = arguments[1:]
        objective.all_rows = lambda x: x
    code = train.main(arguments)
    told = {"world": world()[1], "sizes": sorted(sizes), "code": code}
    (Path(notes) / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(told), encoding="utf-8")
    return code
