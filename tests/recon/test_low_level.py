"""The low-level path: what is told from signals, and how it joins what is told from tokens."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from align.checkpoint import Run
from align.data.splits import grouped_folds
from recon.evaluation.controls import pixel_ridge, training_pictures
from recon.evaluation.fine_power import fine_power
from recon.low_level import SIZE, coarse, decoded_detail, decoded_pixels, enlarged, joined, started, with_detail
from recon.picture_library import Library, read_library
from recon.posterior import linear_estimate
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
    x = recording.test.x
    np.testing.assert_array_equal(decoded_detail(guarded, x), decoded_detail(recording, x))
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


@pytest.fixture(scope="module")
def encoding(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("encoding"), n_test=6, encoder="encoding")


def test_with_a_library_both_estimates_count_alike_around_the_own_mean_picture(encoding: Run) -> None:
    recording, library = open_recording(encoding), read_library(encoding)
    train = recording.train.averaged()
    seen = training_pictures(recording.stimuli, train.stimulus, SIZE).thumbnails.flatten(1).numpy()
    mean, pixels = seen.mean(0), library.pixels(SIZE).reshape(len(library), -1)

    def likely(x: np.ndarray) -> np.ndarray:
        told = linear_estimate(encoding.aligner.predict(x)["embeds"], library.responses, pixels)
        return told - pixels.mean(0) + mean

    held_out = np.zeros_like(seen)
    for rows, out in grouped_folds(np.asarray(recording.stimuli.groups)[train.stimulus], 5, encoding.config.seed):
        held_out[out] = pixel_ridge(train.x[rows], seen[rows], train.x[out])
    held_out = (held_out + likely(train.x)) / 2
    gain = np.sqrt(np.mean((seen - mean) ** 2) / np.mean((held_out - mean) ** 2))
    x = recording.test.x
    plain = (pixel_ridge(train.x, seen, x) + likely(x)) / 2
    told = decoded_pixels(encoding, recording, x, library).reshape(6, -1)
    np.testing.assert_allclose(told, np.clip(mean + gain * (plain - mean), 0, 1), atol=1e-3)


def test_a_library_of_brighter_pictures_brightens_nothing(encoding: Run) -> None:
    recording, library = open_recording(encoding), read_library(encoding)

    class Brighter(Library):
        def pixels(self, size: int) -> np.ndarray:
            return super().pixels(size) + 0.3

    brighter = Brighter(library.run, library.sources, library.places, library.responses)
    told = decoded_pixels(encoding, recording, recording.test.x, brighter)
    np.testing.assert_allclose(told, decoded_pixels(encoding, recording, recording.test.x, library), atol=1e-4)


def test_how_much_detail_was_seen_is_told_from_signals(run: Run) -> None:
    """A channel that follows the fine power of the seen pictures tells that of others; rest tells the usual one."""
    recording = open_recording(run)
    pictures = [torch.from_numpy(recording.stimuli.load(i).copy()) for i in range(len(recording.stimuli))]
    small = torch.stack(pictures).permute(0, 3, 1, 2) / 255
    true = np.log(fine_power(torch.nn.functional.interpolate(small, (64, 64), mode="bilinear", antialias=True)))
    assert true.std() > 0.3

    def replaced(name: str) -> dict[str, object]:
        trials = getattr(recording, name)
        x = np.zeros_like(trials.x)
        x[:, :3] = np.random.default_rng(0).normal(size=(len(x), 3))
        x[:, 3] = true[trials.stimulus]
        return {name: dataclasses.replace(trials, x=x.astype(np.float32))}

    told_of = dataclasses.replace(recording, **replaced("train"), **replaced("test"))  # type: ignore[arg-type]
    told, seen = decoded_detail(told_of, told_of.test.x), true[recording.test.stimulus]
    assert np.corrcoef(told, seen)[0, 1] > 0.7
    rest = told_of.train.averaged().x.mean(0, keepdims=True)
    assert decoded_detail(told_of, rest)[0] == pytest.approx(true[np.unique(recording.train.stimulus)].mean(), abs=1e-3)


def power(pictures: torch.Tensor) -> np.ndarray:
    return np.log(fine_power(torch.nn.functional.interpolate(pictures, (64, 64), mode="bilinear", antialias=True)))


@pytest.mark.parametrize("size", [64, 128])
def test_detail_comes_to_the_told_amount_within_bounds(size: int) -> None:
    """Nearly: enlarged cells have a little power beyond 8 cycles themselves, which is left as it is."""
    rng = torch.Generator().manual_seed(0)
    pictures = enlarged(torch.rand(5, 3, 32, 32, generator=rng), size) * 0.2 + 0.4
    own = power(pictures)
    found = with_detail(pictures, own + np.array([0, -1, 1, -9, 9]))
    change = power(found) - own
    np.testing.assert_allclose(change[:3], [0, -1, 1], atol=0.2)
    quarter, double = 2 * np.log(0.25), 2 * np.log(2)
    assert quarter < change[3] < 0.6 * quarter and 0.9 * double < change[4] < double
    assert (coarse(found) - coarse(pictures)).abs().max() < 0.01


def test_a_flat_picture_stays_flat() -> None:
    flat = torch.full((1, 3, 64, 64), 0.3)
    torch.testing.assert_close(with_detail(flat, np.zeros(1)), flat, atol=1e-4, rtol=0)


def test_a_start_has_coarse_part_and_amount_of_detail_from_the_signals() -> None:
    rng = torch.Generator().manual_seed(2)
    sketched = 0.4 + 0.2 * enlarged(torch.rand(3, 3, 32, 32, generator=rng), 64)
    pixels = enlarged(0.4 + 0.2 * torch.rand(3, 3, 8, 8, generator=rng), 16)
    wanted = power(sketched) - np.array([0.3, 0.8, 1.3])
    found = started(pixels, sketched, wanted)
    np.testing.assert_allclose(power(found), wanted, atol=0.4)
    assert (coarse(found) - coarse(pixels)).abs().mean() < 0.2 * (coarse(sketched) - coarse(pixels)).abs().mean()
