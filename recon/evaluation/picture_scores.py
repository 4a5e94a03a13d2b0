"""From pictures of a run and its controls to the entries of a report. Works on tensors alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from recon.decoding.conditions import LIKELIEST
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
    """The ``reconstruction``, ``controls`` and ``skipped`` parts, and per-stimulus values of the reconstructions."""

    reconstruction: dict[str, dict[str, Any]] = field(default_factory=dict)
    controls: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    per_stimulus: dict[str, list[float]] = field(default_factory=dict)
    judged: Judged | None = None


def score(
    rows: dict[str, torch.Tensor],
    targets: torch.Tensor,
    nets: FeatureNets,
    judge: Judge | None,
    settings: EvaluateConfig,
    progress: Callable[[str], None] = lambda stage: None,
    known: Iterable[torch.Tensor] = (),
) -> Scores:
    """Every metric of every row of pictures (n, 3, H, W) in [0, 1]; ``rows`` holds "reconstruction" and controls.

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
    if judge is not None:
        progress("two_way")
        _add_judged(scores, rows, targets, judge, settings, known)
    return scores


def _add_judged(
    scores: Scores,
    rows: dict[str, torch.Tensor],
    targets: torch.Tensor,
    judge: Judge,
    settings: EvaluateConfig,
    known: Iterable[torch.Tensor],
) -> None:
    truth = judge.features(targets)
    told = {row: judge.features(images) for row, images in rows.items()}
    values = {row: two_way(features, truth) for row, features in told.items()}
    wider = {
        str(k): {"value": float(n_way(told[OWN], truth, k).mean()), "chance": 1 / k} for k in N_WAY if k <= len(truth)
    }
    facts = {
        "chance": 0.5,
        "n_way": wider,
        "protocol": f"judge {judge.name}, all pairs, distractors are true pictures",
        "weights": judge.source,
    }
    _add(scores, "two_way", values, "higher", facts, settings)
    seen = [judge.features(batch) for batch in known]
    scores.judged = Judged(judge, truth, np.concatenate(seen) if seen else None)
    features = scores.judged.known
    if features is None:
        return
    values = {row: nearest_is_target(own, truth, features) for row, own in told.items()}
    facts = {
        "chance": 1 / (len(features) + 1),
        "protocol": f"judge {judge.name}, nearest among the target and {len(features)} training pictures",
        "weights": judge.source,
    }
    _add(scores, "nearest_is_target", values, "higher", facts, settings)


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
    if LIKELIEST in values:
        entry["minus_control"] = {LIKELIEST: _summary(own - values[LIKELIEST], settings)}
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
