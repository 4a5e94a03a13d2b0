"""Brain to text on photographs without captions: the text tower names the pictures, then the brain finds the names.

    python benchmarks/v4_words.py CLASSES.csv study.root=FOLDER backbone.weights=FILE [--draws 200] [--out FILE.json]

CLASSES.csv has a column ``name`` (natural_64_classes.csv: 200 classes). Every picture of a V4 session is given the
class whose prompt "a photo of a NAME" is nearest to it in the embedded tower, by the picture alone. A ridge decoder is
trained on the session (configs/align/cowley2023_v4.yaml, the last convolutional layer of SqueezeNet: averaged over
places, early layers have lost what is in a picture), and texts are retrieved with pivot and with joint alignment, as by
`recon retrieve --against text`. Printed for each session: top-1 and top-5 of both directions with chance, interval and
permuted captions; then means over sessions.

``--draws``: is p uniform where there is nothing to find? Every draw permutes the captions of the training pictures of
the first session, fits anew with a penalty of its own, and reads p of the mean reciprocal rank among fits to other
permutations, as `recon retrieve` does for top-1. Kolmogorov-Smirnov against the uniform distribution.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

PERMUTATIONS = 99  # of each draw
SESSIONS = ["190925", "190927", "190928", "190929", "210224", "210322", "210325"]
KEPT = ("top5", "n", "chance_top1", "chance_top5")
RECIPE = Path(__file__).parents[1] / "configs" / "align" / "cowley2023_v4.yaml"
SETTINGS = ("encoder.name=ridge", "target.layer=features.12", "target.pooling=grid:4", "target.router=false")


@dataclass(frozen=True)
class Material:
    """What an alignment is fitted to: (n, P) signals, (n, D) tokens, (n, E) captions, groups (n,); and the test:
    inputs of pivot (m, D) and of joint (m, P), embeddings of the K candidates, ``index`` (m,) the right one."""

    signals: np.ndarray
    tokens: np.ndarray
    captions: np.ndarray
    groups: np.ndarray
    at: dict[str, np.ndarray]
    texts: np.ndarray
    index: np.ndarray


def named_pictures(stimuli: Any, names: Sequence[str]) -> list[str]:
    """The class of every picture, by the picture alone."""
    import torch

    from recon.evaluation.text_retrieval import PROMPT
    from recon.words.towers import load_tower

    tower = load_tower()
    texts = tower.texts([PROMPT.format(name) for name in names])
    found: list[str] = []
    for i in range(len(stimuli)):
        image = torch.from_numpy(np.array(stimuli.load(i))).permute(2, 0, 1)[None].float() / 255
        found.append(names[int((tower.pictures(image) @ texts.T).argmax())])
    return found


def reciprocal_rank(brain: np.ndarray, texts: np.ndarray, index: np.ndarray) -> float:
    """Mean reciprocal rank of the right text; equal scores count half."""
    from align.retrieval.measures import scores

    similarity = scores(brain, texts)
    own = similarity[np.arange(len(index)), index][:, None]
    ranks = 1 + (similarity > own).sum(1) + ((similarity == own).sum(1) - 1) / 2
    return float((1 / ranks).mean())


def null_p(material: Material, alignment: str, draw: int, permutations: int = PERMUTATIONS) -> float:
    """p of a fit to permuted captions among fits to other permutations."""
    rng = np.random.default_rng([draw, len(material.captions)])
    permuted = replace(material, captions=material.captions[rng.permutation(len(material.captions))])
    return permutation_p(permuted, alignment, rng, permutations)


def permutation_p(material: Material, alignment: str, rng: np.random.Generator, permutations: int) -> float:
    """p of the mean reciprocal rank of a fit among fits with its penalty to permuted captions."""
    from align.retrieval.measures import p_value
    from recon.words.alignment import fit_joint, fit_pivot, permuted_brains

    captions = material.captions
    if alignment == "pivot":
        inputs, found = material.tokens, fit_pivot(material.tokens, captions, material.groups)
    else:
        inputs = material.signals
        found = fit_joint(inputs, material.tokens, captions, material.groups)
    orders = (rng.permutation(len(captions)) for _ in range(permutations))
    at, texts = material.at[alignment], found.texts(material.texts)
    observed = reciprocal_rank(found.brain(at), texts, material.index)
    others = permuted_brains(found, inputs, material.tokens, captions, at, orders)
    return p_value(observed, np.array([reciprocal_rank(brain, texts, material.index) for brain in others]))


def calibration(material: Material, alignment: str, draws: int) -> dict[str, Any]:
    """p of ``draws`` fits to permuted captions, against the uniform distribution."""
    from scipy.stats import kstest

    values = np.array([null_p(material, alignment, draw) for draw in range(draws)])
    ks = kstest(values, "uniform")
    told = {"draws": draws, "ks_p": float(ks.pvalue), "ks_distance": float(ks.statistic)}
    return {**told, "mean": float(values.mean()), "at_most_05": float((values <= 0.05).mean())}


def material_of(run: Any, recording: Any, bank: Path) -> Material:
    """Of a run and the names of its pictures, by the parts that `recon retrieve --against text` uses."""
    from recon.decoding.text_space import TextDecoder, TextSettings
    from recon.words.bank import Candidates

    pivot, joint = (TextDecoder(run, recording, TextSettings(alignment=name, bank=bank)) for name in ("pivot", "joint"))
    candidates = Candidates.of([pivot.captions.of[row] for row in pivot.test_rows])
    groups = np.asarray(recording.stimuli.groups)[pivot.training_rows]
    return Material(
        joint._training_signals,
        pivot._tokens,
        pivot._caption_embeds,
        groups,
        {"pivot": pivot.test_inputs, "joint": joint.test_inputs},
        pivot.tower.texts(candidates.texts),
        candidates.index,
    )


def session_report(run: Any, bank: Path) -> dict[str, Any]:
    """Scores of both alignments."""
    from recon.decoding.text_space import TextSettings
    from recon.evaluation.text_retrieval import format_text_report, text_report

    found = {}
    for alignment in ("pivot", "joint"):
        report = text_report(run, TextSettings(alignment=alignment, bank=bank))
        print(format_text_report(report), flush=True)
        found[alignment] = {name: report[name] for name in ("retrieval", "controls", "bank")}
    return found


def means(reports: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Mean over sessions of top-1, top-5, chance, permuted captions and oracle, and joint minus pivot, with t95."""
    from recon.metrics.stats import sign_flip_p, t_interval

    def interval(values: np.ndarray) -> list[float] | None:
        return list(t_interval(values)) if len(values) > 1 else None

    def column(alignment: str, direction: str, *path: str) -> np.ndarray:
        parts = [report[alignment] for report in reports.values()]
        for key in path[:-1]:
            parts = [part[key] for part in parts]
        return np.array([part[direction][path[-1]] for part in parts])

    found: dict[str, Any] = {}
    for direction in ("brain_to_text", "text_to_brain"):
        for alignment in ("pivot", "joint"):
            top1 = column(alignment, direction, "retrieval", "top1")
            one = {name: float(column(alignment, direction, "retrieval", name).mean()) for name in KEPT}
            one |= {
                f"chance_{k}": float(column(alignment, direction, "retrieval", f"chance_{k}").mean())
                for k in ("top1", "top5")
            }
            one["permuted_top1"] = float(column(alignment, direction, "controls", "permuted_captions", "top1").mean())
            one["oracle_top1"] = float(column(alignment, direction, "controls", "oracle", "top1").mean())
            found[f"{direction} {alignment}"] = {"top1": float(top1.mean()), "t95": interval(top1), **one}
        gain = column("joint", direction, "retrieval", "top1") - column("pivot", direction, "retrieval", "top1")
        told = {"difference": float(gain.mean()), "t95": interval(gain), "p": sign_flip_p(gain)}
        found[f"{direction} joint - pivot"] = told
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("classes", type=Path)
    parser.add_argument("pairs", nargs="+", metavar="key=value")
    parser.add_argument("--sessions", nargs="+", default=SESSIONS)
    parser.add_argument("--draws", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    from align.checkpoint import load_run
    from align.config import Config, load_config
    from align.data.studies import open_study
    from align.train import train

    with options.classes.open(encoding="utf-8", newline="") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    reports: dict[str, dict[str, Any]] = {}
    calibrated: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for session in options.sessions:
            config = load_config(
                Config, RECIPE, [*SETTINGS, *options.pairs, f"run_dir={scratch}/{session}", f"subjects=[{session}]"]
            )
            stimuli = open_study(config).recording(session).stimuli
            bank = Path(scratch) / f"{session}.csv"
            given = named_pictures(stimuli, names)
            with bank.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([("id", "caption"), *zip(stimuli.ids, given, strict=True)])
            run = load_run(train(config, progress=False)[0].path)
            reports[session] = session_report(run, bank)
            if options.draws and not calibrated:
                material = material_of(run, open_study(config).recording(session), bank)
                calibrated = {name: calibration(material, name, options.draws) for name in ("pivot", "joint")}
                print(json.dumps(calibrated, indent=2), flush=True)
    text = json.dumps({"means": means(reports), "calibration": calibrated, "sessions": reports}, indent=2)
    print(json.dumps(means(reports), indent=2))
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
