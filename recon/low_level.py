"""The low-level path: a coarse picture to start the diffusion from, told from tokens, from pixels, or from both.

``tokens``: the sketch of the conditioner (`recon.generation.sketch`). ``pixels``: regression from the signals straight
to small pictures (Miyawaki et al. 2008, Neuron 60; Takagi & Nishimoto 2023 start their diffusion from such a picture).
``both``: the coarse part of the pixels, the rest from the tokens, as strong as the signals say. Statistics come from
training rows alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from align.checkpoint import Run
    from align.data.signals import Recording, Trials
    from recon.picture_library import Library

LOW_LEVEL = ("none", "tokens", "pixels", "both")
SIZE = 16  # px of what is told from the signals
COARSE = 8  # cells a side that pixels decide where both are used
FOLDS = 5
LARGEST_GAIN = 5.0
DETAIL_SIZE = 64  # px at which the amount of fine detail is told
_FLAT = 1e-6  # `fine_power` of a picture without detail
_DETAIL_GAIN = (0.25, 2.0)


def decoded_pixels(run: Run, recording: Recording, x: np.ndarray, library: Library | None = None) -> np.ndarray:
    """(n, 3, 16, 16) in [0, 1] told from signals ``x`` (n, ...), with the contrast that pictures have.

    Ridge regression on training rows. With the ``library`` of an encoding model, the mean of that and
    of the linear estimate that its predictions imply, around the mean of the subject's own training pictures.
    """
    from recon.evaluation.controls import pixel_ridge, training_pictures

    train = recording.train.averaged()
    seen = training_pictures(recording.stimuli, train.stimulus, SIZE).thumbnails.flatten(1).numpy()
    told, held_out = pixel_ridge(train.x, seen, x), _held_out(run, recording, train, seen)
    if library is not None:
        likely = _from_library(run, library, np.concatenate([x, train.x]), seen.mean(0))
        told, held_out = (told + likely[: len(x)]) / 2, (held_out + likely[len(x) :]) / 2
    pixels = _contrasted(told, held_out, seen)
    return np.clip(pixels, 0, 1).reshape(len(x), 3, SIZE, SIZE).astype(np.float32)


def decoded_detail(recording: Recording, x: np.ndarray) -> np.ndarray:
    """(n,): log of the `recon.evaluation.fine_power` of the seen pictures at 64 px, told from signals ``x`` (n, ...)
    by ridge regression on training rows."""
    import torch

    from recon.evaluation.controls import load_image, pixel_ridge
    from recon.evaluation.fine_power import fine_power

    train = recording.train.averaged()
    pictures = (load_image(recording.stimuli, int(row), DETAIL_SIZE) for row in train.stimulus)
    power = np.concatenate([fine_power(torch.stack([picture])) for picture in pictures])
    told: np.ndarray = pixel_ridge(train.x, np.log(np.maximum(power, _FLAT))[:, None], x)[:, 0]
    return told


def _held_out(run: Run, recording: Recording, train: Trials, seen: np.ndarray) -> np.ndarray:
    """What ridge regression tells about training pictures (K, P) when it was fitted to others."""
    from align.data.splits import grouped_folds
    from recon.evaluation.controls import pixel_ridge

    held_out = np.zeros_like(seen)
    groups = np.asarray(recording.stimuli.groups)[train.stimulus]
    for rows, out in grouped_folds(groups, FOLDS, run.config.seed):
        held_out[out] = pixel_ridge(train.x[rows], seen[rows], train.x[out])
    return held_out


def _from_library(run: Run, library: Library, x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Linear estimates (n, P) for signals ``x``; those of all library pictures together would have ``mean`` (P,)."""
    from recon.posterior import linear_estimate

    pixels = library.pixels(SIZE).reshape(len(library.responses), -1)
    return mean + linear_estimate(run.aligner.predict(x)["embeds"], library.responses, pixels - pixels.mean(0))


def _contrasted(estimate: np.ndarray, held_out: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Estimates (n, P) enlarged around the mean picture by as much as those of training pictures were too flat."""
    mean = seen.mean(0)
    gain = np.clip(np.sqrt((seen - mean).var() / max((held_out - mean).var(), 1e-12)), 1.0, LARGEST_GAIN)
    enlarged: np.ndarray = mean + gain * (estimate - mean)
    return enlarged


def started(pixels: torch.Tensor, sketched: torch.Tensor, detail: np.ndarray) -> torch.Tensor:
    """Pictures ``sketched`` (n, 3, H, W) with the coarse part of ``pixels`` and fine detail of the told amount (n,)."""
    return joined(pixels, with_detail(joined(pixels, sketched), detail))


def with_detail(pictures: torch.Tensor, detail: np.ndarray) -> torch.Tensor:
    """Pictures (n, 3, H, W) whose part beyond 8 cycles is weakened to a quarter at most, or doubled at most, so that
    their log fine power comes to ``detail`` (n,)."""
    import torch
    from torch.nn.functional import adaptive_avg_pool2d, interpolate

    from recon.evaluation.fine_power import CYCLES, fine_power

    seen = interpolate(pictures, size=(DETAIL_SIZE, DETAIL_SIZE), mode="bilinear", antialias=True, align_corners=False)
    own = np.log(np.maximum(fine_power(seen), _FLAT))
    gain = torch.from_numpy(np.clip(np.exp((detail - own) / 2), *_DETAIL_GAIN)).to(pictures)
    rough = enlarged(adaptive_avg_pool2d(pictures, 2 * CYCLES), pictures.shape[-1])
    return (rough + gain[:, None, None, None] * (pictures - rough)).clamp(0, 1)


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
