"""Best of n: the sample whose own tokens agree best with what the brain said; the seen picture is never asked.

A choice by the seen picture, or by a score against it, makes any number look better than it is: code refuses it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from align.errors import UserError
from recon.drawing.folders import merge_index, picture_bytes, read_index, safe_names
from recon.drawing.sets import FolderPlan, control_for, draw, further_rows, guide_for

if TYPE_CHECKING:
    import torch

    from align.checkpoint import Run
    from align.vision.taps import Backbone
    from recon.decoding.conditions import Condition
    from recon.decoding.plan import Plan

AGREEMENT = "agreement"
_BATCH = 64


def require_agreement(chosen_by: str) -> None:
    """Raise `UserError` for a choice by anything but agreement with the brain."""
    if chosen_by != AGREEMENT:
        raise UserError(
            f"--choose-by {chosen_by!r}: samples are chosen by agreement with the brain alone; a choice by the seen "
            "picture or a score against it is refused, for its result could not be had without the answer"
        )


def draw_best(plan: Plan, pictures: FolderPlan, folder: Path, condition: Condition, seeds: tuple[int, ...]) -> int:
    """Sample n (``plan.decoder.best_of``) candidates per picture and seed into ``folder``, copy the best.

    Candidate j of seed s has the noise (and, from a library, the tokens) of seed n s + j. Returns how many pictures
    were sampled. Where they are shared, only the candidates are drawn: a choice takes those of all.
    """
    from align.vision.backbones import load_backbone
    from recon.drawing.folders import read_pictures, read_seed

    decoder, n, backbone = plan.decoder, plan.decoder.best_of, load_backbone(plan.run.config.backbone)
    sampled, chosen = 0, []
    for seed in seeds:
        agreed = []
        for j in range(seed * n, seed * n + n):
            other = decoder.condition(pictures.name, j) if decoder.varies else condition
            start = decoder.start(plan.generator, other) if decoder.varies else None
            item = replace(pictures, folder=folder, tokens=other.tokens)
            if start is not None:
                held = control_for(plan.generator, start)
                item = replace(item, start=start.numpy(), control=None if held is None else held.numpy())
            guide = guide_for(plan.generator, decoder, other, plan.sampling, item.start is not None)
            sampled += draw(plan.generator, item, replace(plan.sampling, seeds=(j,)), plan.weights, guide)
            if pictures.shared:  # the choice takes the candidates of all
                continue
            images = read_pictures(folder, read_seed(folder, j), pictures.ids)
            agreed.append(agreement(plan.run, backbone, images, _embeds(condition)))
        if pictures.shared:
            continue
        best = seed * n + np.argmax(agreed, axis=0)
        chosen += _copied(pictures, folder, seed, best)
    if not pictures.shared:
        further = further_rows(read_index(pictures.folder), pictures, seeds)
        merge_index(pictures.folder, [*chosen, *further], seeds, pictures.run_id)
    return sampled


def agreement(run: Run, backbone: Backbone, images: torch.Tensor, embeds: np.ndarray) -> np.ndarray:
    """Cosine (n,) of what the brain said, (n, E), with the embeds of pictures (n, 3, H, W) in [0, 1]."""
    import torch

    from align.vision.fused import parts_of

    target = run.config.target
    layers = parts_of(target.layer)
    parts = []
    for batch in images.split(_BATCH):
        found = backbone.tokens(batch, layers, target.pooling)
        parts.append(torch.cat([found[layer] for layer in layers], dim=2).cpu().numpy())
    own = run.aligner.responses_to(np.concatenate(parts), run.number)
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (embeds, own))
    cosine: np.ndarray = (a * b).sum(1)
    return cosine


def _embeds(condition: Condition) -> np.ndarray:
    assert condition.embeds is not None
    return condition.embeds


def _copied(pictures: FolderPlan, folder: Path, seed: int, best: np.ndarray) -> list[dict[str, str]]:
    """Copy candidate ``best[i]`` of stimulus i to the file of ``seed``; returns its rows of the index."""
    from align.files import atomic_path

    rows = {(row["stimulus_id"], int(row["seed"])): row for row in read_index(folder)}
    out = []
    for stimulus_id, name, j in zip(pictures.ids, safe_names(pictures.ids), best, strict=True):
        row = rows[stimulus_id, int(j)]
        file = f"{name}_seed-{seed}.png"
        with atomic_path(pictures.folder / file, flush=False) as temporary:
            temporary.write_bytes(picture_bytes(folder, row))
        out.append({**row, "file": file, "seed": str(seed)})
    return out
