"""A new simulated person with a tenth of the data, photographs as stimuli: adapted against from scratch.

    python benchmarks/adapt_natural.py IMAGES [--methods prior,context] [--seeds 3] [--noise eeg] [--out FILE.json]

IMAGES: the folder with natural_64_train.zip and natural_64_eval.zip (photographs of 200 classes, 64 px). Four people of
63, 48, 40 and 32 channels with other receptive fields each, by the brain of the simulated study: an early code of what
the pixels hold, a late code of the class. Three known people saw 1,000 pictures each, the fourth 100, all of them
different ones, 4 times each; 200 test pictures, one of each class, 20 times. Of the 100, `recon adapt` holds 20 out to
choose a method, and adapts with 80. Printed, for every method and its form from scratch: top-1 and top-5 of 200, mean
over seeds (other receptive fields, pictures and noise) with a 95 % interval, ratio, and how many numbers are trained.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

CHANNELS = (63, 48, 40, 32)
KNOWN, NEW = 5, 100  # pictures of every class of a known person; pictures of the new one
REPETITIONS, TEST_REPETITIONS = 4, 20
SETTINGS = [
    *("target.layer=1+2+3+4+5+6+7+8", "target.pooling=grid:4", "target.root=true", "target.spread=0"),
    *("target.components=400", "encoder.components=300", "loss.normalize_brain=true", "loss.temperature=0.07"),
    *("train.epochs=60", "train.batch_size=160", "train.lr=1e-3", "train.noise=0.6", "train.image_dropout=0.5"),
]


class Photographs:
    """The pictures of both archives by class, decoded when asked for; ``names`` (classes, pictures of each)."""

    def __init__(self, folder: Path) -> None:
        self.files = {split: zipfile.ZipFile(folder / f"natural_64_{split}.zip") for split in ("train", "eval")}
        self.names: dict[str, list[list[str]]] = {}
        for split, file in self.files.items():
            of: dict[str, list[str]] = {}
            for name in sorted(one for one in file.namelist() if one.endswith(".JPEG")):
                of.setdefault(name.split("/")[0], []).append(name)
            self.names[split] = [of[label] for label in sorted(of)]

    def read(self, split: str, names: Sequence[str]) -> np.ndarray:
        """uint8 (n, 64, 64, 3)."""
        from io import BytesIO

        from PIL import Image

        return np.stack(
            [np.asarray(Image.open(BytesIO(self.files[split].read(name))).convert("RGB")) for name in names]
        )


def recording_of(photographs: Photographs, person: int, seed: int, noise: str) -> Any:
    """The recording of one person (0 to 3; 3 is the new one)."""
    from align.data.signals import Recording, Stimuli, Trials
    from align.data.studies.simulated import brain

    rng = np.random.default_rng([seed, 0])  # one order of the pictures for all people, of which each takes a part
    of_class = [list(rng.permutation(names)) for names in photographs.names["train"]]
    taken = slice(person * KNOWN, (person + 1) * KNOWN)
    shown = [(label, name) for label, names in enumerate(of_class) for name in names[taken]]
    if person == len(CHANNELS) - 1:
        shown = [shown[i] for i in np.sort(rng.permutation(len(shown))[:NEW])]
    test = [(label, names[0]) for label, names in enumerate(photographs.names["eval"])]
    images = np.concatenate(
        [photographs.read("train", [name for _, name in shown]), photographs.read("eval", [name for _, name in test])]
    )
    label = np.array([one for one, _ in (*shown, *test)])
    n = len(shown)
    late = np.eye(len(of_class), dtype=np.float32)[label]
    own = f"photographs-{seed}-{person}"
    evoked = brain.evoked(brain.early_features(images), late, np.arange(n), own, "mixed")
    channels = np.sort(np.random.default_rng([seed, 1 + person]).permutation(len(brain.CHANNELS))[: CHANNELS[person]])
    parts = []
    for first, rows, repetitions in ((0, evoked[:n], REPETITIONS), (n, evoked[n:], TEST_REPETITIONS)):
        noisy = brain.trials(rows, repetitions, 10 * seed + person + first, noise)
        x = np.concatenate([one[:, channels] for one in noisy])
        number = np.arange(first, first + len(rows))
        parts.append(Trials(x, np.tile(number, repetitions), np.repeat(np.arange(repetitions), len(rows))))
    ids = tuple(name for _, name in (*shown, *test))
    names = tuple(brain.CHANNELS[i] for i in channels)
    n_all, classes = len(ids), tuple(f"class {one}" for one in label)
    stimuli = Stimuli(ids, lambda i: images[i], np.arange(n_all), concepts=classes, captions=("",) * n_all)
    return Recording("photographs", str(person), *parts, stimuli, ch_names=names, sfreq=brain.SFREQ)


class PhotographStudy:
    """As much of a study as `align.adaptation.loading` asks for."""

    def __init__(self, photographs: Photographs, seed: int, noise: str) -> None:
        self.photographs, self.seed, self.noise = photographs, seed, noise

    def recording(self, subject: str) -> Any:
        """See `recording_of`."""
        return recording_of(self.photographs, int(subject), self.seed, self.noise)


def measure(folder: Path, names: list[str], seed: int, cache: Path, noise: str) -> list[dict[str, Any]]:
    """The rows of the learning curve of the new person."""
    from dataclasses import replace

    from align.adaptation.loading import load_subject
    from align.adaptation.methods import methods_of
    from align.config import Config, load_config
    from align.vision.backbones import load_backbone
    from align.vision.fused import resolve_layers
    from recon.adaptation.curve import learning_curve

    config = load_config(Config, None, [*SETTINGS, f"seed={seed}", f"cache_dir={cache}"])
    backbone = load_backbone(config.backbone)
    config = replace(config, target=replace(config.target, layer=resolve_layers(backbone, config.target.layer)))
    study: Any = PhotographStudy(Photographs(folder), seed, noise)
    people = [load_subject(study, config, backbone, str(person), False) for person in range(len(CHANNELS))]
    rows = learning_curve(config, people[-1], people[:-1], methods_of(names), [None]).rows
    for row in rows:
        print(f"seed {seed}: {row['method']}, {row['kind']}: test top-1 {row['test']['top1']:.3f}", flush=True)
    return rows


def summary(rows: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Mean over seeds of every method and kind, and the ratio of adapted to the same from scratch."""
    from recon.metrics.stats import t_interval

    found = []
    for method, kind in dict.fromkeys((row["method"], row["kind"]) for row in rows[0]):
        own = [next(row for row in of if (row["method"], row["kind"]) == (method, kind)) for of in rows]
        scores = np.array([row["test"]["top1"] for row in own])
        interval = t_interval(scores) if len(scores) > 1 else None
        top5 = float(np.mean([row["test"]["top5"] for row in own]))
        told = {"method": method, "kind": kind, "top1": float(scores.mean()), "t95": interval, "top5": top5}
        found.append({**told, "values": scores.tolist(), "trainable": own[0]["trainable"], "total": own[0]["total"]})
    scratch = {one["method"]: one["top1"] for one in found if one["kind"] == "scratch"}
    for one in found:
        if one["kind"] == "adapted":
            one["to_own_scratch"] = one["top1"] / scratch[one["method"]] if scratch.get(one["method"]) else None
            one["to_best_scratch"] = one["top1"] / max(scratch.values()) if scratch else None
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--methods", default="prior,context,encoding,linear,finetune,lora,skip_lora")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--noise", choices=["eeg", "low"], default="eeg")
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    names, place = options.methods.split(","), (options.cache, options.noise)
    rows = [measure(options.images, names, seed, *place) for seed in range(options.seeds)]
    text = json.dumps({"chance_top1": rows[0][0]["test"]["chance_top1"], "summary": summary(rows)}, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
