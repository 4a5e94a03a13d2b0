"""Losses, learning rate and batches against other libraries and formulae."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_squared_error
from torch.nn import functional as F

from align.config import LossConfig
from align.errors import UserError
from align.losses import info_nce, token_regression, weighted_sum
from align.schedule import SCHEDULES, batch_rows, learning_rate, steps_per_epoch


@pytest.fixture
def embeds() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(8, 5), torch.randn(8, 5), torch.tensor(math.log(3.0))


@pytest.mark.parametrize("sides", [(True, True), (False, True), (True, False), (False, False)])
def test_info_nce_equals_open_clip(
    embeds: tuple[torch.Tensor, torch.Tensor, torch.Tensor], sides: tuple[bool, bool]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the other library's imports
        from open_clip.loss import ClipLoss
    brain, image, scale = embeds
    ours = info_nce(brain, image, scale, normalize_brain=sides[0], normalize_image=sides[1])
    brain, image = (F.normalize(e, dim=-1) if side else e for e, side in zip((brain, image), sides, strict=True))
    torch.testing.assert_close(ours, ClipLoss()(brain, image, torch.tensor(3.0)))


def test_the_default_normalises_the_image_side_alone(embeds: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    brain, image, scale = embeds
    torch.testing.assert_close(info_nce(brain, 7 * image, scale), info_nce(brain, image, scale))
    assert not torch.isclose(info_nce(7 * brain, image, scale), info_nce(brain, image, scale))
    assert (LossConfig().normalize_image, LossConfig().normalize_brain) == (True, False)


def test_rows_of_one_picture_share_the_answer(embeds: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    brain, image, scale = embeds
    stimulus = np.array([0, 1, 2, 0, 3, 4, 2, 0])
    same = torch.tensor(stimulus[:, None] == stimulus)
    smoothing = 0.1
    ours = info_nce(brain, image, scale, normalize_image=False, label_smoothing=smoothing, same=same)
    logits = 3.0 * brain.double().numpy() @ image.double().numpy().T
    directions = []
    for rows in (logits, logits.T):
        total = 0.0
        for i, row in enumerate(rows):
            log_p = row - np.log(np.exp(row).sum())
            answers = [j for j in range(8) if stimulus[j] == stimulus[i]]
            wanted = np.full(8, smoothing / 8)
            wanted[answers] += (1 - smoothing) / len(answers)
            total -= float(wanted @ log_p) / 8
        directions.append(total)
    assert float(ours) == pytest.approx(np.mean(directions), rel=1e-5)


def test_regression_and_the_weighted_sum() -> None:
    torch.manual_seed(0)
    estimate, target = torch.randn(6, 4), torch.randn(6, 4)
    value = token_regression(estimate, target)
    assert float(value) == pytest.approx(mean_squared_error(target.numpy(), estimate.numpy()), rel=1e-5)
    parts = {"contrastive": torch.tensor(2.0), "regression": torch.tensor(5.0)}
    assert float(weighted_sum(parts, LossConfig(contrastive=0.5, regression=3.0))) == 16.0


def _torch_schedule(name: str, total: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    lr_scheduler = torch.optim.lr_scheduler
    made = {
        "onecycle": lambda: lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=total, cycle_momentum=False),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, T_max=total),
        "constant": lambda: lr_scheduler.ConstantLR(optimizer, factor=1.0),
    }[name]()
    values = []
    for _ in range(total):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()
    return values


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("total", [7, 240])
def test_learning_rate_equals_torch(name: str, total: int) -> None:
    ours = [learning_rate(name, step, total) for step in range(total)]
    np.testing.assert_allclose(ours, _torch_schedule(name, total)[:total], atol=1e-9)


def test_short_runs_and_unknown_schedules() -> None:
    assert all(0 < learning_rate("onecycle", step, total) <= 1 for total in (1, 2, 3) for step in range(total))
    with pytest.raises(UserError, match=r"train\.schedule='sine'"):
        learning_rate("sine", 0, 1)


def test_every_epoch_holds_every_row_once_in_a_new_order() -> None:
    assert steps_per_epoch(800, 256) == 3 and steps_per_epoch(10, 256) == 1
    epochs = [np.concatenate([batch_rows(103, 25, 0, 4 * epoch + k) for k in range(4)]) for epoch in range(3)]
    assert all(sorted(rows) == list(range(103)) for rows in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    np.testing.assert_array_equal(epochs[2][:26], batch_rows(103, 25, 0, 8))
    assert not np.array_equal(batch_rows(103, 25, 1, 0), batch_rows(103, 25, 0, 0))
    assert max(len(batch_rows(103, 25, 0, k)) for k in range(4)) - 1 <= len(batch_rows(103, 25, 0, 3))
