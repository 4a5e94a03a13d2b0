"""The low-level path: what is told from signals, and how it joins what is told from tokens."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from align.checkpoint import Run
from align.data.splits import grouped_folds
from recon.evaluation.controls import pixel_ridge, training_pictures
from recon.low_level import SIZE, coarse, decoded_pixels, enlarged, joined
from recon.predict import open_recording, signals_at_rest
from tests.recon.tiny_run import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("low"), n_test=6)


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


def test_a_brain_at_rest_tells_the_mean_picture(run: Run) -> None:
    recording = open_recording(run)
    told = decoded_pixels(run, recording, np.concatenate([recording.test.x, signals_at_rest(run)]))
    assert told.shape == (7, 3, SIZE, SIZE) and told.dtype == np.float32
    seen = training_pictures(recording.stimuli, recording.train.stimulus, SIZE).thumbnails.numpy()
    np.testing.assert_allclose(told[-1], seen.mean(0), atol=1e-4)
    assert told.min() >= 0 and told.max() <= 1


def test_it_tells_the_seen_picture_with_the_contrast_of_pictures(run: Run) -> None:
    recording = open_recording(run)
    told = decoded_pixels(run, recording, recording.test.x)
    true = training_pictures(recording.stimuli, recording.test.stimulus, SIZE).thumbnails.numpy()
    r = np.corrcoef(told.reshape(6, -1), true.reshape(6, -1))[:6, 6:]
    assert np.diag(r).mean() > r[~np.eye(6, dtype=bool)].mean() + 0.15
    mean = training_pictures(recording.stimuli, recording.train.stimulus, SIZE).thumbnails.numpy().mean(0)
    assert 0.5 < (told - mean).std() / (true - mean).std() < 1.5


def test_test_pictures_are_never_read(run: Run) -> None:
    recording = open_recording(run)
    stimuli, test = recording.stimuli, set(recording.test.stimulus.tolist())

    def load(i: int) -> np.ndarray:
        assert i not in test
        return stimuli.load(i)

    guarded = dataclasses.replace(recording, stimuli=dataclasses.replace(stimuli, load=load))
    expected = decoded_pixels(run, recording, recording.test.x)
    np.testing.assert_array_equal(decoded_pixels(run, guarded, recording.test.x), expected)


def test_contrast_is_enlarged_by_what_held_out_training_pictures_lack(run: Run) -> None:
    """The gain written out: five grouped folds of training rows, spread of true over held-out told pictures."""
    recording = open_recording(run)
    train = recording.train.averaged()
    seen = training_pictures(recording.stimuli, train.stimulus, SIZE).thumbnails.flatten(1).numpy()
    held_out = np.zeros_like(seen)
    for rows, out in grouped_folds(np.asarray(recording.stimuli.groups)[train.stimulus], 5, run.config.seed):
        held_out[out] = pixel_ridge(train.x[rows], seen[rows], train.x[out])
    mean = seen.mean(0)
    gain = np.sqrt(np.mean((seen - mean) ** 2) / np.mean((held_out - mean) ** 2))
    assert gain > 1.05
    plain = pixel_ridge(train.x, seen, recording.test.x)
    expected = np.clip(mean + gain * (plain - mean), 0, 1)
    np.testing.assert_allclose(decoded_pixels(run, recording, recording.test.x).reshape(6, -1), expected, atol=0.02)
    assert np.abs(np.clip(plain, 0, 1) - expected).max() > 0.03
