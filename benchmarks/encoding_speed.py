"""Time and memory of encoding the shared pictures of the Natural Scenes Dataset: 872 pictures, 16,000 voxels, 5 folds.

    python benchmarks/encoding_speed.py [--pictures 872] [--voxels 16000] [--folds 5] [--permutations 1000]

Made-up features (16 places of 384 channels) and voxels, a third of which they drive. Printed: seconds on the clock and
of the processor for predictions (one decomposition a fold, a penalty for each voxel) and for scores (r, p of shuffled
pictures, false discovery rate), the largest memory, mean r of driven and of other voxels. Bar: 5 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from align.data.splits import grouped_folds
from align.response_models.cross_validation import Material, held_out_predictions
from align.response_models.ridge import Ridge
from align.response_models.scores import unit_scores
from align.tracking import Stopwatch


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What ``work`` returns, and the seconds it took."""
    wall, processor = time.perf_counter(), time.process_time()
    done = work()
    return done, {"wall_s": time.perf_counter() - wall, "processor_s": time.process_time() - processor}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("pictures", 872), ("voxels", 16_000), ("folds", 5), ("permutations", 1000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    rng, watch = np.random.default_rng(0), Stopwatch()
    tokens = rng.normal(size=(args.pictures, 16, 384)).astype(np.float32)
    axes = np.linalg.qr(rng.normal(size=(16 * 384, 20)))[0]
    tokens += (rng.normal(size=(args.pictures, 20)) @ axes.T * 60).reshape(tokens.shape).astype(np.float32)
    driven = args.voxels // 3
    responses = rng.normal(size=(args.pictures, args.voxels))
    responses[:, :driven] += tokens.reshape(args.pictures, -1) @ axes @ rng.normal(size=(20, driven)) / 300
    material = Material({"layer": tokens}, responses, np.arange(args.pictures))
    folds = grouped_folds(material.groups, args.folds, 0)
    (estimates, _), predicting = timed(lambda: held_out_predictions(Ridge(), material, folds))
    scored = [rows for _, rows in folds]
    found, scoring = timed(lambda: unit_scores(responses, estimates, scored, 0, args.permutations))
    r = {"driven": float(found.r[:driven].mean()), "others": float(found.r[driven:].mean())}
    significant = {
        "driven": float((found.q <= 0.05)[:driven].mean()),
        "others": float((found.q <= 0.05)[driven:].mean()),
    }
    report = {**vars(args), "predicting": predicting, "scoring": scoring, "r": r, "significant": significant}
    print(json.dumps({**report, "measured": watch.read()}, indent=2))


if __name__ == "__main__":
    main()
