"""The low-level path: a coarse picture to start the diffusion from, told from tokens, from pixels, or from both.

``tokens``: the sketch of the conditioner (`recon.generation.sketch`). ``pixels``: regression from the signals straight
to small pictures (Miyawaki et al. 2008, Neuron 60; Takagi & Nishimoto 2023 start their diffusion from such a picture).
``both``: the coarse part of the pixels, the rest from the tokens, as strong as the signals say
(`recon.decoding.joining`). Statistics come from training rows alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recon.decoding.library import LinearEstimate
from recon.decoding.ridge import Ridge

if TYPE_CHECKING:
    from align.checkpoint import Run
    from align.data.signals import Recording, Stimuli
    from recon.decoding.library import Library

LOW_LEVEL = ("none", "tokens", "pixels", "both")
SIZE = 16  # px of what is told from the signals
FOLDS = 5
LARGEST_GAIN = 5.0


@dataclass(frozen=True)
class LowLevel:
    """Pixels and fine power of the seen picture, told from signals.

    ``ridge``: regression to the 16 x 16 pixels and, last, the log of the fine power. ``likely``: a second estimate of
    the pixels, which counts as much as the first. Of pixels the deviation from ``mean`` is enlarged by ``gain``.
    ``power``, ``slope``, ``spread``: mean log fine power, how far deviations from it hold for rows that were not
    fitted (0 to 1), and the variance that is left.
    """

    ridge: Ridge
    likely: Likely | None
    mean: np.ndarray
    gain: float
    power: float
    slope: float
    spread: float

    @classmethod
    def fit(cls, run: Run, recording: Recording, library: Library | None = None) -> LowLevel:
        """To the training rows of the run's subject; with the ``library`` of an encoding model, also to that."""
        from align.data.splits import grouped_folds

        train = recording.train.averaged()
        values = read_values(recording.stimuli, train.stimulus)
        held_out = np.zeros_like(values)
        groups = np.asarray(recording.stimuli.groups)[train.stimulus]
        for rows, out in grouped_folds(groups, FOLDS, run.config.seed):
            held_out[out] = Ridge.fit(train.x[rows], values[rows])(train.x[out])
        seen, told = values[:, :-1], held_out[:, :-1]
        likely = None if library is None else Likely.fit(run, library, train.x, seen.mean(0))
        if likely is not None:
            told = (told + likely(train.x)) / 2
        ridge = Ridge.fit(train.x, values)
        gain = _contrast(told, seen)
        return cls(ridge, likely, seen.mean(0), gain, *calibrated(held_out[:, -1], values[:, -1]))

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (n, 3, 16, 16) in [0, 1] with the contrast that pictures have, and the log of the fine power to
        expect (n,), for signals ``x`` (n, ...)."""
        told = self.ridge(x)
        pixels, detail = told[:, :-1], told[:, -1]
        if self.likely is not None:
            pixels = (pixels + self.likely(x)) / 2
        pixels = np.clip(self.mean + self.gain * (pixels - self.mean), 0, 1)
        expected = self.power + self.slope * (detail - self.power) + self.spread / 2  # the mean of a log-normal
        return pixels.reshape(len(x), 3, SIZE, SIZE).astype(np.float32), expected


@dataclass(frozen=True)
class Likely:
    """What the predictions of an encoding model imply about pixels; ``shift`` (P,) puts the mean of training rows
    where the subject's own training pictures have theirs, whatever else the library holds."""

    run: Run
    estimate: LinearEstimate
    shift: np.ndarray | float = 0.0

    @classmethod
    def fit(cls, run: Run, library: Library, x: np.ndarray, mean: np.ndarray) -> Likely:
        """``x``: training signals (K, ...) whose pictures have the mean ``mean`` (P,)."""
        pixels = library.pixels(SIZE).reshape(len(library), -1)
        plain = cls(run, LinearEstimate.fit(library.responses, pixels))
        return cls(run, plain.estimate, mean - plain(x).mean(0))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Pixels (n, P), not clipped."""
        aligner = self.run.aligner
        told: np.ndarray = self.estimate(aligner.without_constant(aligner.predict(x)["embeds"])) + self.shift
        return told


def read_values(stimuli: Stimuli, rows: np.ndarray) -> np.ndarray:
    """Pixels at 16 x 16 px and the log of the fine power of pictures ``rows``: (K, 3 * 16 * 16 + 1) float32."""
    from recon.decoding.joining import DETAIL_SIZE, FLAT, measured
    from recon.images import load_image, squeezed

    values = np.empty((len(rows), 3 * SIZE * SIZE + 1), dtype=np.float32)
    for value, row in zip(values, rows, strict=True):
        image = load_image(stimuli, int(row))
        value[:-1] = squeezed(image, SIZE).flatten().numpy()
        value[-1] = np.log(np.maximum(measured(squeezed(image, DETAIL_SIZE)[None])[0], FLAT))
    return values


def _contrast(told: np.ndarray, seen: np.ndarray) -> float:
    """How much flatter told pixels (K, P) are than the seen ones, 1 or more."""
    mean = seen.mean(0)
    flat = max(float(((told - mean) ** 2).mean()), 1e-12)
    return float(np.clip(np.sqrt(((seen - mean) ** 2).mean() / flat), 1.0, LARGEST_GAIN))


def calibrated(told: np.ndarray, seen: np.ndarray) -> tuple[float, float, float]:
    """Mean of ``seen`` (K,), slope of its regression on ``told`` (K,) between 0 and 1, variance left."""
    mean = seen.mean()
    slope = np.clip(((told - mean) * (seen - mean)).sum() / max(((told - mean) ** 2).sum(), 1e-12), 0.0, 1.0)
    return float(mean), float(slope), float((seen - mean - slope * (told - mean)).var())
