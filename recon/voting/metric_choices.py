"""The choice of each picture metric on the pairs that people voted on: which candidate resembles the picture more.

A metric sees what the voters saw: pictures at most 256 px large, which is the size at which all metrics compare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from align.errors import UserError
from recon.evaluation.judge import READER, load_judge, made_of
from recon.metrics.feature_nets import FeatureNets, WeightsMissing
from recon.metrics.identification import correlation_distance
from recon.metrics.metrics import METRICS, Metric
from recon.metrics.pixels import enter
from recon.voting.trials import OWN, picture_hash, shown

if TYPE_CHECKING:
    import torch

    from recon.evaluation.settings import EvaluateConfig
    from recon.gallery.content import Content
    from recon.voting.score import Asked
    from recon.voting.trials import Table, Trial

OFFLINE = ("timm/tf_efficientnet_lite0", "timm/tf_efficientnet_lite1", "timm/tf_efficientnet_lite2")
_TIE = 1e-10


def metric_choices(
    content: Content, tables: Iterable[Table], backbone: str, settings: EvaluateConfig
) -> tuple[dict[str, Asked], dict[str, str]]:
    """Metric to trial to 1 (left), 0 (right) or .5 (a tie), and why metrics were skipped.

    Metrics: those with which the run was scored, its judge, and the judges that need no download and took no part in
    the run (``backbone`` is its vision model). A two-way metric or a distance chooses by the correlation behind it.

    Raises `UserError` when a picture is not the one that was voted on.
    """
    asked = [(table, trial) for table in tables for trial in table.trials]
    images, (top, *sides) = _pictures(content, [trial for _, trial in asked])
    choices: dict[str, Asked] = {}
    skipped: dict[str, str] = {}
    for name, likeness in _judges(content, backbone, settings, skipped):
        try:
            left, right = (likeness(images, top, side) for side in sides)
        except WeightsMissing as error:
            skipped[name] = str(error)
            continue
        chosen = np.where(np.abs(left - right) <= _TIE, 0.5, left > right)
        questions = [(table.hash, trial.number) for table, trial in asked]
        choices[name] = dict(zip(questions, (float(value) for value in chosen), strict=True))
    return choices, skipped


def _pictures(content: Content, trials: Sequence[Trial]) -> tuple[torch.Tensor, list[list[int]]]:
    """Every picture once (n, 3, H, W) in [0, 1], and which of them is shown, left and right in each trial.

    At 256 x 256 where sizes differ.
    """
    place = {item.stimulus_id: k for k, item in enumerate(content.items)}
    numbers: dict[tuple[str, str], int] = {}
    pictures: list[np.ndarray] = []

    def number(kind: str, stimulus_id: str) -> int:
        if (kind, stimulus_id) not in numbers:
            numbers[kind, stimulus_id] = len(pictures)
            pictures.append(content.seen[stimulus_id] if not kind else shown(content, place[stimulus_id], kind))
        return numbers[kind, stimulus_id]

    which: list[list[int]] = [[], [], []]
    for trial in trials:
        unknown = [key for key in (trial.stimulus_id, trial.left_id, trial.right_id) if key not in place]
        unknown += [trial.condition] if trial.condition not in (OWN, *content.controls) else []
        if unknown:
            raise UserError(f"trial {trial.number} is about {unknown[0]!r}, which the scored run does not hold")
        named = ((trial.condition, trial.stimulus_id), ("", trial.left_id), ("", trial.right_id))
        for found, (kind, stimulus_id) in zip(which, named, strict=True):
            found.append(number(kind, stimulus_id))
        if picture_hash(pictures[which[0][-1]]) != trial.picture:
            raise UserError(
                f"the picture of {trial.stimulus_id!r} ({trial.condition}) is no longer the one that was voted on; "
                "pass --table without --run to leave the metrics out"
            )
    return _tensor(pictures), which


def _tensor(pictures: Sequence[np.ndarray]) -> torch.Tensor:
    import torch

    images = [torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255 for pixels in pictures]
    if len({tuple(image.shape) for image in images}) > 1:
        images = [enter(image[None])[0] for image in images]
    return torch.stack(images)


# All pictures, and the numbers of those to compare with one another (n,): likeness (n,), higher is more alike.
Likeness = Callable[["torch.Tensor", Sequence[int], Sequence[int]], np.ndarray]


def _judges(
    content: Content, backbone: str, settings: EvaluateConfig, skipped: dict[str, str]
) -> Iterable[tuple[str, Likeness]]:
    """Name and likeness of every metric and judge, loaded one after the other."""
    nets = FeatureNets(settings.weights_dir, download=settings.download)
    for name, metric in METRICS.items():
        if metric.network is None or (name in content.better and settings.networks):
            yield name, _likeness(metric, nets)
            nets.clear()
    used = made_of(backbone, content.report["generator"])
    first = settings.judge or content.report["judge"]
    own = (READER,) if content.report["study"] == "simulated" else ()
    for name in dict.fromkeys((first, *own, *OFFLINE)):
        told = f"judge {name}"
        if name in used:
            skipped[told] = "took part in this run"
            continue
        try:
            judge = load_judge(name, settings if name == first else replace(settings, judge_weights=None))
        except WeightsMissing as error:
            skipped[told] = str(error)
            continue
        yield told, _correlated(judge.features)


def _likeness(metric: Metric, nets: FeatureNets) -> Likeness:
    network = metric.network
    if metric.kind in ("two_way", "distance") and network is not None:
        return _correlated(lambda images: nets.features(network, images))
    sign = 1 if metric.better == "higher" else -1
    return lambda images, top, side: sign * metric(images[top], images[side], nets)


def _correlated(features: Callable[[torch.Tensor], np.ndarray]) -> Likeness:
    known: list[np.ndarray] = []

    def likeness(images: torch.Tensor, top: Sequence[int], side: Sequence[int]) -> np.ndarray:
        known[:] = known or [features(images)]
        r: np.ndarray = 1 - correlation_distance(known[0][top], known[0][side])
        return r

    return likeness
