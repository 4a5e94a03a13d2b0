"""What is told from signals: the coarse picture, and how much fine detail it had."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from align.checkpoint import Run
from align.data.signals import Recording
from align.data.splits import grouped_folds
from recon.decoding.library import Library, read_library
from recon.decoding.low_level import SIZE, LowLevel, calibrated, read_values
from recon.decoding.predict import open_recording, signals_at_rest
from recon.evaluation.controls import training_pictures
from recon.metrics.fine_power import fine_power
from tests.recon.tiny_run import make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    return {name: make_run(tmp_path_factory.mktemp(name), n_test=6, encoder=name) for name in ("ridge", "encoding")}


def fitted(run: Run, recording: Recording | None = None) -> LowLevel:
    library = read_library(run) if run.config.encoder.name == "encoding" else None
    return LowLevel.fit(run, recording or open_recording(run), library)


def ridge() -> Pipeline:
    return make_pipeline(StandardScaler(), Ridge(alpha=100))


def seen_pictures(recording: Recording, split: str = "train") -> np.ndarray:
    rows = np.unique(getattr(recording, split).stimulus)
    return training_pictures(recording.stimuli, rows, SIZE).thumbnails.flatten(1).numpy()


def held_out(run: Run, recording: Recording, values: np.ndarray) -> np.ndarray:
    """Five grouped folds of training rows, written out."""
    train, told = recording.train.averaged(), np.zeros_like(values)
    for rows, out in grouped_folds(np.asarray(recording.stimuli.groups)[train.stimulus], 5, run.config.seed):
        told[out] = ridge().fit(train.x[rows], values[rows]).predict(train.x[out])
    return told


@pytest.mark.parametrize("encoder", ["ridge", "encoding"])
def test_a_brain_at_rest_tells_the_mean_picture_and_the_usual_detail(runs: dict[str, Run], encoder: str) -> None:
    run = runs[encoder]
    recording, low = open_recording(run), fitted(run)
    pixels, detail = low(signals_at_rest(run))
    assert pixels.shape == (1, 3, SIZE, SIZE) and pixels.dtype == np.float32 and detail.shape == (1,)
    np.testing.assert_allclose(pixels[0].ravel(), seen_pictures(recording).mean(0), atol=1e-3)
    assert detail[0] == pytest.approx(low.power + low.spread / 2, abs=1e-3)


@pytest.mark.parametrize("encoder", ["ridge", "encoding"])
def test_it_tells_the_seen_picture_with_the_contrast_of_pictures(runs: dict[str, Run], encoder: str) -> None:
    recording = open_recording(runs[encoder])
    told = fitted(runs[encoder])(recording.test.x)[0].reshape(6, -1)
    assert told.min() >= 0 and told.max() <= 1
    true, mean = seen_pictures(recording, "test"), seen_pictures(recording).mean(0)
    r = np.corrcoef(told, true)[:6, 6:]
    assert np.diag(r).mean() > r[~np.eye(6, dtype=bool)].mean() + 0.15
    assert 0.5 < (told - mean).std() / (true - mean).std() < 1.5


@pytest.mark.parametrize("encoder", ["ridge", "encoding"])
def test_every_row_is_told_by_itself_and_no_test_picture_is_read(runs: dict[str, Run], encoder: str) -> None:
    recording = open_recording(runs[encoder])
    stimuli, test = recording.stimuli, set(recording.test.stimulus.tolist())

    def load(i: int) -> np.ndarray:
        assert i not in test
        return stimuli.load(i)

    guarded = dataclasses.replace(recording, stimuli=dataclasses.replace(stimuli, load=load))
    together, alone = fitted(runs[encoder])(recording.test.x), fitted(runs[encoder], guarded)(recording.test.x[:1])
    for one, all_rows in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, all_rows[:1], atol=1e-5)


def test_contrast_is_enlarged_by_what_held_out_training_pictures_lack(runs: dict[str, Run]) -> None:
    recording = open_recording(runs["ridge"])
    train, seen = recording.train.averaged(), seen_pictures(recording)
    mean, told = seen.mean(0), held_out(runs["ridge"], recording, seen)
    gain = np.sqrt(np.mean((seen - mean) ** 2) / np.mean((told - mean) ** 2))
    assert gain > 1.05
    plain = ridge().fit(train.x, seen).predict(recording.test.x)
    expected = np.clip(mean + gain * (plain - mean), 0, 1)
    np.testing.assert_allclose(fitted(runs["ridge"])(recording.test.x)[0].reshape(6, -1), expected, atol=2e-3)
    assert np.abs(np.clip(plain, 0, 1) - expected).max() > 0.03


def test_with_a_library_both_estimates_count_alike(runs: dict[str, Run]) -> None:
    run = runs["encoding"]
    recording, library = open_recording(run), read_library(run)
    train, seen = recording.train.averaged(), seen_pictures(recording)
    responses = library.responses.astype(np.float64) - library.responses.mean(0)
    pixels = library.pixels(SIZE).reshape(len(library), -1)
    # regression on predicted responses to which noise of unit covariance is added
    weights = np.linalg.inv(responses.T @ responses + len(library) * np.eye(responses.shape[1])) @ responses.T @ pixels

    def likely(x: np.ndarray) -> np.ndarray:
        embeds, own = (run.aligner.predict(rows)["embeds"] for rows in (x, train.x))
        return seen.mean(0) + (embeds - own.mean(0)) @ weights

    told = (held_out(run, recording, seen) + likely(train.x)) / 2
    gain = np.sqrt(np.mean((seen - seen.mean(0)) ** 2) / np.mean((told - seen.mean(0)) ** 2))
    plain = (ridge().fit(train.x, seen).predict(recording.test.x) + likely(recording.test.x)) / 2
    expected = np.clip(seen.mean(0) + gain * (plain - seen.mean(0)), 0, 1)
    np.testing.assert_allclose(fitted(run)(recording.test.x)[0].reshape(6, -1), expected, atol=2e-3)


def test_a_library_of_brighter_pictures_brightens_nothing(runs: dict[str, Run]) -> None:
    run = runs["encoding"]
    recording, library = open_recording(run), read_library(run)

    class Brighter(Library):
        def pixels(self, size: int) -> np.ndarray:
            return super().pixels(size) + 0.3

    brighter = Brighter(run, library.sources, library.places, library.responses + 0.5)
    told = LowLevel.fit(run, recording, brighter)(recording.test.x)[0]
    np.testing.assert_allclose(told, fitted(run)(recording.test.x)[0], atol=1e-4)


def log_power(recording: Recording) -> np.ndarray:
    """Of all stimuli, at 64 px."""
    stimuli = recording.stimuli
    pictures = torch.stack([torch.from_numpy(stimuli.load(i).copy()) for i in range(len(stimuli))])
    small = pictures.permute(0, 3, 1, 2) / 255
    return np.log(fine_power(torch.nn.functional.interpolate(small, (64, 64), mode="bilinear", antialias=True)))


def with_signals(recording: Recording, follow: np.ndarray | None, channels: int = 12) -> Recording:
    """Noisy channels, of which one may follow a value of the seen stimulus."""

    def replaced(name: str) -> Any:
        trials = getattr(recording, name)
        x = np.random.default_rng(len(trials)).normal(size=(len(trials), channels))
        if follow is not None:
            x[:, 3] = 8 * follow[trials.stimulus]
        return dataclasses.replace(trials, x=x.astype(np.float32))

    return dataclasses.replace(recording, train=replaced("train"), test=replaced("test"))


def test_how_much_detail_was_seen_is_told_where_the_signals_say_so(runs: dict[str, Run]) -> None:
    recording = open_recording(runs["ridge"])
    true = log_power(recording)
    low = fitted(runs["ridge"], clear := with_signals(recording, true))
    told, seen = low(clear.test.x)[1], true[clear.test.stimulus]
    assert np.corrcoef(told, seen)[0, 1] > 0.7 and low.slope > 0.8


def test_the_amount_to_expect_is_calibrated_on_held_out_rows(runs: dict[str, Run]) -> None:
    run = runs["ridge"]
    recording = with_signals(open_recording(run), log_power(open_recording(run)), 400)
    train, low = recording.train.averaged(), fitted(run, recording)
    seen = log_power(recording)[train.stimulus]
    told = held_out(run, recording, seen) - seen.mean()
    slope = np.clip((told @ (seen - seen.mean())) / (told @ told), 0, 1)
    left = seen - seen.mean() - slope * told
    plain = ridge().fit(train.x, seen).predict(recording.test.x)
    expected = seen.mean() + slope * (plain - seen.mean()) + left.var() / 2
    np.testing.assert_allclose(low(recording.test.x)[1], expected, atol=1e-3)
    assert left.var() / 2 > 0.01


def test_deviations_count_as_far_as_they_hold(runs: dict[str, Run]) -> None:
    x, low = open_recording(runs["ridge"]).test.x, fitted(runs["ridge"])
    whole, half = (dataclasses.replace(low, slope=slope, spread=0.0)(x)[1] - low.power for slope in (1.0, 0.5))
    assert np.ptp(whole) > 0.05
    np.testing.assert_allclose(half, whole / 2, atol=1e-9)


def test_what_is_told_too_strongly_is_held_back() -> None:
    seen = np.random.default_rng(0).normal(2, 1, size=2000)
    mean = seen.mean()
    noise = np.random.default_rng(1).normal(size=2000)
    for told, slope, spread in (
        (mean + 2 * (seen - mean), 0.5, 0.0),
        (mean + (seen - mean) / 2, 1.0, 0.25),
        (mean - (seen - mean), 0.0, 1.0),
        (seen + noise, 0.5, 0.5),
    ):
        np.testing.assert_allclose(calibrated(told, seen), (mean, slope, spread), atol=0.06)


def test_values_of_pictures_are_small_pixels_and_log_power(runs: dict[str, Run]) -> None:
    recording = open_recording(runs["ridge"])
    rows = np.unique(recording.train.stimulus)
    values = read_values(recording.stimuli, rows)
    np.testing.assert_allclose(values[:, :-1], seen_pictures(recording), atol=1e-6)
    np.testing.assert_allclose(values[:, -1], log_power(recording)[rows], atol=1e-3)
