"""A planted run for texts: voxels that mix the pixels of rendered pictures, captions of what fills these pixels.

Captions name colour and texture, so some are equal; the run predicts tokens of the embedded backbone.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from align.checkpoint import Run, load_run
from align.config import Config, load_config
from align.data.studies.simulated.rendering import TEST_CONCEPTS, TRAIN_CONCEPTS, picture, scene_of

N_TRAIN, N_TEST = 120, 24


def planted_run(folder: Path, captioned: bool = True) -> Run:
    """Write the study (without captions: concepts alone), train ridge on it, and load the run."""
    from align.train import train

    rng = np.random.default_rng(0)
    study = folder / "study"
    (study / "images").mkdir(parents=True)
    ids = [f"{name}-0" for name in (*TRAIN_CONCEPTS[::3][:N_TRAIN], *TEST_CONCEPTS[::8][:N_TEST])]
    pictures = [picture(name) for name in ids]
    with (study / "stimuli.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "image", "split", "subject", "concept", "caption"])
        for k, (name, pixels) in enumerate(zip(ids, pictures, strict=True)):
            Image.fromarray(pixels).save(study / "images" / f"{name}.png")
            scene = scene_of(name)
            caption = f"a {scene.colour} thing on {scene.texture}" if captioned else ""
            writer.writerow([k, f"{name}.png", "train" if k < N_TRAIN else "test", "01", scene.concept, caption])
    small = np.stack([pixels.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3)).ravel() for pixels in pictures]) / 255
    signals = small @ rng.normal(size=(192, 100)) + 0.1 * rng.normal(size=(len(ids), 100))
    np.save(study / "signals.npy", signals.astype(np.float32))
    places = [f"study.root={study}", f"run_dir={folder / 'run'}", f"cache_dir={folder / 'cache'}"]
    target = ["target.layer=2", "target.pooling=grid:2", "target.components=32"]
    overrides = ["study.name=folder", "subjects=[01]", "backbone.name=mini", "encoder.name=ridge", *target, *places]
    train(load_config(Config, None, overrides), progress=False)
    return load_run(folder / "run")
