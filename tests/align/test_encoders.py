"""Every encoder against an independent reference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import erf
from sklearn.linear_model import Ridge
from torch.nn import functional as F

from align.config import EncoderConfig
from align.encoders import ENCODERS, build_encoder
from align.encoders.ridge import RidgePath, fit_ridge, reciprocal_ranks
from align.errors import UserError


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def _check_mlp() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 3, 4)
    module = build_encoder((3, 4), EncoderConfig(name="mlp", width=6, blocks=2)).eval()
    _, first, block_1, block_2, norm = module
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    h = _numpy(x).reshape(5, 12) @ _numpy(first.weight).T + _numpy(first.bias)
    for block in (block_1, block_2):
        gelu = h * (1 + erf(h / np.sqrt(2))) / 2
        h = h + gelu @ _numpy(block.linear.weight).T + _numpy(block.linear.bias)
    h = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + norm.eps)
    np.testing.assert_allclose(_numpy(module(x)), h * _numpy(norm.weight) + _numpy(norm.bias), atol=1e-5)
    assert not torch.equal(module.train()(x), module(x)), "dropout is active in training"


def _check_tsconv() -> None:
    """The order of NICE: convolution in time, pooling, batch norm, ELU, convolution over channels, batch norm, ELU."""
    torch.manual_seed(0)
    x = torch.randn(2, 63, 250)
    module = build_encoder((63, 250), EncoderConfig(name="tsconv", width=8)).eval()
    for norm in module.norms:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    maps = F.conv2d(x[:, None], module.temporal.weight, module.temporal.bias)
    maps = F.elu(module.norms[0](F.avg_pool2d(maps, (1, 51), (1, 5))))
    maps = F.elu(module.norms[1](F.conv2d(maps, module.spatial.weight, module.spatial.bias)))
    flat = F.conv2d(maps, module.project.weight, module.project.bias).flatten(1)
    assert flat.shape == (2, 1440)  # the width that the paper states
    torch.testing.assert_close(module(x), module.head(flat), atol=1e-4, rtol=1e-4)


def _check_ridge() -> None:
    module = build_encoder((3, 4), EncoderConfig(name="ridge", width=5))
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(module(x), x.reshape(2, 12) @ module[1].weight.T + module[1].bias)
    rng = np.random.default_rng(0)
    for width in (7, 60):  # more rows than dimensions, and fewer
        x, y = rng.normal(size=(40, width)) + 3, rng.normal(size=(40, 4)) - 2
        for alpha in (0.5, 30.0):
            reference = Ridge(alpha=alpha).fit(x, y)
            path = RidgePath(torch.tensor(x), torch.tensor(y))
            weight, bias = path.solve(alpha)
            np.testing.assert_allclose(weight, reference.coef_, atol=1e-8)
            np.testing.assert_allclose(bias, reference.intercept_, atol=1e-8)
            np.testing.assert_allclose(path.predict(torch.tensor(x), [alpha])[0], reference.predict(x), atol=1e-8)


CHECKS: dict[str, Callable[[], None]] = {"mlp": _check_mlp, "tsconv": _check_tsconv, "ridge": _check_ridge}


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_encoder_equals_its_reference(name: str) -> None:
    CHECKS[name]()


def test_reciprocal_ranks_by_sorting() -> None:
    rng = np.random.default_rng(1)
    estimate, target = rng.normal(size=(9, 4)), rng.normal(size=(9, 4))
    cosine = (estimate / np.linalg.norm(estimate, axis=1)[:, None]) @ (target.T / np.linalg.norm(target, axis=1))
    expected = [1 / (1 + list(np.argsort(-row)).index(i)) for i, row in enumerate(cosine)]
    np.testing.assert_allclose(reciprocal_ranks(torch.tensor(estimate), torch.tensor(target)), expected)


def test_ridge_penalty_is_the_best_of_brute_force_folds() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(60, 30))
    y = x @ rng.normal(size=(30, 5)) + 4 * rng.normal(size=(60, 5))
    folds = [(np.flatnonzero(np.arange(60) % 3 != k), np.flatnonzero(np.arange(60) % 3 == k)) for k in range(3)]
    alphas = [0.1, 10.0, 1000.0]
    found = fit_ridge(torch.tensor(x), torch.tensor(y), alphas, folds)
    for alpha in alphas:
        ranks = []
        for rows, held_out in folds:
            estimate = Ridge(alpha=alpha).fit(x[rows], y[rows]).predict(x[held_out])
            ranks += reciprocal_ranks(torch.tensor(estimate), torch.tensor(y[held_out])).tolist()
            if alpha == found.alpha:
                np.testing.assert_allclose(found.held_out[held_out], estimate, atol=1e-5)
        assert found.scores[alpha] == pytest.approx(np.mean(ranks))
    assert found.scores[found.alpha] == max(found.scores.values())
    np.testing.assert_allclose(found.weight, Ridge(alpha=found.alpha).fit(x, y).coef_, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "config", "message"),
    [
        ((67,), EncoderConfig(name="tsconvv"), "did you mean 'tsconv'"),
        ((67,), EncoderConfig(name="tsconv"), r"\(C, T\)"),
        ((63, 74), EncoderConfig(name="tsconv"), "at least 75 samples"),
    ],
)
def test_what_an_encoder_cannot_read_is_refused(shape: tuple[int, ...], config: EncoderConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_encoder(shape, config)


def test_the_shortest_window_of_tsconv() -> None:
    assert build_encoder((63, 75), EncoderConfig(name="tsconv", width=8)).eval()(torch.zeros(2, 63, 75)).shape == (2, 8)
