"""Where two pictures agree in departing from what noise alone gives, and how much of it noise alone gives.

A is the picture from one half of the repetitions, B that from the other, both from the same starting noise. Of a pixel,
the agreement is the mean over channels of (A - a) (B - b): a and b are means of pictures that null brains give with the
same starting noise, two brains for a and two others for b, so that nothing enters both factors but the brain and the
starting noise. Of two null brains the agreement is 0 on average, however far each drives the generator; of a brain that
saw something it is the squared distance between the pictures of that brain and those of a null brain, on average.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

LEVEL = 0.95  # share of the area that stays dark under a null brain
LONGEST = 256  # px; maps of larger pictures are reduced
_BOX = 16  # a map is smoothed over one part in so many of its side


@dataclass(frozen=True)
class NullBrains:
    """``threshold``: of the agreement, the ``quantile`` of that of ``n_threshold`` pairs of null brains.

    ``lit``: mean lit share under ``n`` other pairs, with its 95 % ``interval`` (over pairs).
    """

    threshold: float
    quantile: float
    n_threshold: int
    n: int
    lit: float
    interval: list[float]


def agreement(a: torch.Tensor, b: torch.Tensor, base: tuple[torch.Tensor, torch.Tensor]) -> np.ndarray:
    """Of pictures (n, 3, H, W) and their baselines: (n, H, W) float32, -1 to 1, smoothed by a box.

    Reduced where H is above `LONGEST`.
    """
    from scipy.ndimage import uniform_filter
    from torch.nn.functional import adaptive_avg_pool2d

    together = ((a - base[0]) * (b - base[1])).mean(1)
    if together.shape[-1] > LONGEST:
        together = adaptive_avg_pool2d(together, LONGEST)
    smooth: np.ndarray = uniform_filter(together.numpy(), size=(1, *[box(together.shape[-1])] * 2), mode="nearest")
    return smooth


def box(side: int) -> int:
    """px over which maps of ``side`` px are smoothed."""
    return max(1, round(side / _BOX))


def shares(together: np.ndarray, threshold: float) -> np.ndarray:
    """Lit part (n,) of the area of maps (n, H, W)."""
    lit: np.ndarray = (together > threshold).mean(axis=(1, 2))
    return lit


def grey(together: np.ndarray, threshold: float) -> np.ndarray:
    """Maps in [0, 1]: 0 = no agreement, 1/2 = the threshold, 1 = twice the threshold or more."""
    graded: np.ndarray = np.clip(together / max(2 * threshold, np.finfo(np.float32).tiny), 0, 1)
    return graded


def checked(together: np.ndarray) -> NullBrains:
    """Of maps (n, H, W) of pairs of null brains every other one sets the threshold, the rest are measured."""
    from recon.metrics.stats import t_interval

    threshold, quantile = safe_threshold(together[::2])
    lit = shares(together[1::2], threshold)
    return NullBrains(threshold, quantile, len(together[::2]), len(lit), float(lit.mean()), t_interval(lit))


def safe_threshold(together: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Threshold, 0 or more, for maps (n, H, W) of null brains, n > 1, and which quantile of all their pixels it is.

    The quantile ``level`` lights 1 - level of the area of these maps, of further ones as often more as less. So it is
    the lowest quantile at which the area lit is surely that small: the one-sided 95 % limit of its mean over maps
    (Student 1908) is at most 1 - level.
    """
    from scipy.stats import t

    n = len(together)
    for quantile in np.linspace(level, 1, 101):
        threshold = max(0.0, float(np.quantile(together, quantile)))
        lit = shares(together, threshold)
        if lit.mean() + t.ppf(0.95, n - 1) * lit.std(ddof=1) / np.sqrt(n) <= 1 - level:
            break
    return threshold, float(quantile)
