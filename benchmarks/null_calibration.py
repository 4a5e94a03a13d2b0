"""Are p values uniform, and scores at chance, where there is nothing to find?

    python benchmarks/null_calibration.py [--draws 200] [--encoder mlp] [--cache DIR] [--out FILE.json]

One subject of the embedded simulation. Every draw shuffles which picture belongs to which training row, fits a small
encoder to these pairs through `align.training.fit.fit`, and scores the 200 test rows through
`align.retrieval.retrieve`, with the test pictures shuffled among the test rows too. Printed and stored, for each way to
read p:

``pool 10``    p of top-1 among random pools of 10, whose values are fine-grained: uniform if all is right
``all``        p of top-1 among all 200: about one hit is expected, so a third of the draws have none and p = 1; such a
               p may only be too large. Its randomised form (ties broken by a coin) has to be uniform
``true pairs`` p among pools of 10 against the true test pairs, only the training ones being shuffled: its mean is 1/2,
               but it need not be uniform. An encoder that learned nothing still is one random map, and real pairs agree
               or disagree with it all together

and the Kolmogorov-Smirnov p against the uniform distribution, the share of p at or below .05, the mean top-1 beside the
interval that chance leaves it (binomial, all draws together).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

POOL, PERMUTATIONS = 10, 999
RECIPE = ("target.components=50", "target.spread=0", "loss.regression=0", "loss.normalize_brain=true")
SMALL = ("encoder.width=64", "encoder.components=100", "train.epochs=5", "train.noise=0", "train.image_dropout=0")


def draw(config: Any, data: dict[str, np.ndarray], number: int) -> dict[str, float]:
    """One fit on shuffled pairs, scored: ``top1`` of all candidates and p of every kind.

    ``data``: train_x (n, ...), train_tokens (n, N, D), test_x (m, ...), test_tokens (m, N, D), paired row by row.
    """
    from dataclasses import replace

    from align import retrieval
    from align.training.fit import fit

    rng = np.random.default_rng([number, len(data["train_x"])])
    order = rng.permutation(len(data["train_x"]))
    aligner = fit(replace(config, seed=number), data["train_x"], data["train_tokens"], order)
    embeds = aligner.predict(data["test_x"])["embeds"]
    similarity = retrieval.scores(embeds, aligner.embed_images(data["test_tokens"]))
    shuffled = rng.permutation(len(similarity))
    options = {"seed": number, "n_boot": 0, "n_perm": PERMUTATIONS}
    every = retrieval.retrieve(similarity, shuffled, **options)
    return {
        "top1": every["top1"],
        "p_all": every["p_permutation"],
        "p_randomised": randomised_p(retrieval.top1_matrix(similarity, shuffled), rng),
        "p_pool": retrieval.retrieve(similarity, shuffled, pool=POOL, **options)["p_permutation"],
        "p_true_pairs": retrieval.retrieve(similarity, np.arange(len(shuffled)), pool=POOL, **options)["p_permutation"],
    }


def randomised_p(matrix: np.ndarray, rng: np.random.Generator) -> float:
    """p of the mean diagonal under random pairings, uniform whatever the ties: those equal to it count by a coin."""
    from align.retrieval import pairings

    n, observed = len(matrix), float(np.diag(matrix).mean())
    null = np.concatenate([matrix[np.arange(n), order].mean(axis=1) for _, order in pairings(n, PERMUTATIONS, rng)])
    above, equal = int(np.sum(null > observed + 1e-9)), int(np.sum(np.abs(null - observed) <= 1e-9))
    return (above + rng.uniform() * (equal + 1)) / (PERMUTATIONS + 1)


def summary(draws: Sequence[dict[str, float]], candidates: int) -> dict[str, Any]:
    """KS p and share of small p of every kind; mean top-1 and its 95 % interval under chance."""
    from scipy.stats import binom, kstest

    found: dict[str, Any] = {"draws": len(draws), "candidates": candidates}
    for kind in ("p_pool", "p_randomised", "p_all", "p_true_pairs"):
        values = np.array([one[kind] for one in draws])
        ks = kstest(values, "uniform")
        found[kind] = {
            "ks_p": float(ks.pvalue),
            "ks_distance": float(ks.statistic),
            "at_most_05": float(np.mean(values <= 0.05)),
            "mean": float(values.mean()),
        }
    trials = len(draws) * candidates
    low, high = binom.interval(0.95, trials, 1 / candidates)
    found["top1"] = float(np.mean([one["top1"] for one in draws]))
    found["chance"], found["chance_interval"] = 1 / candidates, [float(low / trials), float(high / trials)]
    each = binom.interval(0.95, candidates, 1 / candidates)
    found["draws_inside"] = float(np.mean([one["top1"] * candidates <= each[1] + 1e-9 for one in draws]))
    return found


def simulation(config: Any) -> dict[str, np.ndarray]:
    """Averaged rows of the first subject beside the tokens of their pictures, training and test."""
    from align.data.studies import open_study
    from align.vision.backbones import load_backbone
    from align.vision.fused import layer_targets

    recording = open_study(config).recording("01")
    layer = config.target.layer
    targets = layer_targets(
        load_backbone(config.backbone), recording.stimuli, [layer], config.target.pooling, config.cache_dir
    )
    data = {}
    for name, trials in (("train", recording.train.averaged()), ("test", recording.test.averaged())):
        data[f"{name}_x"] = trials.x
        data[f"{name}_tokens"] = np.asarray(targets[layer].tokens[trials.stimulus])
    return data


def main() -> None:
    """Run the draws and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--encoder", default="mlp")
    parser.add_argument("--cache", default="cache")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    from align.config import Config, load_config
    from align.files import write_json

    pairs = [*RECIPE, *SMALL, f"encoder.name={options.encoder}", f"cache_dir={options.cache}"]
    config = load_config(Config, None, [*pairs, "preprocess.channels=[P.*,O.*]"])
    data, started = simulation(config), time.monotonic()
    draws = [draw(config, data, number) for number in range(options.draws)]
    found = {"encoder": options.encoder, **summary(draws, len(data["test_x"]))}
    found["seconds"] = round(time.monotonic() - started, 1)
    print(json.dumps(found, indent=2))
    if options.out:
        write_json(options.out, {**found, "each": draws})


if __name__ == "__main__":
    main()
