"""From pictures of a run and its controls to the entries of a report. Works on tensors alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from recon.metrics.feature_nets import FeatureNets, WeightsMissing
from recon.metrics.identification import n_way, nearest_is_target, two_way
from recon.metrics.metrics import METRICS
from recon.metrics.stats import bootstrap_ci, sign_flip_p

if TYPE_CHECKING:
    import torch

    from recon.evaluation.judge import Judge
    from recon.evaluation.settings import EvaluateConfig

OWN = "reconstruction"
CEILINGS = ("oracle", "blurred_target")  # made from the target itself: nothing to beat
N_WAY = (10, 50)


@dataclass(frozen=True)
class Judged:
    """A judge and what it said of the targets (n, F) and of the training pictures (K, F), None where none were shown.

    Further pictures of the same targets can then be scored without asking again.
    """

    judge: Judge
    truth: np.ndarray
    known: np.ndarray | None


@dataclass
class Scores:
    """The ``reconstruction``, ``controls`` and ``skipped`` parts, and per-stimulus values of the reconstructions.

    ``judged``: by what is appended to the names of a judge's scores.
    """

    reconstruction: dict[str, dict[str, Any]] = field(default_factory=dict)
    controls: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    per_stimulus: dict[str, list[float]] = field(default_factory=dict)
    judged: dict[str, Judged] = field(default_factory=dict)


def score(
    rows: dict[str, torch.Tensor],
    targets: torch.Tensor,
    nets: FeatureNets,
    judges: Mapping[str, Judge],
    settings: EvaluateConfig,
    progress: Callable[[str], None] = lambda stage: None,
    known: Iterable[torch.Tensor] = (),
) -> Scores:
    """Every metric of every row of pictures (n, 3, H, W) in [0, 1]; ``rows`` holds "reconstruction" and controls.

    ``judges``: by what is appended to the names of their scores (`recon.evaluation.judges.Judges.loaded`).
    ``known``: batches of training pictures; without any, `nearest_is_target` is left out.
    Metrics whose weights are missing, or that the settings leave out, go to ``skipped`` with the reason.
    """
    scores = Scores(controls={name: {} for name in rows if name != OWN})
    for name, metric in METRICS.items():
        if metric.network and not settings.networks:
            scores.skipped[name] = "left out to save time (evaluate.networks=false); run recon evaluate"
            continue
        progress(name)
        try:
            weights = nets.source(metric.network) if metric.network else None
            values = {row: metric(images, targets, nets) for row, images in rows.items()}
        except WeightsMissing as error:
            scores.skipped[name] = str(error)
            continue
        finally:
            nets.clear()
        facts = {"protocol": metric.protocol, **({"weights": weights} if weights else {})}
        _add(scores, name, values, metric.better, facts, settings)
    if judges:
        progress("two_way")
        seen = _features_of_known(judges, known)
    for ending, judge in judges.items():
        _add_judged(scores, ending, rows, Judged(judge, judge.features(targets), seen[ending]), settings)
    return scores


def judged_values(features: np.ndarray, judged: Judged) -> dict[str, np.ndarray]:
    """What a judge says of pictures whose features (n, F) are given, in the order of its targets: name to (n,).

    ``two_way``; ``top1``: 1 where the target is the nearest of all n targets, else 0, as `n_way` with n candidates; and
    ``nearest_is_target`` where training pictures were shown.
    """
    truth = judged.truth
    values = {"two_way": two_way(features, truth), "top1": n_way(features, truth, len(truth))}
    if judged.known is not None:
        values["nearest_is_target"] = nearest_is_target(features, truth, judged.known)
    return values


def _features_of_known(judges: Mapping[str, Judge], known: Iterable[torch.Tensor]) -> dict[str, np.ndarray | None]:
    """Features (K, F) of the training pictures by every judge, in one pass; None where there are no pictures."""
    seen: dict[str, list[np.ndarray]] = {ending: [] for ending in judges}
    for batch in known:
        for ending, judge in judges.items():
            seen[ending].append(judge.features(batch))
    return {ending: np.concatenate(parts) if parts else None for ending, parts in seen.items()}


def _add_judged(
    scores: Scores, ending: str, rows: dict[str, torch.Tensor], judged: Judged, settings: EvaluateConfig
) -> None:
    scores.judged[ending] = judged
    judge, n = judged.judge, len(judged.truth)
    told = {row: judge.features(images) for row, images in rows.items()}
    values = {row: judged_values(features, judged) for row, features in told.items()}
    wider = {
        str(k): {"value": float(n_way(told[OWN], judged.truth, k).mean()), "chance": 1 / k} for k in N_WAY if k <= n
    }
    trained = 0 if judged.known is None else len(judged.known)
    facts: dict[str, dict[str, Any]] = {
        "two_way": {
            "chance": 0.5,
            "n_way": wider,
            "protocol": f"judge {judge.name}, all pairs, distractors are true pictures",
        },
        "top1": {"chance": 1 / n, "protocol": f"judge {judge.name}, nearest of all {n} true pictures"},
        "nearest_is_target": {
            "chance": 1 / (trained + 1),
            "protocol": f"judge {judge.name}, nearest among the target and {trained} training pictures",
        },
    }
    for name in values[OWN]:
        each = {row: found[name] for row, found in values.items()}
        _add(scores, name + ending, each, "higher", {**facts[name], "weights": judge.source}, settings)


def _add(
    scores: Scores,
    name: str,
    values: dict[str, np.ndarray],
    better: str,
    facts: dict[str, Any],
    settings: EvaluateConfig,
) -> None:
    own, sign = values[OWN], 1 if better == "higher" else -1
    entry: dict[str, Any] = {**_summary(own, settings), "n": len(own), "better": better}
    entry["p_vs_control"] = {
        row: sign_flip_p(sign * (own - other), n_perm=settings.n_perm, seed=settings.seed)
        for row, other in values.items()
        if row != OWN and row not in CEILINGS
    }
    entry["minus_control"] = {row: _summary(own - values[row], settings) for row in entry["p_vs_control"]}
    share = _share_of_ceiling(values, sign)
    if share is not None:
        entry["share_of_ceiling"] = share
    scores.reconstruction[name] = {**entry, **facts}
    for row, other in values.items():
        if row != OWN:
            scores.controls[row][name] = _summary(other, settings)
    scores.per_stimulus[name] = [float(value) for value in own]


def _summary(values: np.ndarray, settings: EvaluateConfig) -> dict[str, Any]:
    return {"value": float(values.mean()), "ci95": bootstrap_ci(values, n_boot=settings.n_boot, seed=settings.seed)}


def _share_of_ceiling(values: dict[str, np.ndarray], sign: int) -> float | None:
    """(score - shuffled) / (oracle - shuffled), where the oracle is better than shuffled."""
    if not {"shuffled", "oracle"} <= set(values):
        return None
    own, low, high = (sign * float(values[row].mean()) for row in (OWN, "shuffled", "oracle"))
    return (own - low) / (high - low) if high - low > 1e-9 else None
