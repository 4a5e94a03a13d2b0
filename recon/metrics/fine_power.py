"""How much fine detail pictures have beside the seen ones: a blurred picture wins PixCorr, and this says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

CYCLES = 8  # per picture; what is finer counts


def fine_power(images: torch.Tensor) -> np.ndarray:
    """Power beyond 8 cycles a picture, mean over colours, of pictures (n, 3, S, S) in [0, 1]: (n,)."""
    import torch

    size = images.shape[-1]
    spectrum = torch.fft.fft2(images.float(), norm="forward").abs().square()
    frequency = torch.fft.fftfreq(size) * size
    fine = (frequency[:, None].square() + frequency[None].square()).sqrt() > CYCLES
    power: np.ndarray = (spectrum * fine).sum((-1, -2)).mean(1).double().numpy()
    return power


def fine_power_ratios(
    rows: dict[str, torch.Tensor], targets: torch.Tensor, n_boot: int = 2000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Mean `fine_power` of every row over that of the seen pictures at the rows' size: 1 = as much detail as was seen.

    Each with ``n`` and ``ci95``, a bootstrap over stimuli that draws picture and target together.
    """
    from torch.nn.functional import interpolate

    size = next(iter(rows.values())).shape[-1]
    if targets.shape[-1] != size:
        targets = interpolate(targets, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    seen, n = fine_power(targets), len(targets)
    drawn = np.random.default_rng(seed).integers(0, n, (n_boot, n))
    below = np.maximum(seen[drawn].mean(1), 1e-12)
    found = {}
    for name, images in rows.items():
        own = fine_power(images)
        ends = np.quantile(own[drawn].mean(1) / below, (0.025, 0.975))
        value = float(own.mean() / max(seen.mean(), 1e-12))
        found[name] = {"value": value, "ci95": [float(end) for end in ends], "n": n}
    return found
