"""A small study in memory: pictures of eight colours, and channels that mix their pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from recon import Decoder, Study

N_PICTURES, N_TEST, N_TIMES, SFREQ = 36, 12, 16, 100.0
CHANNELS = ("O1", "O2", "Oz", "P3", "P4", "Pz", "Fz", "Cz")
TINY: dict[str, Any] = {"train__epochs": 3, "target__components": 8, "train__batch_size": 24, "encoder__width": 16}
TINY |= {"target__pooling": "grid:8"}  # what the embedded conditioner takes


def pictures() -> np.ndarray:
    """(36, 32, 32, 3) uint8, none like another."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (N_PICTURES, 4, 4, 3), dtype=np.uint8)
    return small.repeat(8, axis=1).repeat(8, axis=2)


def signals(repetitions: int = 2, seed: int = 1) -> np.ndarray:
    """(repetitions * 36, 8, 16) float32, repetition by repetition; Fz and Cz carry nothing."""
    rng = np.random.default_rng(2)
    pixels = pictures().reshape(N_PICTURES, -1).astype(np.float64)
    pixels = (pixels - pixels.mean(0)) / 255
    told = pixels @ rng.normal(size=(pixels.shape[1], 6 * N_TIMES)) / 8
    evoked = np.concatenate([told.reshape(N_PICTURES, 6, N_TIMES), np.zeros((N_PICTURES, 2, N_TIMES))], axis=1)
    noise = np.random.default_rng(seed).normal(size=(repetitions, *evoked.shape))
    return (evoked + 0.5 * noise).reshape(-1, *evoked.shape[1:]).astype(np.float32)


def stimulus(repetitions: int = 2) -> np.ndarray:
    """Which picture each trial shows."""
    return np.tile(np.arange(N_PICTURES), repetitions)


def study(folder: Path | None = None, **more: Any) -> Study:
    """The first 24 pictures for training, the others for the test."""
    told = {"sfreq": SFREQ, "ch_names": CHANNELS, "test": list(range(N_PICTURES - N_TEST, N_PICTURES)), **more}
    return Study.from_arrays(signals(), pictures(), stimulus(), folder=folder, **told)


def decoder(folder: Path, **more: Any) -> Decoder:
    """Three epochs; the cache in ``folder``."""
    return Decoder(**{**TINY, "cache_dir": str(folder / "cache"), **more})


def as_the_command_words(folder: Path, **more: Any) -> list[str]:
    """``key=value`` words that tell a command the settings of `decoder`; the study lies in ``folder / "study"``."""
    settings = {**TINY, "cache_dir": folder / "cache", "preprocess.scale": "zscore", **more}
    pairs = {"study.name": "folder", "study.root": folder / "study", "subjects": "[01]", **settings}
    words = {key.replace("__", "."): value for key, value in pairs.items()}
    return [f"{key}={json.dumps(value) if isinstance(value, list) else value}" for key, value in words.items()]


class Net(nn.Module):
    """Channels are averaged over time, then mapped linearly."""

    def __init__(self, n_chans: int, n_times: int | None, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(n_chans, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.mean(2))
