"""A folder of sampled pictures with its index.csv: what it lacks is sampled, what it holds under other settings again.

A killed process loses the batch it was at. Which picture is which is settled by stimulus, seed and settings alone:
neither the order of the work nor the size of a batch changes one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align.files.launched import is_first, place
from align.seeding import derive
from recon.decoding.plan import Sampling
from recon.drawing.folders import (
    DIGEST,
    DRAWING,
    INDEX_COLUMNS,
    SIGNALS,
    merge_index,
    read_index,
    safe_names,
    same_file,
    write_png,
)

if TYPE_CHECKING:
    import torch

    from recon.decoding.conditions import Condition
    from recon.decoding.decoder import RunDecoder
    from recon.generation.pipeline import Generator
    from recon.generation.sampling import Guide

# latents (B, C, h, w) of the pictures by then, index of the step, rows (B,) of the set; returns latents
Hook = Callable[["torch.Tensor", int, np.ndarray], "torch.Tensor"]


@dataclass(frozen=True)
class FolderPlan:
    """One folder to fill: ``tokens`` (n, N, D) for ``ids``; ``tokens_of`` names whose tokens row i holds.

    ``start``, ``control`` (n, 3, H, W) in [0, 1]: coarse pictures, and what a ControlNet reads. ``prompts`` (n):
    texts beside the tokens. ``responses`` (n, E): what guides the drawing, where something does. ``shared``: the
    processes of a launch draw a part of the pictures each (see `align.files.launched`). ``drawing``: `Plan.drawing`.
    ``signals``: `Predictions.mark` of what is drawn.
    """

    name: str
    folder: Path
    ids: tuple[str, ...]
    tokens: np.ndarray
    tokens_of: tuple[str, ...]
    run_id: str
    start: np.ndarray | None = None
    prompts: tuple[str, ...] | None = None
    control: np.ndarray | None = None
    responses: np.ndarray | None = None
    shared: bool = False
    drawing: str = ""
    signals: str = ""


def noise_of(stimulus_id: str, seed: int) -> int:
    """The seed of the starting noise of a stimulus, the same in everything that is drawn for it."""
    return derive(seed, "noise", stimulus_id) % 2**31


def sample(
    model: Generator, decoder: RunDecoder, condition: Condition, ids: Sequence[str], sampling: Sampling
) -> torch.Tensor:
    """Pictures (n, 3, H, W) in [0, 1] of a condition, one for each of ``ids``, as `draw` makes them; kept in memory.

    The noise is that of the first of ``sampling.seeds``.
    """
    import torch

    start = decoder.start(model, condition)
    used = sampling.filled(model.defaults)
    if start is not None and used.strength == 0:
        return start
    tokens = torch.from_numpy(np.ascontiguousarray(condition.tokens, dtype=np.float32))
    guide = guide_for(model, decoder, condition, used, start is not None)
    return model.generate(
        tokens,
        [noise_of(name, sampling.seeds[0]) for name in ids],
        used.steps,
        used.guidance_scale,
        used.batch_size,
        used.scale,
        **coarse_inputs(model, start, used),
        prompts=condition.prompts,
        control=control_for(model, start),
        guide=None if guide is None else _on_set(guide, np.arange(len(tokens))),
    )


def coarse_inputs(model: Generator, coarse: torch.Tensor | None, used: Sampling) -> dict[str, Any]:
    """What `Generator.generate` does with coarse pictures (n, 3, H, W): it starts from them (``strength`` below 1), and
    reads them beside the noise where it can. ``used``: with the generator's defaults filled in."""
    if coarse is None:
        return {}
    sketch = {"sketch": coarse} if model.reads_sketch else {}
    return sketch | {"start": coarse, "strength": used.strength} if starts(model, used) else sketch


def starts(model: Generator, used: Sampling) -> bool:
    """Whether the diffusion starts from coarse pictures, where there are some."""
    return not (model.reads_sketch and used.strength == 1)


def guide_for(
    model: Generator, decoder: RunDecoder, condition: Condition, sampling: Sampling, coarse: bool
) -> Hook | None:
    """What guides the drawing of a condition, with or without ``coarse`` pictures; None where nothing does."""
    from recon.generation.sampling import count_steps

    used = sampling.filled(model.defaults)
    assert used.steps is not None
    strength = used.strength if coarse and starts(model, used) else None
    return decoder.guide(model, condition, count_steps(used.steps, strength))


def control_for(model: Generator, start: torch.Tensor | None) -> torch.Tensor | None:
    """What a ControlNet or T2I-Adapter reads (n, 3, H, W) in [0, 1], of the coarse pictures ``start``; None where the
    generator has no such network, or there are no coarse pictures."""
    return None if model.control is None or start is None else model.control.picture(start)


