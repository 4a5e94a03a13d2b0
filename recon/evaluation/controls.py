"""Control pictures that need no generator: what grey, averages, neighbours and plain regression reach.

Those that need one (shuffled, zero_brain, oracle) come from `recon generate`, and so does the likeliest library picture
of runs that predict responses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from align.seeding import derive
from recon.decoding.conditions import LIKELIEST
from recon.images import load_image, squeezed

if TYPE_CHECKING:
    import torch

    from align.data.signals import Stimuli

GENERATOR_CONTROLS = ("shuffled", "zero_brain", "oracle")
LIBRARY_CONTROLS = (LIKELIEST,)
PICTURE_CONTROLS = (
    "grey",
    "mean_image",
    "random_training_image",
    "nearest_training_image",
    "pixel_ridge",
    "blurred_target",
)
CONTROLS = (*GENERATOR_CONTROLS, *LIBRARY_CONTROLS, *PICTURE_CONTROLS)
RIDGE_SIZE = 16  # px
BLUR = 8 / 256  # sigma, of the picture's width
_GREY = 0.5
FEW = 30  # pictures; with fewer, two_way without any information scatters around .5 by more than .29 / sqrt(30) = .05
_SPREAD = 12**-0.5  # sd of the two_way of one picture without information: uniform between 0 and 1


def few_pictures(controls: Iterable[str], n: int) -> list[str]:
    """A sentence for fewer than `FEW` pictures with the control ``shuffled``: what one pairing of them cannot say.

    The picture that a shuffled one was drawn for is among the n - 1 others it is compared with. Where each is drawn
    without a fault, that comparison is always lost and the n - 2 others are won by half: (n - 2) / (2 (n - 1)).
    """
    if "shuffled" not in controls or not 2 <= n < FEW:
        return []
    return [
        f"shuffled is one pairing of only {n} pictures, no test of chance: without information its two_way scatters by "
        f"{_SPREAD / n**0.5:.2f} (sd) around .5, and a perfect decoder's is {(n - 2) / (2 * (n - 1)):.2f} on average, "
        "as the picture it was drawn for is among those compared; hold scores against chance, too"
    ]


@dataclass(frozen=True)
class TrainingPictures:
    """One pass over the training pictures ``rows``: their mean (3, S, S) and thumbnails (K, 3, 16, 16)."""

    rows: np.ndarray
    mean: torch.Tensor
    thumbnails: torch.Tensor


def training_pictures(stimuli: Stimuli, rows: np.ndarray, size: int) -> TrainingPictures:
    """Read every training picture once; ``rows`` index ``stimuli``."""
    import torch

    total = torch.zeros(3, size, size, dtype=torch.float64)
    thumbnails = torch.empty(len(rows), 3, RIDGE_SIZE, RIDGE_SIZE)
    for k, row in enumerate(rows):
        image = load_image(stimuli, int(row))
        total += squeezed(image, size)
        thumbnails[k] = squeezed(image, RIDGE_SIZE)
    return TrainingPictures(rows, (total / len(rows)).float(), thumbnails)


def grey(n: int, size: int) -> torch.Tensor:
    """Flat grey .5, (n, 3, size, size)."""
    import torch

    return torch.full((n, 3, size, size), _GREY)


def random_rows(n: int, n_train: int, seed: int) -> np.ndarray:
    """Training rows drawn with replacement, (n,), a pure function of ``seed``."""
    return np.random.default_rng(derive(seed, "random_training_image")).integers(0, n_train, size=n)


def enlarge(thumbnails: np.ndarray, size: int) -> torch.Tensor:
    """Flat thumbnails (n, 3 * 16 * 16), clipped and enlarged bilinearly to (n, 3, size, size)."""
    import torch
    from torch.nn.functional import interpolate

    small = torch.from_numpy(thumbnails.reshape(-1, 3, RIDGE_SIZE, RIDGE_SIZE)).float().clamp(0, 1)
    return interpolate(small, size=(size, size), mode="bilinear", align_corners=False)


def blurred(images: torch.Tensor) -> torch.Tensor:
    """The pictures themselves, (n, 3, S, S), after a Gaussian blur of sigma `BLUR` of their width."""
    import torch
    from torch.nn.functional import conv2d, pad

    sigma = BLUR * images.shape[-1]
    radius = min(int(3.5 * sigma + 0.5), images.shape[-1] - 1)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    x = pad(images.flatten(0, 1)[:, None], (radius,) * 4, mode="reflect")
    x = conv2d(conv2d(x, kernel.reshape(1, 1, -1, 1)), kernel.reshape(1, 1, 1, -1))
    return x[:, 0].reshape(images.shape)
