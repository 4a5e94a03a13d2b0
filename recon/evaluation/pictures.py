"""The pictures that are scored: read once, hashed as they were read, and all drawn alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from align.errors import UserError
from align.files import launched
from recon.drawing.folders import (
    DRAWING,
    SIGNALS,
    PictureFolders,
    read_hashed,
    read_pictures,
    read_seed,
    write_pictures,
)
from recon.evaluation.complete import require_complete
from recon.evaluation.sources import digests, joint_digest

if TYPE_CHECKING:
    import torch

    from align.checkpoint import Run
    from recon.evaluation.recordings import RunData

Index = dict[str, dict[str, str]]  # rows of an index.csv by stimulus, of one seed


@dataclass(frozen=True)
class Scored:
    """``ids`` in the order of the predictions; ``rows``: pictures (n, 3, H, W) by name of the row, "reconstruction" or
    a control; ``pictures``: SHA-256 of their files (`recon.evaluation.sources.digests`); ``drawing``: how they were
    drawn (`recon.decoding.plan.Plan.drawing`); ``missing``: controls that are not scored, with the reason; ``mark``: of
    the signals (`recon.decoding.predict.Predictions`)."""

    ids: list[str]
    rows: dict[str, torch.Tensor]
    pictures: dict[str, str]
    drawing: str
    missing: dict[str, str]
    mark: str = ""


def read_scored(run_data: RunData, folders: PictureFolders, seed: int, partial: bool) -> Scored:
    """Read the reconstructions of ``seed`` and every control; those that need no generator are made and stored.

    ``partial``: controls that were drawn otherwise than the reconstructions are left out. Raises `UserError` for them
    without it, for pictures that are missing or changed, and for those of another training of the run or of other
    signals.
    """
    from recon.decoding.decoder import predicts_responses
    from recon.decoding.predict import run_id
    from recon.evaluation.controls import GENERATOR_CONTROLS, LIBRARY_CONTROLS
    from recon.evaluation.picture_scores import OWN

    own, known, mark = run_id(run_data.run), run_data.predictions.ids, run_data.predictions.mark
    index = read_seed(folders.reconstructions, seed)
    _refuse_stale(index, own, folders.reconstructions, mark)
    run_data.require_known(list(index), str(folders.reconstructions))
    if not partial:
        require_complete(folders, run_data.run, seed, len(known))
    ids = [stimulus_id for stimulus_id in known if stimulus_id in index]
    if len(ids) < 2:
        raise UserError(f"{str(folders.reconstructions)!r} holds {len(ids)} pictures of seed {seed}; 2 are needed")
    drawing = drawing_of(index, ids, folders.reconstructions)
    images, hashes = read_hashed(folders.reconstructions, index, ids)
    rows, pictures, missing = {OWN: images}, {OWN: joint_digest(hashes)}, {}
    library = LIBRARY_CONTROLS if predicts_responses(run_data.run) else ()
    for name in (*GENERATOR_CONTROLS, *library):
        folder = folders.control(name)
        found = read_seed(folder, seed)
        absent = [stimulus_id for stimulus_id in ids if stimulus_id not in found]
        if absent:
            missing[f"controls.{name}"] = f"{len(absent)} of {len(ids)} pictures are missing; run recon generate"
            continue
        _refuse_stale(found, own, folder, mark)
        if why := _otherwise(found, ids, drawing, folder, seed, partial):
            missing[f"controls.{name}"] = why
            continue
        rows[name], hashes = read_hashed(folder, found, ids)
        pictures[name] = joint_digest(hashes)
    made = run_data.control_pictures(ids, images.shape[-1])
    with launched.first_then_others():
        for name, controls in made.items() if launched.is_first() else ():
            write_pictures(folders.control(name), ids, controls, seed=seed, run_id=own)
    for name in made:
        rows[name], hashes = read_hashed(folders.control(name), read_seed(folders.control(name), seed), ids)
        pictures[name] = joint_digest(hashes)
    _require_one_reading(pictures)
    return Scored(ids, rows, pictures, drawing, missing, mark)


def read_others(
    run: Run, folder: Path, scored: Scored, seed: int, partial: bool
) -> tuple[Iterator[tuple[int, torch.Tensor]], dict[str, str]]:
    """Pictures (n, 3, H, W) of every other seed, read when asked for, and why seeds are left out: some stimuli are
    missing, or (``partial``; else `UserError`) they were drawn otherwise."""
    from recon.decoding.predict import run_id
    from recon.evaluation.seeds import other_seeds

    found, missing = other_seeds(folder, scored.ids, seed)
    for other, index in found.items():
        _refuse_stale(index, run_id(run), folder, scored.mark)
        if why := _otherwise(index, scored.ids, scored.drawing, folder, other, partial):
            missing[f"seeds.{other}"] = why
    alike = {other: index for other, index in found.items() if f"seeds.{other}" not in missing}
    return ((other, read_pictures(folder, index, scored.ids)) for other, index in alike.items()), missing


def require_unchanged(folders: PictureFolders, scored: Scored, seed: int) -> None:
    """Raise `UserError` where the files are no longer those that were read."""
    try:
        same = digests(folders, scored.pictures, seed, scored.ids) == scored.pictures
    except UserError:
        same = False
    if not same:
        raise UserError(
            f"pictures of seed {seed} under {str(folders.base)!r} were changed while they were scored, so nothing is "
            "stored; wait for the recon generate that is at work, then run recon evaluate again"
        )


def drawing_of(index: Mapping[str, Mapping[str, str]], ids: Sequence[str], folder: Path) -> str:
    """How the pictures of ``ids`` were drawn; raises `UserError` where they were not drawn alike."""
    found = {index[name].get(DRAWING) or "" for name in ids}
    if len(found) > 1:
        raise UserError(f"{str(folder)!r} holds pictures that were drawn with different settings; run recon generate")
    return found.pop()


def _otherwise(index: Index, ids: Sequence[str], drawing: str, folder: Path, seed: int, partial: bool) -> str:
    """Why pictures are not scored beside those of ``drawing``; "" = they were drawn alike."""
    if drawing_of(index, ids, folder) == drawing:
        return ""
    if partial:
        return "drawn with other settings than the reconstructions; run recon generate"
    raise UserError(
        f"{str(folder)!r} holds pictures of seed {seed} that were drawn with other settings than the reconstructions "
        "that are scored (a drawing was stopped, or has other settings); run recon generate again with all seeds, or "
        "leave them out with --partial"
    )


def _require_one_reading(pictures: Mapping[str, str]) -> None:
    """Raise `UserError` where processes of one launch have read different pictures."""
    read = hashlib.sha256(json.dumps(sorted(pictures.items())).encode()).hexdigest()
    if len(set(launched.of_all(np.array([int(read[:15], 16)])).tolist())) > 1:
        raise UserError(
            "the processes of this launch have read different pictures; wait for the recon generate that is at work, "
            "then run recon evaluate again"
        )


def _refuse_stale(index: Index, run_id: str, folder: Path, mark: str = "") -> None:
    """Raise `UserError` for pictures of another training of the run, or drawn from other signals than those of
    ``mark`` (`align.data.mark.signals_mark`; "" = not known, as in older indexes)."""
    others = {row["run"] for row in index.values()} - {run_id}
    if others:
        raise UserError(
            f"{str(folder)!r} holds pictures of {sorted(others)[0]}, but this run is {run_id}; run recon generate again"
        )
    drawn_from = {row.get(SIGNALS) or mark for row in index.values()} - {mark}
    if mark and drawn_from:
        raise UserError(
            f"{str(folder)!r} holds pictures that were drawn from other signals than the predictions of {run_id} "
            "that are scored; run recon generate again"
        )
