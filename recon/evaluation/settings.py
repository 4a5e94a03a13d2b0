"""What `recon evaluate` can be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class EvaluateConfig:
    """Where the networks of the metrics are, who judges, how much resampling."""

    weights_dir: str | None = None  # folder searched first for weights of metric networks and of the judge
    judge: str | None = None  # None = "reader" for the simulated study, else "torchvision/squeezenet1_0"
    judge_weights: str | None = None  # file; None = found as for the metrics
    download: bool = False  # fetch missing weights from their public homes
    networks: bool = True  # False = leave out the scores that need a network other than the judge
    n_boot: int = 2000
    n_perm: int = 9999
    seed: int = 0  # of resampling only
