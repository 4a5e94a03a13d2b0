"""Run by test_distributed.py under torchrun: trains, and notes what this process did.

torchrun --nproc_per_node 2 shared_batch.py NOTES [blind] key=value ...

``blind``: no process sees the embeds of the others.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from align import train
from align.training import objective, optimise
from align.training.distributed import own_part, world


def main(notes: Path, arguments: list[str]) -> int:
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
    (notes / f"rank-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(told))
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
