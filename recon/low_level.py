"""The low-level path: a coarse picture to start the diffusion from, told from tokens, from pixels, or from both.

``tokens``: the sketch of the conditioner (`recon.generation.sketch`). ``pixels``: regression from the signals straight
to small pictures (Miyawaki et al. 2008, Neuron 60; Takagi & Nishimoto 2023 start their diffusion from such a picture).
``both``: the coarse part of the pixels, the rest from the tokens. Statistics come from training rows alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from align.checkpoint import Run
    from align.data.signals import Recording
    from recon.picture_library import Library

LOW_LEVEL = ("none", "tokens", "pixels", "both")
SIZE = 16  # px of what is told from the signals
COARSE = 8  # cells a side that pixels decide where both are used
FOLDS = 5
LARGEST_GAIN = 5.0


def decoded_pixels(run: Run, recording: Recording, x: np.ndarray, library: Library | None = None) -> np.ndarray:
    """(n, 3, 16, 16) in [0, 1] told from signals ``x`` (n, ...), with the contrast that pictures have.

    Ridge regression, or for an encoding model (``library``) the linear estimate that its predictions imply.
    """
    estimate = _from_library(run, x, library) if library is not None else _ridge(run, recording, x)
    return np.clip(estimate, 0, 1).reshape(len(x), 3, SIZE, SIZE).astype(np.float32)


def _ridge(run: Run, recording: Recording, x: np.ndarray) -> np.ndarray:
    from align.data.splits import grouped_folds
    from recon.evaluation.controls import pixel_ridge, training_pictures

    train = recording.train.averaged()
    seen = training_pictures(recording.stimuli, train.stimulus, SIZE).thumbnails.flatten(1).numpy()
    held_out = np.zeros_like(seen)
    groups = np.asarray(recording.stimuli.groups)[train.stimulus]
    for rows, out in grouped_folds(groups, FOLDS, run.config.seed):
        held_out[out] = pixel_ridge(train.x[rows], seen[rows], train.x[out])
    return _contrasted(pixel_ridge(train.x, seen, x), held_out, seen)


def _from_library(run: Run, x: np.ndarray, library: Library) -> np.ndarray:
    from align.seeding import derive
    from recon.posterior import linear_estimate

    seen = library.pixels(SIZE).reshape(len(library.responses), -1)
    noise = np.random.default_rng(derive(run.config.seed, "low_level")).normal(size=library.responses.shape)
    responses = np.concatenate([run.aligner.predict(x)["embeds"], library.responses + noise])
    told = linear_estimate(responses, library.responses, seen)
    return _contrasted(told[: len(x)], told[len(x) :], seen)


def _contrasted(estimate: np.ndarray, held_out: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Estimates (n, P) enlarged around the mean picture by as much as those of training pictures were too flat."""
    mean = seen.mean(0)
    gain = np.clip(np.sqrt((seen - mean).var() / max((held_out - mean).var(), 1e-12)), 1.0, LARGEST_GAIN)
    enlarged: np.ndarray = mean + gain * (estimate - mean)
    return enlarged


def joined(pixels: torch.Tensor, detail: torch.Tensor) -> torch.Tensor:
    """``detail`` (n, 3, H, W) with the `COARSE` x `COARSE` part of ``pixels`` (n, 3, h, w) in place of its own."""
    wanted = coarse(pixels)
    for _ in range(3):  # enlarging smooths: what is missing is added again
        detail = detail + enlarged(wanted - coarse(detail), detail.shape[-1])
    return detail.clamp(0, 1)


def coarse(pictures: torch.Tensor) -> torch.Tensor:
    """(n, 3, 8, 8): means of cells."""
    from torch.nn.functional import adaptive_avg_pool2d

    return adaptive_avg_pool2d(pictures, COARSE)


def enlarged(small: torch.Tensor, size: int) -> torch.Tensor:
    """(n, 3, size, size), smooth."""
    from torch.nn.functional import interpolate

    return interpolate(small, size=(size, size), mode="bicubic", align_corners=False)
