"""Power of fine detail, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from recon.metrics.fine_power import fine_power, fine_power_ratios


def wave(cycles: int, contrast: float, size: int = 64) -> torch.Tensor:
    x = torch.arange(size) / size
    return (0.5 + contrast * torch.sin(2 * math.pi * cycles * x)).expand(1, 3, size, size)


@pytest.mark.parametrize(("cycles", "counts"), [(0, 0), (8, 0), (9, 1), (20, 1)])
def test_only_what_is_finer_than_eight_cycles_counts(cycles: int, counts: int) -> None:
    assert fine_power(wave(cycles, 0.2))[0] == pytest.approx(counts * 0.2**2 / 2, abs=1e-6)


def test_the_seen_picture_has_ratio_one_and_a_blurred_one_less() -> None:
    seen = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    blurred = interpolate(avg_pool2d(seen, 8), size=(64, 64), mode="bilinear", align_corners=False)
    found = fine_power_ratios({"own": seen, "blurred": blurred, "flat": 0.5 * seen + 0.25}, seen)
    value = {name: entry["value"] for name, entry in found.items()}
    assert value["own"] == pytest.approx(1) and value["blurred"] < 0.05
    assert value["flat"] == pytest.approx(0.25, rel=1e-4)
    assert found["own"]["n"] == 4 and found["own"]["ci95"] == pytest.approx([1, 1])


def test_the_interval_is_that_of_pairs_drawn_together() -> None:
    rng = torch.Generator().manual_seed(1)
    seen = torch.rand(30, 3, 32, 32, generator=rng) * torch.rand(30, 1, 1, 1, generator=rng)
    own = seen * (0.5 + torch.rand(30, 1, 1, 1, generator=rng))
    found = fine_power_ratios({"own": own}, seen)["own"]
    a, b = fine_power(own), fine_power(seen)
    left = a - found["value"] * b  # the delta method for a ratio of means
    deviation = left.std(ddof=1) / math.sqrt(30) / b.mean()
    low, high = found["ci95"]
    assert low < found["value"] < high and (high - low) / (2 * 1.96 * deviation) == pytest.approx(1, abs=0.25)


def test_larger_targets_are_compared_at_the_size_of_the_pictures() -> None:
    own = wave(12, 0.2)
    assert fine_power_ratios({"own": own}, wave(12, 0.2, 128))["own"]["value"] == pytest.approx(1, rel=0.4)
