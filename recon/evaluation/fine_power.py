"""How much fine detail pictures have beside the seen ones: a blurred picture wins PixCorr, and this says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CYCLES = 8  # per picture; what is finer counts


def fine_power(images: torch.Tensor) -> float:
    """Mean power of pictures (n, 3, S, S) in [0, 1] beyond 8 cycles a picture, over colours and pictures."""
    import torch

    size = images.shape[-1]
    spectrum = torch.fft.fft2(images.float(), norm="forward").abs().square()
    frequency = torch.fft.fftfreq(size) * size
    fine = (frequency[:, None].square() + frequency[None].square()).sqrt() > CYCLES
    return float((spectrum * fine).sum((-1, -2)).mean())


def fine_power_ratios(rows: dict[str, torch.Tensor], targets: torch.Tensor) -> dict[str, float]:
    """`fine_power` of every row over that of the seen pictures at the rows' size: 1 = as much detail as was seen."""
    from torch.nn.functional import interpolate

    size = next(iter(rows.values())).shape[-1]
    if targets.shape[-1] != size:
        targets = interpolate(targets, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    seen = max(fine_power(targets), 1e-12)
    return {name: fine_power(images) / seen for name, images in rows.items()}
