"""The control without a generator: the library picture that the response makes likeliest, shown as it is.

A reconstruction that does not beat it adds nothing to the library. It is the same picture for every seed, that of seed
0 of tokens from the library. ``library.json`` beside its index.csv says what the library was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from align.files import write_sealed
from recon.drawing.folders import DIGEST, DRAWING, merge_index, safe_names, write_png

if TYPE_CHECKING:
    from recon.decoding.plan import Plan


def show_likeliest(plan: Plan, folder: Path, seeds: Sequence[int]) -> None:
    """Write the picture of every test stimulus for each of ``seeds``, at the size of the generator, with index.csv.

    ``tokens_of`` is the id of the library picture, ``settings`` changes with its pixels. Rows of other seeds of the
    same run stay.
    """
    import torch

    from recon.decoding.predict import run_id
    from recon.images import squeezed

    decoder, own, size = plan.decoder, run_id(plan.run), plan.generator.size
    library = decoder.library
    rows = []
    for stimulus_id, name, row in zip(decoder.ids, safe_names(decoder.ids), decoder.likeliest(), strict=True):
        pixels = torch.from_numpy(np.array(library.load(row))).permute(2, 0, 1).float() / 255
        image = squeezed(pixels, size).numpy()
        settings = hashlib.sha256(image.tobytes()).hexdigest()[:16]
        shown = {"stimulus_id": stimulus_id, "tokens_of": library.id(row), "run": own, "settings": settings}
        for seed in seeds:
            file = f"{name}_seed-{seed}.png"
            digest = write_png(folder / file, image)
            rows.append({**shown, "file": file, "seed": str(seed), DIGEST: digest, DRAWING: plan.drawing})
    merge_index(folder, rows, seeds, own)
    facts = {"pictures": len(library), "added": None if library.added is None else asdict(library.added)}
    write_sealed(folder / "library.json", {"run": own, **facts})
