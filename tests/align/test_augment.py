"""Augmentations of signals against scipy and plain loops; what they draw, and from where."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter1d

from align.config import Config, TrainConfig, load_config
from align.errors import UserError
from align.training.augment import (
    augmented,
    check_augmentation,
    mixed,
    mixture,
    partners,
    repetitions,
    smoothed,
    without_channels,
)
from align.training.batches import Pairs


def test_smoothing_is_a_moving_mean_of_the_drawn_trials() -> None:
    torch.manual_seed(0)
    x = torch.randn(400, 3, 20)
    out = smoothed(x, 5, 0.3)
    moving = uniform_filter1d(x.numpy(), 5, axis=2, mode="nearest")
    drawn = ~(out == x).all(dim=(1, 2)).numpy()
    np.testing.assert_allclose(out.numpy()[drawn], moving[drawn], atol=1e-5)
    assert 0.3 * 400 - 40 < drawn.sum() < 0.3 * 400 + 40  # four standard deviations
    np.testing.assert_allclose(smoothed(x, 5, 1.0), moving, atol=1e-5)
    assert torch.equal(smoothed(x, 5, 0.0), x)


@pytest.mark.parametrize("shape", [(500, 12), (500, 12, 7)])
def test_lost_channels_are_zero_throughout_and_the_mean_stays(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    out = without_channels(torch.full(shape, 3.0), 0.25).view(500, 12, -1)
    lost = out[..., 0] == 0
    assert torch.equal(out, torch.where(lost, 0.0, 4.0)[..., None].expand_as(out))
    assert float(lost.float().mean()) == pytest.approx(0.25, abs=0.025)
    assert float(out.mean()) == pytest.approx(3.0, abs=0.1)
    assert len(lost.float().mean(1).unique()) > 2  # every trial loses its own


def test_partners_stay_inside_their_subject() -> None:
    torch.manual_seed(0)
    subject = torch.tensor([2, 0, 0, 2, 1, 0, 2, 1, 1, 0, 2, 2])
    seen = set()
    for _ in range(50):
        partner = partners(subject, 12, subject.device)
        assert torch.equal(subject[partner], subject)
        assert sorted(partner.tolist()) == list(range(12))
        seen.add(tuple(partner.tolist()))
    assert len(seen) > 40
    alone = {tuple(partners(None, 4, subject.device).tolist()) for _ in range(200)}
    assert len(alone) == 24  # without subjects every permutation comes


def test_a_mixture_has_the_published_shares() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    count = 2000
    partner = torch.arange(count).roll(1)
    matrix = mixture(TrainConfig(mixco=0.15, mixco_share=0.5), partner)
    own, other = matrix.diagonal(), matrix[torch.arange(count), partner]
    torch.testing.assert_close(own + other, torch.ones(count))
    torch.testing.assert_close(matrix.sum(), torch.tensor(float(count)))
    drawn = own[other > 0]
    assert float((other > 0).float().mean()) == pytest.approx(0.5, abs=0.05)
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.06)
    assert float(drawn.var()) == pytest.approx(0.25 / 1.3, abs=0.02)  # of Beta(a, a): 1 / (4 (2a + 1))
    assert len(own.unique()) > 500  # a share for every row
    x = torch.randn(count, 2, 3)
    torch.testing.assert_close(mixed(matrix, x)[5], own[5] * x[5] + other[5] * x[4])
    still = mixture(TrainConfig(mixco=0.15, mixco_share=1.0), torch.arange(4))  # every row its own partner
    torch.testing.assert_close(still, torch.eye(4))


def test_repetitions_are_of_the_same_picture_and_subject_and_none_comes_twice() -> None:
    rng = np.random.default_rng(0)
    unit = rng.integers(0, 12, 90)
    unit[7] = 99  # a picture shown once
    rows = np.concatenate([np.arange(90)] * 40)
    drawn = repetitions(unit, rows, 3, seed=5)
    counts = []
    for row, part in zip(rows, drawn, strict=True):
        assert part[0] == row and len(set(part)) == len(part) <= 3
        assert (unit[part] == unit[row]).all()
        counts.append(len(part) if row != 7 else 0)
    assert {len(part) for row, part in zip(rows, drawn, strict=True) if row == 7} == {1}
    shares = np.bincount(counts)[1:] / np.count_nonzero(counts)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.04)
    assert len({part[1] for row, part in zip(rows, drawn, strict=True) if row == 0 and len(part) > 1}) > 3
    again, other = repetitions(unit, rows, 3, seed=5), repetitions(unit, rows, 3, seed=6)
    assert all(map(np.array_equal, drawn, again)) and not all(map(np.array_equal, drawn, other))


def test_a_batch_averages_repetitions_of_one_subject() -> None:
    x = torch.randn(12, 2, 3, generator=torch.Generator().manual_seed(0))
    stimulus, subject = torch.tensor([0, 1, 2] * 4), torch.tensor([0] * 6 + [1] * 6)
    pairs = Pairs(x, torch.eye(3), stimulus, subject=subject)
    plain = pairs.batch(np.array([4, 0, 9]))
    assert torch.equal(plain.signals, x[[4, 0, 9]]) and plain.subject is not None
    assert plain.subject.tolist() == [0, 0, 1] and plain.stimulus.tolist() == [1, 0, 0]
    means, singles = set(), 0
    for seed in range(60):
        batch = pairs.batch(np.array([4, 0]), 2, seed)
        for got, (row, twin) in zip(batch.signals, ((4, 1), (0, 3)), strict=True):
            alone, both = torch.equal(got, x[row]), torch.allclose(got, (x[row] + x[twin]) / 2)
            assert alone or both
            singles += alone
            means.add((row, alone))
    assert means == {(4, True), (4, False), (0, True), (0, False)} and 30 < singles < 90
    part = pairs.subset(np.array([1, 7, 4, 10]))  # the numbers are those of the part
    assert part.subject is not None and part.subject.tolist() == [0, 1, 0, 1]
    both = [part.batch(np.array([0]), 2, seed).signals[0] for seed in range(20)]
    assert any(torch.allclose(got, (x[1] + x[4]) / 2) for got in both)
    assert not any(torch.allclose(got, (x[1] + x[7]) / 2) for got in both)


def test_nothing_is_drawn_by_default_but_the_noise() -> None:
    x = torch.ones(3, 4, 5)
    torch.manual_seed(1)
    out = augmented(x, TrainConfig(noise=0.5))
    torch.manual_seed(1)
    assert torch.equal(out, x + 0.5 * torch.randn(3, 4, 5))
    assert augmented(x, TrainConfig(noise=0)) is x
    assert not TrainConfig().reads_channels and TrainConfig(smooth=0.1).reads_channels


WRONG = [
    (["train.smooth=1.5"], (4, 9), r"train\.smooth=1\.5 should be 0 or more and at most 1"),
    (["train.smooth=0.3"], (9,), r"train\.smooth is along time.*\(9,\)"),
    (["train.smooth=0.3", "train.smooth_kernel=4"], (4, 9), r"train\.smooth_kernel=4 should be odd"),
    (["train.channel_dropout=1"], (9,), r"train\.channel_dropout=1 should"),
    (["train.channel_dropout=0.1", "encoder.components=5"], (9,), r"leave encoder\.components out"),
    (["train.channel_dropout=0.1", "encoder.name=ridge"], (9,), r"'ridge' is solved without batches"),
    (["train.mixup=0.2", "train.mixco=0.2"], (9,), r"train\.mixup and train\.mixco"),
    (["train.mixco=0.2", "loss.contrastive=0"], (9,), r"use train\.mixup"),
    (["train.mixco=-1"], (9,), r"train\.mixco=-1 should be 0 or more"),
    (["train.average_up_to=0"], (9,), r"train\.average_up_to=0"),
    (["train.average_up_to=3"], (9,), r"train\.average_repetitions=false"),
]


@pytest.mark.parametrize(("overrides", "shape", "message"), WRONG)
def test_wrong_augmentations_are_refused_in_one_line(
    overrides: list[str], shape: tuple[int, ...], message: str
) -> None:
    check_augmentation(Config(), shape)
    with pytest.raises(UserError, match=message):
        check_augmentation(load_config(Config, None, overrides), shape)
