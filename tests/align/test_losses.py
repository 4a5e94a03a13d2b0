"""Losses, learning rate and batches against other libraries and formulae."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_squared_error
from sklearn.metrics.pairwise import cosine_similarity, rbf_kernel
from torch.nn import functional as F

from align.config import LossConfig
from align.errors import UserError
from align.model.losses import (
    info_nce,
    mmd,
    part_names,
    siglip,
    soft_answers,
    soft_shares,
    token_regression,
    weighted_sum,
)
from align.training.schedule import SCHEDULES, batch_rows, learning_rate, steps_per_epoch


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


def test_siglip_equals_open_clip(embeds: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the other library's imports
        from open_clip.loss import SigLipLoss
    brain, image, _ = embeds
    scale, bias = torch.tensor(3.0), torch.tensor(-2.0)
    expected = SigLipLoss()(brain, image, scale, bias)
    torch.testing.assert_close(siglip(scale * brain @ image.T + bias, torch.eye(8)), expected)


def test_siglip_of_repeated_pictures_by_hand() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 5))
    stimulus = [0, 1, 0, 2, 1]
    total = 0.0
    for i in range(5):
        for j in range(5):
            sign = 1 if stimulus[i] == stimulus[j] else -1
            total += math.log1p(math.exp(-sign * logits[i, j]))
    answers = torch.tensor([[float(a == b) for b in stimulus] for a in stimulus], dtype=torch.float64)
    assert float(siglip(torch.tensor(logits), answers)) == pytest.approx(total / 5)


def test_soft_shares_follow_the_cosine_of_pictures() -> None:
    features = np.random.default_rng(1).normal(size=(6, 4))
    features[3] = 2.5 * features[0]  # the same direction: the same picture, as far as the cosine can tell
    power = np.exp(cosine_similarity(features) / 0.2)
    shares = soft_shares(torch.tensor(features), 0.2)
    np.testing.assert_allclose(shares, power / power.sum(1, keepdims=True), rtol=1e-6)
    assert float(shares[0, 3]) == pytest.approx(float(shares[0, 0]))
    cold = soft_shares(torch.tensor(np.delete(features, 3, axis=0)), 0.005)
    np.testing.assert_allclose(cold, np.eye(5), atol=1e-6)


def test_bimixco_is_the_published_double_sum(embeds: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    brain, image, scale = embeds
    partner, share = [3, 1, 0, 4, 2, 7, 5, 6], [0.9, 1.0, 0.6, 0.75, 0.5, 0.8, 1.0, 0.55]
    matrix = torch.zeros(8, 8)
    for i in range(8):
        matrix[i, i] += share[i]
        matrix[i, partner[i]] += 1 - share[i]
    ours = info_nce(brain, image, scale, normalize_image=False, wanted=soft_answers(torch.eye(8), matrix))
    logits = 3.0 * brain.double().numpy() @ image.double().numpy().T
    to_image = logits - np.log(np.exp(logits).sum(1, keepdims=True))  # [signal, picture]
    to_brain = (logits - np.log(np.exp(logits).sum(0))).T  # [picture, signal]
    total = 0.0
    for i in range(8):
        total -= share[i] * to_image[i, i] + (1 - share[i]) * to_image[i, partner[i]]
    for j in range(8):
        total -= share[j] * to_brain[j, j]
        total -= sum((1 - share[i]) * to_brain[j, i] for i in range(8) if partner[i] == j)
    assert float(ours) == pytest.approx(total / 16, rel=1e-5)


def test_mmd_is_the_difference_of_kernel_means() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 3)), 0.5 + rng.normal(size=(7, 3))
    joint = np.concatenate([a, b])
    middle = np.mean([((p - q) ** 2).sum() for i, p in enumerate(joint) for j, q in enumerate(joint) if i != j])
    expected = 0.0
    for factor in (0.25, 0.5, 1, 2, 4):
        kernels = [rbf_kernel(x, y, gamma=1 / (factor * middle)).mean() for x, y in ((a, a), (b, b), (a, b))]
        expected += (kernels[0] + kernels[1] - 2 * kernels[2]) / 5
    assert float(mmd(torch.tensor(a), torch.tensor(b))) == pytest.approx(expected, rel=1e-6)
    assert float(mmd(torch.tensor(a), torch.tensor(a)[[3, 1, 2, 0, 6, 5, 4]])) == pytest.approx(0, abs=1e-12)


def test_mmd_pulls_the_sets_together_and_survives_equal_embeds() -> None:
    torch.manual_seed(0)
    brain, image = torch.randn(20, 4, requires_grad=True), 2 + torch.randn(20, 4)
    before = mmd(brain, image)
    before.backward()
    assert brain.grad is not None
    assert float(mmd(brain.detach() - 5 * brain.grad, image)) < float(before.detach())
    flat = torch.ones(4, 3, requires_grad=True)
    mmd(flat, torch.ones(4, 3)).backward()
    assert flat.grad is not None and torch.isfinite(flat.grad).all()


def test_the_weight_of_mmd_goes_to_its_end_in_a_line() -> None:
    config = LossConfig(contrastive=0.5, regression=0.0, mmd=0.9, mmd_end=0.5)
    assert part_names(config) == ["contrastive", "mmd"]
    parts = {"contrastive": torch.tensor(2.0), "mmd": torch.tensor(10.0)}
    sums = [float(weighted_sum(parts, config, done)) for done in (0.0, 0.25, 1.0)]
    assert sums == pytest.approx([10.0, 9.0, 6.0])
    assert float(weighted_sum(parts, LossConfig(contrastive=0.5, mmd=0.9), 1.0)) == pytest.approx(10.0)


WRONG: list[tuple[dict[str, float | str], str]] = [
    ({"kind": "clip"}, r"loss\.kind='clip'.*infonce, siglip, softclip"),
    ({"regression_kind": "mae"}, r"loss\.regression_kind='mae'.*mse, cosine"),
    ({"soft_temperature": 0.0}, r"loss\.soft_temperature=0 should be above 0"),
    ({"mmd": -1.0}, r"loss\.mmd=-1 should be 0 or more"),
    ({"mmd": 1.0, "contrastive": 0.0}, r"loss\.contrastive=0"),
    ({"mmd_end": 1.0}, r"set loss\.mmd above 0"),
    ({"kind": "siglip", "label_smoothing": 0.1}, r"loss\.label_smoothing"),
]


@pytest.mark.parametrize(("values", "message"), WRONG)
def test_wrong_losses_are_refused_in_one_line(values: dict[str, float | str], message: str) -> None:
    LossConfig().check("loss.")
    with pytest.raises(UserError, match=message):
        LossConfig(**values).check("loss.")  # type: ignore[arg-type]


def test_regression_and_the_weighted_sum() -> None:
    torch.manual_seed(0)
    estimate, target = torch.randn(6, 4), torch.randn(6, 4)
    value = token_regression(estimate, target)
    assert float(value) == pytest.approx(mean_squared_error(target.numpy(), estimate.numpy()), rel=1e-5)
    turned = 1 - np.diag(cosine_similarity(estimate.numpy(), target.numpy())).mean()
    assert float(token_regression(estimate, target, "cosine")) == pytest.approx(turned, rel=1e-5)
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


def test_short_runs() -> None:
    assert all(0 < learning_rate("onecycle", step, total) <= 1 for total in (1, 2, 3) for step in range(total))


def test_every_epoch_holds_every_row_once_in_a_new_order() -> None:
    assert steps_per_epoch(800, 256) == 3 and steps_per_epoch(10, 256) == 1
    epochs = [np.concatenate([batch_rows(103, 25, 0, 4 * epoch + k) for k in range(4)]) for epoch in range(3)]
    assert all(sorted(rows) == list(range(103)) for rows in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    np.testing.assert_array_equal(epochs[2][:26], batch_rows(103, 25, 0, 8))
    assert not np.array_equal(batch_rows(103, 25, 1, 0), batch_rows(103, 25, 0, 0))
    assert max(len(batch_rows(103, 25, 0, k)) for k in range(4)) - 1 <= len(batch_rows(103, 25, 0, 3))
