"""Controls beside scikit-learn, SciPy and their definitions."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from align.data.signals import Stimuli
from recon.decoding.ridge import nearest
from recon.evaluation import controls


def test_enlarged_thumbnails_are_clipped_and_bilinear() -> None:
    flat = np.linspace(-0.5, 1.5, 768)[None]
    image = controls.enlarge(flat, 64)
    assert image.shape == (1, 3, 64, 64)
    assert image.min() == 0 and image.max() == 1
    small = torch.from_numpy(flat.reshape(1, 3, 16, 16)).float().clamp(0, 1)
    assert torch.allclose(image, torch.nn.functional.interpolate(small, scale_factor=4, mode="bilinear"))


def test_nearest_is_the_highest_cosine() -> None:
    rng = np.random.default_rng(2)
    embeds, train = rng.normal(size=(9, 5)), rng.normal(size=(30, 5)) * rng.uniform(0.1, 10, size=(30, 1))
    cosine = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in train] for a in embeds]
    assert nearest(embeds, train).tolist() == np.argmax(cosine, axis=1).tolist()


def test_training_pictures_are_averaged_and_only_they() -> None:
    images = np.random.default_rng(3).integers(0, 256, size=(5, 32, 32, 3), dtype=np.uint8)
    names = tuple("abcde")
    stimuli = Stimuli(names, lambda i: images[i], np.arange(5), ("",) * 5, ("",) * 5)
    seen = controls.training_pictures(stimuli, np.array([0, 2, 3]), 32)
    assert np.allclose(seen.mean.numpy(), images[[0, 2, 3]].mean(axis=0).transpose(2, 0, 1) / 255, atol=1e-6)
    assert seen.thumbnails.shape == (3, 3, 16, 16)
    pil = np.asarray(Image.fromarray(images[2]).resize((16, 16), Image.Resampling.BILINEAR)).transpose(2, 0, 1) / 255
    assert np.allclose(seen.thumbnails[1].numpy(), pil, atol=1.1 / 255)


def test_blur_is_that_of_scipy_away_from_the_border() -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = gaussian_filter(images.numpy(), sigma=(0, 0, 2, 2), truncate=3.5)
    found = controls.blurred(images).numpy()
    assert np.allclose(found[..., 8:-8, 8:-8], expected[..., 8:-8, 8:-8], atol=1e-5)


def test_grey_and_random_rows() -> None:
    assert controls.grey(2, 16).unique().tolist() == [0.5]
    rows = controls.random_rows(200, 30, seed=1)
    assert rows.tolist() == controls.random_rows(200, 30, seed=1).tolist()
    assert rows.tolist() != controls.random_rows(200, 30, seed=2).tolist()
    assert rows.min() >= 0 and rows.max() < 30
