"""The training loop of NICE (Song et al., ICLR 2024), written from its description: the baseline of stream_subjects.

All trials are read into one array in memory, a shuffling DataLoader deals batches of 1,000, the encoder convolves in
time before it averages, as published: Conv(1 -> 40, 1 x 25), AvgPool(1 x 51, stride 5), BatchNorm, ELU, Conv(40 -> 40,
C x 1), BatchNorm, ELU, Dropout .5, Conv 1 x 1, 1440 -> 768, residual block, LayerNorm; Adam 2e-4, betas (.5, .999);
symmetric cross-entropy of cosines at a scale of 1 / .07.

    python benchmarks/published_tsconv.py FOLDER STEPS      prints one JSON object
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

BATCH, WIDTH = 1000, 768


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


def encoder(n_chans: int, n_times: int) -> nn.Module:
    """(B, 1, C, T) -> (B, 768)."""
    flat = 40 * ((n_times - 25 + 1 - 51) // 5 + 1)
    return nn.Sequential(
        nn.Conv2d(1, 40, (1, 25)),
        nn.AvgPool2d((1, 51), (1, 5)),
        nn.BatchNorm2d(40),
        nn.ELU(),
        nn.Conv2d(40, 40, (n_chans, 1)),
        nn.BatchNorm2d(40),
        nn.ELU(),
        nn.Dropout(0.5),
        nn.Conv2d(40, 40, (1, 1)),
        nn.Flatten(),
        nn.Linear(flat, WIDTH),
        Residual(nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.Dropout(0.5)),
        nn.LayerNorm(WIDTH),
    )


def run(folder: Path, steps: int) -> dict[str, Any]:
    """Seconds per step, share of the time spent waiting for the loader, and peak memory, of ``steps`` steps."""
    torch.manual_seed(0)
    started = time.monotonic()
    files = sorted(folder.glob("sub-*.npy"))
    first = np.load(files[0], mmap_mode="r")
    signals = np.empty((len(files) * len(first), 1, *first.shape[1:]), np.float32)
    for i, path in enumerate(files):
        signals[i * len(first) : (i + 1) * len(first), 0] = np.load(path, mmap_mode="r")
    n_pictures = len(np.load(folder / "tokens.npy", mmap_mode="r"))
    images = F.normalize(torch.randn(n_pictures, WIDTH), dim=1)
    picture = torch.from_numpy(np.tile(np.repeat(np.arange(n_pictures), len(first) // n_pictures), len(files)))
    loader = DataLoader(TensorDataset(torch.from_numpy(signals), picture), BATCH, shuffle=True)
    network = encoder(*first.shape[1:])
    optimizer = torch.optim.Adam(network.parameters(), 2e-4, betas=(0.5, 0.999))
    loading = time.monotonic() - started
    batches = iter(loader)
    x, labels = next(batches)  # the order of an epoch is drawn here
    waited, started = 0.0, time.monotonic()
    for _ in range(steps):
        logits = F.normalize(network(x), dim=1) @ images[labels].T / 0.07
        target = torch.arange(len(x))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        asked = time.monotonic()
        x, labels = next(batches)
        waited += time.monotonic() - asked
    seconds = time.monotonic() - started
    peak = next(
        line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM")
    )
    return {
        "seconds_per_step": seconds / steps,
        "epoch_s": seconds / steps * (len(signals) / BATCH),
        "waiting_share": waited / seconds,
        "reading_into_memory_s": loading,
        "peak_gb": int(peak.split()[1]) / 1e6,
    }


if __name__ == "__main__":
    torch.set_num_threads(2)
    print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]))))
