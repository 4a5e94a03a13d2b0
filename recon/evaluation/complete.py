"""Whether the pictures of a run are all there: a score of some of them is none of the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from align.errors import UserError
from recon.drawing.folders import PictureFolders, read_index
from recon.drawing.record import read_asked

if TYPE_CHECKING:
    from align.checkpoint import Run


def require_complete(folders: PictureFolders, run: Run, seed: int, n_test: int) -> None:
    """Raise `UserError` when pictures are missing.

    Of every seed, the folder of reconstructions has to hold as many as `recon generate` was asked for (``--limit``);
    where nothing says how many, all ``n_test``. The seeds have to be of the same stimuli, and a control that is there
    has to hold those of ``seed``.
    """
    from recon.decoding.predict import run_id
    from recon.evaluation.controls import GENERATOR_CONTROLS, LIBRARY_CONTROLS

    own = run_id(run)
    of_seed = _stimuli(folders.reconstructions)
    asked = read_asked(folders.reconstructions, own)
    for one in sorted({seed, *of_seed, *asked}):
        found, wanted = len(of_seed.get(one, ())), asked.get(one, n_test)
        if found < wanted:
            raise _missing(folders.reconstructions, one, found, wanted)
    for one, ids in sorted(of_seed.items()):
        if ids != of_seed[seed]:
            raise UserError(
                f"{str(folders.reconstructions)!r} holds {len(of_seed[seed])} stimuli of seed {seed} and {len(ids)} of "
                f"seed {one}, not the same; run recon generate with one --limit, or score seed {seed} with --partial"
            )
    for name in (*GENERATOR_CONTROLS, *LIBRARY_CONTROLS):
        found_ids = _stimuli(folders.control(name)).get(seed)
        if found_ids is not None and not of_seed[seed] <= found_ids:
            raise _missing(folders.control(name), seed, len(of_seed[seed] & found_ids), len(of_seed[seed]))


def _stimuli(folder: Path) -> dict[int, set[str]]:
    """By seed the stimuli that index.csv names."""
    found: dict[int, set[str]] = {}
    for row in read_index(folder):
        found.setdefault(int(row["seed"]), set()).add(row["stimulus_id"])
    return found


def _missing(folder: Path, seed: int, found: int, wanted: int) -> UserError:
    return UserError(
        f"{str(folder)!r} holds {found} of {wanted} pictures of seed {seed}; run recon generate again, or score "
        "what is there with --partial"
    )
