"""What `recon evaluate` can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from align.fields.checks import Checked, Draws, OneOf, Seed, Source

JUDGES = (
    "reader",
    *("torchvision/squeezenet1_0", "torchvision/squeezenet1_1", "torchvision/alexnet"),
    *("timm/tf_efficientnet_lite0", "timm/tf_efficientnet_lite1", "timm/tf_efficientnet_lite2"),
)


@dataclass
class EvaluateConfig(Checked):
    """Where the networks of the metrics are, who judges, how much resampling."""

    weights_dir: Source | None = None  # folder searched first for weights of metric networks and of the judge
    judge: Annotated[str, OneOf(*JUDGES)] | None = None  # None = by `judge.judge_name`
    judge_weights: Source | None = None  # file of the (first) judge; None = found as for the metrics
    download: bool = False  # fetch missing weights from their public homes
    networks: bool = True  # False = leave out the scores that need a network other than the judges
    n_boot: Draws = 2000
    n_perm: Draws = 9999
    seed: Seed = 0  # of resampling only


@dataclass
class EvaluatePairs(Checked):
    """The ``evaluate.key=value`` pairs of a command line."""

    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
