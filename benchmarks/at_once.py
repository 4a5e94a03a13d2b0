"""Commands that are started at the same moment in copies of one process: what the benchmarks on them share."""

from __future__ import annotations

import csv
import importlib
import json
import multiprocessing
import os
import pkgutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

LIBRARIES = (  # that the project imports where they are needed
    "accelerate",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "matplotlib.pyplot",
    "mne.viz.topomap",
    "scipy.optimize",
    "scipy.stats",
    "skimage.metrics",
    "torchvision",
    "transformers.models.clip.modeling_clip",
    "transformers.models.clip.tokenization_clip",
)
PEOPLE, TRAIN, TEST = ("01", "02", "03"), 40, 8  # pictures, the same for everybody
PLAIN = ["evaluate.networks=false", "evaluate.n_boot=20", "evaluate.n_perm=20"]


@dataclass
class Place:
    """A folder with ``study``, ``cache`` and ``run``."""

    path: Path

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def pairs(self) -> list[str]:
        """What tells a command where the study is, and a quick encoder."""
        return [
            "study.name=folder",
            f"study.root={self.path / 'study'}",
            f"cache_dir={self.path / 'cache'}",
            "encoder.name=ridge",
            "target.components=8",
            "sweep.folds=2",
            "sweep.layers=[1,2]",
        ]

    def of_run(self, command: str, *words: str) -> list[str]:
        """A command that starts from the run."""
        places = [f"study.root={self.path / 'study'}", f"cache_dir={self.path / 'cache'}"]
        return ["recon", command, "--subject", "01", "--run", str(self.run), *words, *places]

    def train(self, run: Path, *words: str) -> list[str]:
        """A training into ``run``."""
        return ["train", *self.pairs, f"run_dir={run}", *words]


@dataclass
class Found:
    """What went wrong, in words; and what was counted."""

    losses: list[str] = field(default_factory=list)
    false_successes: list[str] = field(default_factory=list)
    commands: int = 0
    refused: int = 0

    def require(self, held: bool, what: str, success: bool = True) -> None:
        """Note that ``what`` is missing: a false success where a command returned 0 for it, else a loss."""
        if not held:
            (self.false_successes if success else self.losses).append(what)


@dataclass(frozen=True)
class Kind:
    """Commands that are started together, and what must hold of their exit codes and of what they leave."""

    name: str
    commands: Callable[[Place], list[list[str]]]
    check: Callable[[Place, list[int], Found], None]
    slow: bool = False  # left out of the short form
    around: Callable[[Place], AbstractContextManager[None]] = lambda place: nullcontext()  # what goes on meanwhile


def call(words: Sequence[str], log: Path) -> None:
    """Run one command in this process, its output in ``log``, and end the process with its exit code."""
    with log.open("w", encoding="utf-8", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file  # a test runner has put its own in their place
        _new_pool()
        if words[0] == "train":
            from align.train import main

            code = main(list(words[1:]))
        else:
            from recon.cli import main as recon

            code = recon(list(words[1:]))
    os._exit(code)


def _new_pool() -> None:
    """After a fork torch makes its thread pool anew at the first use; two threads at once would find none."""
    import torch

    torch.set_num_threads(1)


def together(commands: Sequence[Sequence[str]], logs: Path, limit: float = 600) -> list[int]:
    """Exit codes of commands that were started at the same moment; 124 for one that hangs."""
    logs.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    started = [context.Process(target=call, args=(words, logs / f"{i}.log")) for i, words in enumerate(commands)]
    for process in started:
        process.start()
    end = time.monotonic() + limit
    for process in started:
        process.join(max(0.0, end - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
            return [124] * len(started)
    return [process.exitcode if process.exitcode is not None else 124 for process in started]


def warm() -> None:
    """Import what commands import, once, so that the copies of this process start at once."""
    import torch

    torch.set_num_threads(1)
    for name in LIBRARIES:
        importlib.import_module(name)
    for package in ("align", "recon"):
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)


def make_people(folder: Path) -> None:
    """Pictures, and responses of `PEOPLE` with a time axis, as the `folder` study reads them."""
    (folder / "images").mkdir(parents=True)
    rng, signals, means = np.random.default_rng(0), [], []
    for k in range(TRAIN + TEST):
        pixels = (np.kron(rng.random((4, 4, 3)), np.ones((8, 8, 1))) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"p{k:02d}.png")
        means.append(pixels.reshape(4, 8, 4, 8, 3).mean((1, 3)).ravel() / 255)
    with (folder / "stimuli.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "image", "split", "subject", "concept"])
        for person in PEOPLE:
            weights = rng.normal(size=(48, 40))
            for k in range(TRAIN + TEST):
                split = "train" if k < TRAIN else "test"
                writer.writerow([len(signals), f"p{k:02d}.png", split, person, f"c{k}"])
                signals.append(means[k] @ weights + 0.05 * rng.normal(size=40))
    np.save(folder / "signals.npy", np.array(signals, dtype=np.float32).reshape(-1, 4, 10))
    (folder / "info.json").write_text(json.dumps({"sfreq": 100}), encoding="utf-8")


def make_pickles(folder: Path) -> None:
    """Two recordings as they circulate: dicts in a pickled ``.npy``, which `recon data convert` copies."""
    rng = np.random.default_rng(0)
    for subject in ("01", "02"):
        (folder / f"sub-{subject}").mkdir(parents=True)
        for name, n in (("training", 40), ("test", 20)):
            content = {"preprocessed_eeg_data": rng.normal(size=(n, 4, 17, 100)).astype("f4"), "ch_names": ["a"] * 17}
            np.save(folder / f"sub-{subject}" / f"preprocessed_eeg_{name}.npy", content)  # type: ignore[arg-type]
