"""Does retrieval gain from the most universal dimensions of a layer? Cross-validated on training pictures of V4.

    python benchmarks/universal_dimensions.py UNIVERSALITY STUDY_ROOT NETWORK WEIGHTS LAYER [LAYER ...]

UNIVERSALITY is a folder of `recon universality` that compared NETWORK (as it was named there) with others; its pictures
are not those of the study. For each session and fold, ridge predicts the dimensions of a layer from spikes; pictures
that were left out are found by the cosine of standardised dimensions. The dimensions are the k most universal ones, the
k of the largest variance, k at random (mean of 20 draws), the k that the brain predicts best in an inner
cross-validation of the fold's training pictures, or all. Test pictures are not read.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from align import retrieval
from align.comparison.components import Components
from align.config import Config, load_config
from align.data.splits import grouped_folds
from align.data.studies import open_study
from align.training.training_set import TrainingSide, training_side
from align.vision.backbones import load_backbone
from align.vision.targets import cached_targets
from recon.comparison.files import read_universality

COUNTS, DRAWS, INNER = (5, 10, 20, 50, 100, 200), 20, 3
PENALTIES = 10.0 ** np.arange(1, 7)
SESSIONS = ("190925", "190927", "190928", "190929", "210224", "210322", "210325")


def predicted(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Ridge, a penalty for each column of y (n, k) by generalised cross-validation; x (n, V) standardised."""
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    turned, best = u.T @ y, np.full(y.shape[1], np.inf)
    weights = np.zeros((x.shape[1], y.shape[1]))
    for penalty in PENALTIES:
        share = s**2 / (s**2 + penalty)
        left = ((y - u @ (share[:, None] * turned)) / (1 - share.sum() / len(y))) ** 2
        better = left.mean(0) < best
        weights[:, better] = vt.T @ (share[:, None] / s[:, None] * turned)[:, better]
        best = np.minimum(best, left.mean(0))
    return new @ weights


def top1(said: np.ndarray, true: np.ndarray) -> float:
    """Share of rows (n, k) whose own picture has the highest cosine."""
    return float((retrieval.scores(said, true).argmax(1) == np.arange(len(true))).mean())


def fold_scores(
    side: TrainingSide, fold: int, scores: np.ndarray, universal: np.ndarray, seed: int
) -> dict[tuple[str, int], float]:
    """Top-1 by ranking and k for one fold; scores (pictures of the study, K)."""
    averaged, (fit_on, held_out) = side.averaged, side.folds[fold]
    rows = [np.flatnonzero(np.isin(averaged.stimulus, part)) for part in (fit_on, held_out)]
    x, new = (np.asarray(averaged.x[part], dtype=np.float64).reshape(len(part), -1) for part in rows)
    level, spread = x.mean(0), np.where(x.std(0) > 0, x.std(0), 1)
    x, new = (x - level) / spread, (new - level) / spread
    y, true = (scores[averaged.stimulus[part]] for part in rows)
    level, spread = y.mean(0), np.where(y.std(0) > 0, y.std(0), 1)
    y, true = (y - level) / spread, (true - level) / spread
    said = predicted(x, y, new)
    inner = np.zeros_like(y)
    groups = np.asarray(side.stimuli.groups)[averaged.stimulus[rows[0]]]
    for inside, outside in grouped_folds(groups, INNER, seed):
        inner[outside] = predicted(x[inside], y[inside], x[outside])
    similar = (inner * y).mean(0) / np.maximum(inner.std(0), 1e-9)
    orders = {
        "universal": np.argsort(-universal, kind="stable"),
        "variance": np.arange(len(universal)),
        "brain": np.argsort(-similar, kind="stable"),
    }
    rng = np.random.default_rng(seed)
    found = {("all", len(universal)): top1(said, true)}
    for count in (k for k in COUNTS if k < len(universal)):
        found |= {(name, count): top1(said[:, o[:count]], true[:, o[:count]]) for name, o in orders.items()}
        draws = [rng.permutation(len(universal))[:count] for _ in range(DRAWS)]
        found["random", count] = float(np.mean([top1(said[:, o], true[:, o]) for o in draws]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("universality", "study_root", "network", "weights"):
        parser.add_argument(name)
    parser.add_argument("layers", nargs="+")
    args = parser.parse_args()
    stored = read_universality(Path(args.universality))
    places = [f"study.root={args.study_root}", f"backbone.weights={args.weights}", f"cache_dir={tempfile.gettempdir()}"]
    config = load_config(Config, "configs/align/cowley2023_v4.yaml", places)
    name = args.network.partition("@")[0]
    backbone = load_backbone(replace(config.backbone, name=name, image_size=None))
    stored.require(args.network, backbone.weights_hash)
    study, pooling = open_study(config), stored.facts["settings"]["pooling"]
    sides = [training_side(study, config, subject) for subject in SESSIONS]
    tokens = [cached_targets(backbone, side.stimuli, args.layers, pooling, config.cache_dir) for side in sides]
    for layer in args.layers:
        universal = stored.universal[args.network, layer]
        found: dict[tuple[str, int], list[float]] = {}
        for side, targets in zip(sides, tokens, strict=True):
            features = np.asarray(targets[layer].tokens, dtype=np.float64).reshape(len(side.stimuli), -1)
            axes: Components = stored.components(args.network, layer, features.shape[1])
            parts = [fold_scores(side, fold, axes.scores(features), universal, fold) for fold in range(len(side.folds))]
            for key in parts[0]:
                found.setdefault(key, []).append(float(np.mean([part[key] for part in parts])))
        print(f"{args.network} {layer}, {len(universal)} dimensions, mean of {len(sides)} sessions")
        for (ranking, count), values in found.items():
            print(f"  {ranking:<10} {count:>4}  {np.mean(values):.3f}", " ".join(f"{value:.3f}" for value in values))


if __name__ == "__main__":
    main()