def draw(model: Generator, pictures: FolderPlan, sampling: Sampling, weights: str, guide: Hook | None = None) -> int:
    """Sample the pictures that the folder does not yet hold under the same settings; returns how many were sampled.
    Where they are shared, every n-th batch of them: rounding depends on what is in a batch.

    ``weights`` names the weights and whatever else the generator was made of (`recon.decoding.plan.fingerprint`).
    ``guide(x0, step, rows)`` is called as `Generator.generate` says, with the rows of ``pictures`` in place of those of
    a batch; ``weights`` must change with it. Rows of other seeds of the same run stay in the index, and so do those of
    further stimuli that were drawn alike.
    """
    import torch

    from align.tracking import Forecast, progress_bar

    used = sampling.filled(model.defaults)
    plan = _plan(weights, pictures, used)
    known = read_index(pictures.folder)
    kept = {(row["stimulus_id"], row["seed"], row["settings"]): row for row in known}
    for item in plan:
        stored = kept.get((item.row["stimulus_id"], item.row["seed"], item.row["settings"]))
        if stored is not None and same_file(pictures.folder, stored):
            item.row |= {"file": stored["file"], DIGEST: stored.get(DIGEST) or ""}
            item.have = True
    further = further_rows(known, pictures, used.seeds)
    mine, planned = _own_part(plan, sampling.batch_size) if pictures.shared else (plan, [])
    todo = [item for item in mine if not item.have]
    options: dict[str, Any] = {"steps": used.steps, "guidance_scale": used.guidance_scale}
    options |= {"batch_size": used.batch_size, "scale": used.scale}
    forecast = Forecast(f"generate {pictures.name}", len(todo), "picture", is_first())
    with progress_bar(len(todo), f"generate {pictures.name}", show=bool(todo), unit="picture") as bar:
        for start in range(0, len(todo), sampling.batch_size):
            batch = todo[start : start + sampling.batch_size]
            own = [item.stimulus for item in batch]
            tokens = torch.from_numpy(np.ascontiguousarray(pictures.tokens[own]))
            extra = _extra_inputs(model, pictures, own, used, guide)
            if used.strength == 0 and "start" in extra:
                images = extra["start"]
            else:
                images = model.generate(tokens, [item.noise for item in batch], **options, **extra)
            for item, image in zip(batch, images.numpy(), strict=True):
                item.row[DIGEST] = write_png(pictures.folder / item.row["file"], image)
                item.have = True
            done = [*(item.row for item in mine if item.have), *further]
            merge_index(pictures.folder, done, used.seeds, pictures.run_id, planned)
            bar.update(len(batch))
            forecast.done(len(batch))
    if not todo:
        merge_index(pictures.folder, [*(item.row for item in mine), *further], used.seeds, pictures.run_id, planned)
    return len(todo)


def further_rows(known: Sequence[dict[str, str]], pictures: FolderPlan, seeds: Sequence[int]) -> list[dict[str, str]]:
    """The rows of an index that are of stimuli beyond those of ``pictures``, and were drawn as these are."""
    own = (pictures.run_id, pictures.drawing)
    alike = [row for row in known if (row["run"], row.get(DRAWING)) == own and int(row["seed"]) in seeds]
    return [row for row in alike if pictures.drawing and row["stimulus_id"] not in pictures.ids]


def _extra_inputs(
    model: Generator, pictures: FolderPlan, own: list[int], used: Sampling, guide: Hook | None
) -> dict[str, Any]:
    """Coarse pictures, prompts and hook for the stimuli ``own``, as the generator takes them."""
    import torch

    extra: dict[str, Any] = {}
    if pictures.start is not None:
        start = np.ascontiguousarray(pictures.start[own], dtype=np.float32)
        extra |= coarse_inputs(model, torch.from_numpy(start), used)
    if pictures.control is not None:
        extra["control"] = torch.from_numpy(np.ascontiguousarray(pictures.control[own], dtype=np.float32))
    if pictures.prompts is not None:
        extra["prompts"] = [pictures.prompts[i] for i in own]
    if guide is not None:
        extra["guide"] = _on_set(guide, np.asarray(own))
    return extra


def _on_set(guide: Hook, own: np.ndarray) -> Guide:
    """The hook of a set as one of a call of the generator for the rows ``own`` of it."""
    return lambda x0, step, rows: guide(x0, step, own[list(rows)])


def _own_part(plan: list[_Planned], batch_size: int) -> tuple[list[_Planned], list[dict[str, str]]]:
    """The pictures that this process of a launch draws, and the rows of all."""
    rank, size = place()
    batches = [plan[start : start + batch_size] for start in range(0, len(plan), batch_size)]
    return [item for batch in batches[rank::size] for item in batch], [item.row for item in plan]


@dataclass
class _Planned:
    """One picture: its stimulus, its noise seed, its row of the index, whether the folder has it."""

    stimulus: int
    noise: int
    row: dict[str, str]
    have: bool = False


def _plan(weights: str, pictures: FolderPlan, used: Sampling) -> list[_Planned]:
    """Every picture of a finished folder, seed by seed; ``settings`` changes with what changes a picture."""
    shared = [weights, used.steps, used.guidance_scale, used.scale]
    digests = []
    for i in range(len(pictures.ids)):
        digest = hashlib.sha256(np.ascontiguousarray(pictures.tokens[i]).tobytes())
        if pictures.start is not None:
            digest.update(np.ascontiguousarray(pictures.start[i], dtype=np.float32).tobytes())
            digest.update(str(used.strength).encode())
        if pictures.control is not None:
            digest.update(np.ascontiguousarray(pictures.control[i], dtype=np.float32).tobytes())
        if pictures.prompts is not None:
            digest.update(pictures.prompts[i].encode())
        if pictures.responses is not None:
            digest.update(np.ascontiguousarray(pictures.responses[i], dtype=np.float32).tobytes())
        digests.append(digest.hexdigest())
    plan = []
    for seed in used.seeds:
        for i, name in enumerate(safe_names(pictures.ids)):
            noise = noise_of(pictures.ids[i], seed)
            settings = hashlib.sha256(json.dumps([*shared, noise, digests[i]]).encode()).hexdigest()[:16]
            file, owner = f"{name}_seed-{seed}.png", pictures.tokens_of[i]
            values = (pictures.ids[i], file, str(seed), str(noise), owner, pictures.run_id, settings)
            row = {**dict(zip(INDEX_COLUMNS, values, strict=True)), DRAWING: pictures.drawing}
            row[SIGNALS] = pictures.signals
            plan.append(_Planned(i, noise, row))
    return plan
