"""Pictures put together of two, with a given amount of fine detail."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from align.data.studies.simulated.rendering import TEST_CONCEPTS, picture
from recon.decoding.joining import coarse, enlarged, joined, measured, started, with_detail


def test_joined_pictures_have_the_coarse_part_of_one_and_the_detail_of_the_other() -> None:
    rng = torch.Generator().manual_seed(0)
    detail = 0.4 + 0.2 * torch.rand(2, 3, 64, 64, generator=rng)
    pixels = enlarged(0.4 + 0.2 * torch.rand(2, 3, 8, 8, generator=rng), 16)
    found = joined(pixels, detail)
    assert (coarse(found) - coarse(pixels)).abs().mean() < 0.2 * (coarse(detail) - coarse(pixels)).abs().mean()
    fine = found - enlarged(coarse(found), 64)
    kept = detail - enlarged(coarse(detail), 64)
    assert torch.corrcoef(torch.stack([fine.flatten(), kept.flatten()]))[0, 1] > 0.97


def test_joining_a_picture_with_itself_changes_nothing() -> None:
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(joined(picture, picture), picture, atol=1e-5, rtol=0)


def rendered(n: int = 6) -> torch.Tensor:
    pictures = [torch.from_numpy(picture(f"{name}-0").copy()) for name in TEST_CONCEPTS[:: len(TEST_CONCEPTS) // n][:n]]
    return 0.2 + 0.6 * torch.stack(pictures).permute(0, 3, 1, 2) / 255


def spectra(pictures: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Amplitudes up to 7 and from 9 cycles a picture, of mirrored pictures."""
    mirrored = torch.cat([pictures, pictures.flip(-1)], -1)
    mirrored = torch.cat([mirrored, mirrored.flip(-2)], -2)
    size = mirrored.shape[-1]
    cycles = np.fft.fftfreq(size) * size / 2
    radius = np.hypot(cycles[:, None], cycles[None])
    amplitude = np.fft.fft2(mirrored.numpy())
    return amplitude[..., radius < 7], amplitude[..., radius > 9]


@pytest.mark.parametrize("size", [64, 128])
def test_detail_comes_near_the_told_amount(size: int) -> None:
    pictures = enlarged(rendered(), size).clamp(0.2, 0.8)
    own = np.log(measured(pictures))
    wanted = np.array([0, -0.5, -1, -2, 0.3, 0.6])
    np.testing.assert_allclose(np.log(measured(with_detail(pictures, own + wanted))) - own, wanted, atol=0.25)


def test_what_is_coarser_than_8_cycles_stays_as_it_is() -> None:
    pictures = rendered()
    found = with_detail(pictures, np.log(measured(pictures)) - 1)
    (rough, fine), (found_rough, found_fine) = spectra(pictures), spectra(found)
    np.testing.assert_allclose(found_rough, rough, atol=1e-2)
    np.testing.assert_allclose(found_fine, np.exp(-0.5) * fine, atol=1e-2)


def test_detail_is_weakened_to_a_quarter_and_doubled_at_most() -> None:
    pictures = 0.5 + 0.2 * (rendered() - 0.5)
    fine = spectra(pictures)[1]
    for wanted, bound in ((-30.0, 0.25), (30.0, 2.0)):
        np.testing.assert_allclose(spectra(with_detail(pictures, np.full(6, wanted)))[1], bound * fine, atol=1e-2)


def test_a_flat_picture_stays_flat() -> None:
    flat = torch.full((1, 3, 64, 64), 0.3)
    torch.testing.assert_close(with_detail(flat, np.zeros(1)), flat, atol=1e-4, rtol=0)


def test_a_start_has_coarse_part_and_amount_of_detail_from_the_signals() -> None:
    sketched = rendered()
    pixels = enlarged(sketched.flip(0).mean(1, keepdim=True).expand(-1, 3, -1, -1), 16)
    wanted = np.log(measured(sketched)) - np.array([0.3, 0.8, 1.3, 0.3, 0.8, 1.3])
    found = started(pixels, sketched, wanted)
    np.testing.assert_allclose(np.log(measured(found)), wanted, atol=0.5)
    assert (coarse(found) - coarse(pixels)).abs().max() < 0.03
    alone = with_detail(sketched, wanted)  # the amount is that of the whole, not of the sketch before it is joined
    assert (joined(pixels, alone) - found).abs().max() > 1e-3
