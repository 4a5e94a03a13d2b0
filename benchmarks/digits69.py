"""Real fMRI of handwritten sixes and nines: given split, 10 folds and a control; over both digits and within one.

    python benchmarks/digits69.py digit69_28x28.mat
    python benchmarks/digits69.py digit69_28x28.mat target.layer=4 seed=1        another layer, other folds

Two columns of candidates tell what is decoded. Over both digits a decoder scores by naming the digit alone; within one
digit only what distinguishes one six from another helps. Chance stands beside every number. In the folds every one of
the 100 pictures is held out once, always five sixes and five nines together, and compared with those ten only. In the
control the training trials are paired with other pictures of the same digit: the digit can still be learnt, nothing
within a digit can, so what stays above chance there would be a fault.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from align import retrieval
from align.config import Config, load_config
from align.data.importing.mat_columns import import_columns
from align.data.signals import Recording, Trials
from align.data.studies import open_study
from align.errors import UserError
from align.training.fit import fit
from align.vision.backbones import load_backbone
from align.vision.targets import cached_targets

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "align" / "digits69.yaml"
N_FOLDS = 10


@dataclass(frozen=True)
class HeldOut:
    """Similarity (n, n) of held-out rows with their pictures (row i belongs to picture i), digit of every picture."""

    similarity: np.ndarray
    digit: np.ndarray


def digit_folds(digits: np.ndarray, n_folds: int, seed: int) -> list[np.ndarray]:
    """``n_folds`` disjoint sets of rows, shuffled by ``seed``, every digit dealt evenly over them."""
    rng = np.random.default_rng(seed)
    dealt: list[list[int]] = [[] for _ in range(n_folds)]
    for digit in np.unique(digits):
        for place, row in enumerate(rng.permutation(np.flatnonzero(digits == digit))):
            dealt[place % n_folds].append(int(row))
    return [np.sort(np.array(rows)) for rows in dealt]


def scores(parts: list[HeldOut], seed: int = 0) -> list[tuple[str, float, float, list[float] | None, float | None]]:
    """(what, value, chance, 95 % interval over pictures, one-sided permutation p) of held-out parts taken together."""
    within = [
        part.similarity[np.ix_(rows, rows)]
        for part in parts
        for rows in (np.flatnonzero(part.digit == digit) for digit in np.unique(part.digit))
    ]
    over = [part.similarity for part in parts]
    lines = []
    for name, matrices in (("over both digits", over), ("within a digit", within)):
        for kind, score in (("top-1", top1), ("two-way", two_way)):
            tables = [score(matrix) for matrix in matrices]
            chance = 1 / len(matrices[0]) if kind == "top-1" else 0.5
            hits = np.concatenate([np.diag(table) for table in tables])
            interval = retrieval.bootstrap_interval([hits], seed=seed)
            p = retrieval.permutation_p(tables, [len(table) for table in tables], seed=seed)
            lines.append((f"{kind} {name}", float(hits.mean()), chance, interval, p))
    named = np.concatenate([part.digit[part.similarity.argmax(1)] == part.digit for part in parts]).astype(float)
    return [
        *lines,
        ("digit of the best picture", float(named.mean()), 0.5, retrieval.bootstrap_interval([named]), None),
    ]


def top1(similarity: np.ndarray) -> np.ndarray:
    """(n, n): hit of row i if picture j were its own."""
    return retrieval.top1_matrix(similarity, np.arange(len(similarity)))


def two_way(similarity: np.ndarray) -> np.ndarray:
    """(n, n): share of the other pictures that row i finds less similar than picture j, ties half."""
    worse = (similarity[:, :, None] > similarity[:, None, :]).sum(2)
    equal = (similarity[:, :, None] == similarity[:, None, :]).sum(2) - 1
    shares: np.ndarray = (worse + equal / 2) / (len(similarity) - 1)
    return shares


def held_out(config: Config, train: Trials, test: Trials, tokens: np.ndarray, digits: np.ndarray) -> HeldOut:
    """Fit on ``train`` and compare the test rows with their pictures; ``digits`` by stimulus index."""
    pictures, index = np.unique(train.stimulus, return_inverse=True)
    aligner = fit(config, train.x, np.asarray(tokens[pictures]), index)
    embeds = aligner.predict(test.x)["embeds"]
    candidates = aligner.embed_images(np.asarray(tokens[test.stimulus]))
    return HeldOut(retrieval.scores(embeds, candidates), digits[test.stimulus])


def given_split(config: Config, recording: Recording, tokens: np.ndarray) -> list[HeldOut]:
    """The split of the file: 90 pictures to train, 10 to test."""
    digits = np.array(recording.stimuli.captions)
    return [held_out(config, recording.train, recording.test, tokens, digits)]


def ten_folds(config: Config, recording: Recording, tokens: np.ndarray, mispair: bool = False) -> list[HeldOut]:
    """All 100 pictures, each held out once; ``mispair``: training trials get other pictures of their digit."""
    digits = np.array(recording.stimuli.captions)
    both = [np.concatenate(pair) for pair in zip(_arrays(recording.train), _arrays(recording.test), strict=True)]
    trials = Trials(*both)
    parts = []
    for rows in digit_folds(digits[trials.stimulus], N_FOLDS, config.seed):
        train = trials.take(np.setdiff1d(np.arange(len(trials)), rows))
        if mispair:
            train = replace(train, stimulus=mispaired(train.stimulus, digits, config.seed))
        parts.append(held_out(config, train, trials.take(rows), tokens, digits))
    return parts


def mispaired(stimulus: np.ndarray, digits: np.ndarray, seed: int) -> np.ndarray:
    """Stimulus indices (n,) shuffled within their digit."""
    rng = np.random.default_rng([seed, 1])
    out = stimulus.copy()
    for digit in np.unique(digits[stimulus]):
        rows = np.flatnonzero(digits[stimulus] == digit)
        out[rows] = stimulus[rng.permutation(rows)]
    return out


def _arrays(trials: Trials) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return trials.x, trials.stimulus, trials.repetition


def run(mat: str | Path, overrides: list[str]) -> dict[str, list[HeldOut]]:
    """All protocols from the file of the repository; everything in between lies in a temporary folder."""
    with tempfile.TemporaryDirectory() as place:
        root = import_columns(mat, Path(place) / "digits69")
        own = [f"study.root={root}", f"cache_dir={place}/cache"]
        config = load_config(Config, CONFIG, [*own, *overrides])
        recording = open_study(config).recording("01")
        backbone = load_backbone(config.backbone)
        layer = config.target.layer
        found = cached_targets(
            backbone, recording.stimuli, [layer], config.target.pooling, config.cache_dir, progress=False
        )
        tokens = np.array(found[layer].tokens)
    return {
        "given split": given_split(config, recording, tokens),
        f"{N_FOLDS} folds, seed {config.seed}": ten_folds(config, recording, tokens),
        "control, pairs shuffled within a digit": ten_folds(config, recording, tokens, mispair=True),
    }


def table(name: str, parts: list[HeldOut]) -> str:
    """The lines of one protocol."""
    n = sum(len(part.digit) for part in parts)
    lines = [f"{name}: {n} held-out pictures, {len(parts[0].digit)} candidates, {len(parts[0].digit) // 2} of a digit"]
    for what, value, chance, interval, p in scores(parts):
        low, high = interval or (float("nan"), float("nan"))
        tail = "" if p is None else f"  p {p:.4f}"
        lines.append(f"  {what:27s} {value:6.1%}  chance {chance:5.1%}  [{low:.1%}, {high:.1%}]{tail}")
    return "\n".join(lines)


def main() -> int:
    """Print the tables; 2 with one line on stderr for a mistake of the user."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mat", help="digit69_28x28.mat")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="laid over configs/align/digits69.yaml")
    options = parser.parse_args()
    try:
        found = run(options.mat, options.overrides)
    except (UserError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print("\n\n".join(table(name, parts) for name, parts in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
