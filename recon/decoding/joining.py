"""Pictures put together: the coarse part of one, the rest of another, with a given amount of fine detail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recon.metrics.fine_power import CYCLES, fine_power

if TYPE_CHECKING:
    import torch

COARSE = 8  # cells a side
DETAIL_SIZE = 64  # px at which the amount of fine detail is measured
FLAT = 1e-6  # fine power of a picture without detail
_GAIN = (0.25, 2.0)


def started(pixels: torch.Tensor, sketched: torch.Tensor, detail: np.ndarray) -> torch.Tensor:
    """Pictures ``sketched`` (n, 3, H, W) with the coarse part of ``pixels`` and fine detail of the told amount (n,)."""
    return with_detail(joined(pixels, sketched), detail)


def with_detail(pictures: torch.Tensor, detail: np.ndarray) -> torch.Tensor:
    """Pictures (n, 3, H, W) in [0, 1] whose log fine power comes near ``detail`` (n,): what they have beyond 8 cycles
    is weakened to a quarter at most, or doubled at most."""
    import torch

    own = np.log(np.maximum(measured(pictures), FLAT))
    gain = torch.from_numpy(np.clip(np.exp((detail - own) / 2), *_GAIN)).to(pictures)
    height, width = pictures.shape[-2:]
    mirrored = torch.cat([pictures, pictures.flip(-1)], -1)  # without a jump from border to border
    spectrum = torch.fft.rfft2(torch.cat([mirrored, mirrored.flip(-2)], -2))
    down, across = torch.fft.fftfreq(2 * height) * height, torch.fft.rfftfreq(2 * width) * width
    fine = (down[:, None].square() + across[None].square()).sqrt() > CYCLES
    spectrum = torch.where(fine, gain[:, None, None, None] * spectrum, spectrum)
    scaled = torch.fft.irfft2(spectrum, s=(2 * height, 2 * width))
    return scaled[..., :height, :width].clamp(0, 1)


def measured(pictures: torch.Tensor) -> np.ndarray:
    """`recon.metrics.fine_power` (n,) of pictures (n, 3, H, W) at 64 px."""
    return fine_power(_resized(pictures, DETAIL_SIZE, "bilinear"))


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
    return _resized(small, size, "bicubic")


def _resized(pictures: torch.Tensor, size: int, mode: str) -> torch.Tensor:
    from torch.nn.functional import interpolate

    antialias = mode == "bilinear"
    return interpolate(pictures, size=(size, size), mode=mode, antialias=antialias, align_corners=False)
