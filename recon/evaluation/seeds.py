"""How much the scores of reconstructions depend on the seed of the noise they were sampled from.

Only metrics that need no network but the judges are computed for every seed; the scored seed's values are those of the
report. Nothing here chooses a seed: the report's scores stay those of the one that was scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recon.drawing.folders import read_index, read_seed
from recon.evaluation.picture_scores import judged_values
from recon.metrics.metrics import METRICS

if TYPE_CHECKING:
    import torch

    from recon.evaluation.picture_scores import Judged, Scores


def other_seeds(
    folder: Path, ids: Sequence[str], seed: int
) -> tuple[dict[int, dict[str, dict[str, str]]], dict[str, str]]:
    """Index (as `read_seed` gives it) of every seed but ``seed`` with pictures of all ``ids``; why others are left out.

    The second part is for the report's ``skipped``: "seeds.N" to the reason.
    """
    whole, missing = {}, {}
    for other in sorted({int(row["seed"]) for row in read_index(folder)} - {seed}):
        index = read_seed(folder, other)
        absent = [stimulus_id for stimulus_id in ids if stimulus_id not in index]
        if absent:
            missing[f"seeds.{other}"] = f"{len(absent)} of {len(ids)} pictures are missing; run recon generate"
        else:
            whole[other] = index
    return whole, missing


def seed_report(
    scores: Scores, seed: int, others: Iterable[tuple[int, torch.Tensor]], targets: torch.Tensor
) -> dict[str, Any]:
    """The ``seeds`` part of a report; {} where ``others`` is empty.

    scores: of ``seed``. others: further seeds, each with its pictures (n, 3, H, W) in [0, 1] in the order of the
    ``targets`` (n, 3, H, W). Returns ``seeds`` (rising), ``n`` stimuli, and by metric what `spread` says.
    """
    by_seed = {other: measure(images, targets, scores.judged) for other, images in others}
    if not by_seed:
        return {}
    names = list(next(iter(by_seed.values())))
    by_seed[seed] = {name: np.asarray(scores.per_stimulus[name]) for name in names}
    seeds = sorted(by_seed)
    found = {name: spread(np.stack([by_seed[one][name] for one in seeds])) for name in names}
    return {"seeds": seeds, "n": len(targets), **found}


def measure(images: torch.Tensor, targets: torch.Tensor, judged: Mapping[str, Judged]) -> dict[str, np.ndarray]:
    """Every metric without a network of its own, and those of the judges: name to values (n,)."""
    values = {name: metric(images, targets) for name, metric in METRICS.items() if metric.network is None}
    for ending, one in judged.items():
        values |= {name + ending: each for name, each in judged_values(one.judge.features(images), one).items()}
    return values


def spread(values: np.ndarray) -> dict[str, Any]:
    """Scores of k >= 2 seeds and n >= 2 stimuli, (k, n), taken apart; every sd divides by one less than the count.

    ``values``: mean of each seed. ``sd_between_seeds``: sd of those, what another seed does to the headline.
    ``sd_within_stimulus``: mean over stimuli of the sd over seeds. ``sd_between_stimuli``: sd over stimuli of the mean
    over seeds.
    """
    means = values.mean(axis=1)
    return {
        "values": [float(value) for value in means],
        "sd_between_seeds": float(means.std(ddof=1)),
        "sd_within_stimulus": float(values.std(axis=0, ddof=1).mean()),
        "sd_between_stimuli": float(values.mean(axis=0).std(ddof=1)),
    }
