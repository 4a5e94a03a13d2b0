"""Run by test_resume.py in a fresh process: fits in forked children that kill themselves, then resumes them.

python killed_fit.py FOLDER [streamed]      prints one JSON object: {plan: weights hash}

With ``streamed`` the signals stay in their file and are read batch by batch.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from align.checkpoint import tensors_hash
from align.config import Config, load_config
from align.data import signals
from align.tracking import JsonLines
from align.training import optimise
from align.training.fit import fit

OVERRIDES = ["target.components=8", "encoder.width=16", "train.epochs=6", "train.batch_size=20", "train.ema=0.9"]
SAVES_BEFORE_CUT = 5


def train(folder: Path) -> str:
    """Two stages of 18 and 24 steps with a checkpoint every 4; the hash of the weights."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(80, 5))
    x = (hidden @ rng.normal(size=(5, 12)) + rng.normal(size=(80, 12))).astype(np.float32)
    tokens = (hidden @ rng.normal(size=(5, 12))).reshape(80, 3, 4).astype(np.float16)
    if signals.HELD == 0:
        np.save(folder / "x.npy", x)
        os.utime(folder / "x.npy", (0, 0))  # the time of change tells the resumed run whether the file is the same
        x = np.load(folder / "x.npy", mmap_mode="r")
    config = load_config(Config, None, [*OVERRIDES, "train.checkpoint_every=4"])
    metrics = JsonLines(folder / "metrics.jsonl")
    return tensors_hash(fit(config, x, tokens, np.arange(80), state_dir=folder / "state", metrics=metrics).state())


def die() -> None:
    """The process ends here, with nothing flushed or cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(stage: str, step: int) -> Callable[[], None]:
    """Arms a kill at the start of one step."""

    def arm() -> None:
        real = optimise.seed_step

        def deadly(seed: int, now: int, name: str = "") -> torch.Generator:
            if (name, now) == (stage, step):
                die()
            return real(seed, now, name)

        optimise.seed_step = deadly

    return arm


def die_writing() -> None:
    """Arms a kill in the middle of the bytes of a checkpoint."""
    real, count = safetensors.torch.save_file, [0]

    def cut(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
        real(tensors, path, metadata)
        count[0] += 1
        if count[0] == SAVES_BEFORE_CUT:
            os.truncate(path, path.stat().st_size // 2)
            die()

    safetensors.torch.save_file = cut


def in_child(arm: Callable[[], None] | None, folder: Path) -> int:
    """Fit in a fork; the signal that ended it, 0 for a normal end."""
    child = os.fork()
    if child == 0:
        if arm is not None:
            arm()
        (folder / "hash").write_text(train(folder))
        os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def main(root: Path, streamed: bool) -> None:
    torch.set_num_threads(1)
    signals.HELD = 0 if streamed else signals.HELD
    (root / "whole").mkdir()
    hashes = {"whole": train(root / "whole")}  # in this process, so that the children find every module imported
    plans: dict[str, Callable[[], None]] = {"during a write": die_writing}
    rng = np.random.default_rng(int(os.environ.get("KILL_SEED", "0")))
    steps = [("spread", int(rng.integers(18))), ("train", int(rng.integers(24))), ("train", int(rng.integers(24)))]
    plans |= {f"{stage} step {step}": die_at(stage, step) for stage, step in steps}
    for name, arm in plans.items():
        folder = root / name
        folder.mkdir()
        assert in_child(arm, folder) == signal.SIGKILL, name
        assert not (folder / "hash").exists()
        assert in_child(None, folder) == 0, name
        leftovers = [str(path) for path in folder.rglob(".*tmp*")]
        assert not leftovers, leftovers
        hashes[name] = (folder / "hash").read_text()
    print(json.dumps(hashes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), "streamed" in sys.argv[2:])
