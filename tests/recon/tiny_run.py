"""A real run in a temporary folder: own recordings, SqueezeNet with random weights, ridge; only the sampler is missing.

Pictures that a generator would have sampled are blends of targets and noise, written in the layout of `recon generate`.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from align.checkpoint import Run, load_run
from align.config import Config, load_config
from align.data.studies.simulated.rendering import TEST_CONCEPTS, TRAIN_CONCEPTS, picture, scene_of
from recon.drawing.folders import PictureFolders, find_folders, write_pictures
from recon.evaluation.judge import Judge
from recon.evaluation.settings import EvaluateConfig
from recon.metrics.feature_nets import WeightsMissing
from recon.metrics.networks import NETWORKS

GENERATOR = "tiny"
N_TRAIN, N_TEST = 40, 24


def make_run(
    folder: Path, n_test: int = N_TEST, seed: int = 0, *, encoder: str = "ridge", more: Sequence[str] = ()
) -> Run:
    """Write a study of rendered pictures and voxels that mix their pixels, train on it, and load the run.

    ``more``: further ``key=value`` of the configuration.
    """
    import torchvision

    from align.train import train

    rng = np.random.default_rng(seed)
    study = folder / "study"
    (study / "images").mkdir(parents=True)
    ids = [f"{c}-0" for c in (*TRAIN_CONCEPTS[::9][:N_TRAIN], *TEST_CONCEPTS[:: len(TEST_CONCEPTS) // n_test][:n_test])]
    pictures = [picture(stimulus_id) for stimulus_id in ids]
    with (study / "stimuli.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "image", "split", "subject", "concept", "caption"])
        for k, (stimulus_id, pixels) in enumerate(zip(ids, pictures, strict=True)):
            Image.fromarray(pixels).save(study / "images" / f"{stimulus_id} 100%.png")  # a name that must be made safe
            split, scene = "train" if k < N_TRAIN else "test", scene_of(stimulus_id)
            writer.writerow([k, f"{stimulus_id} 100%.png", split, "01", scene.concept, scene.caption])
    small = np.stack([p.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3)).ravel() for p in pictures]) / 255
    signals = small @ rng.normal(size=(192, 60)) + 0.1 * rng.normal(size=(len(ids), 60))
    np.save(study / "signals.npy", signals.astype(np.float32))
    torch.manual_seed(seed)
    torch.save(torchvision.models.squeezenet1_1().state_dict(), folder / "squeezenet1_1.pth")
    overrides = [
        "study.name=folder",
        f"study.root={study}",
        "subjects=[01]",
        "backbone.name=torchvision/squeezenet1_1",
        f"backbone.weights={folder / 'squeezenet1_1.pth'}",
        "target.layer=features.3",
        "target.pooling=grid:2",
        "target.components=16",
        f"encoder.name={encoder}",
        f"run_dir={folder / 'run'}",
        f"cache_dir={folder / 'cache'}",
        *more,
    ]
    train(load_config(Config, None, overrides), progress=False)
    return load_run(folder / "run")


def add_pictures(run: Run, quality: float = 0.5, controls: bool = True, seed: int = 0) -> list[str]:
    """Stand-ins for sampled pictures: ``quality`` x target + noise; shuffled, zero_brain and oracle alike."""
    from recon.decoding.predict import load_predictions, run_id

    rng = np.random.default_rng(seed)
    ids = list(load_predictions(run).ids)
    own = torch.from_numpy(np.stack([picture(name.split(" ")[0]) for name in ids])).permute(0, 3, 1, 2) / 255

    def blend(targets: torch.Tensor, share: float) -> torch.Tensor:
        noise = torch.from_numpy(rng.random((len(ids), 3, 8, 8), dtype=np.float32))
        noise = torch.nn.functional.interpolate(noise, size=(64, 64), mode="bicubic").clamp(0, 1)
        return share * targets + (1 - share) * noise

    images = {"": blend(own, quality)}
    if controls:
        images |= {"shuffled": blend(own.roll(1, 0), quality), "zero_brain": blend(own * 0 + own.mean(0), quality)}
        images["oracle"] = blend(own, 0.9)
    for name, pixels in images.items():
        folders = PictureFolders(run.path, GENERATOR, run.subject)
        folder = folders.control(name) if name else folders.reconstructions
        write_pictures(folder, ids, pixels, seed=seed, run_id=run_id(run))
    assert find_folders(run).generator == GENERATOR
    return ids


def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the extra `weights` is not installed."""
    import importlib.util

    true, hidden = importlib.util.find_spec, {network.package for network in NETWORKS.values()} - {""}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in hidden else true(name))


def only_pixels(name: str, settings: EvaluateConfig) -> Judge:
    """For `recon.evaluation.judges.load_judge`: the pixel judge is the first one, nobody is the second."""
    if name.startswith("timm/"):
        raise WeightsMissing("install them (pip install 'shallow-recon[weights]')")
    return pixel_judge()


def pixels_and_colours(name: str, settings: EvaluateConfig) -> Judge:
    """For `recon.evaluation.judges.load_judge`: the pixel judge, and beside it one that sees 2 x 2 colours."""
    if not name.startswith("timm/"):
        return pixel_judge()
    return Judge(name, "colours", lambda images: torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1).numpy())


def pixel_judge() -> Judge:
    """A judge whose features are 8 x 8 pixels."""

    def features(images: torch.Tensor) -> np.ndarray:
        return torch.nn.functional.adaptive_avg_pool2d(images, 8).flatten(1).numpy()

    return Judge("torchvision/squeezenet1_0", "pixels", features)
