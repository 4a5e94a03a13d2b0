"""Every encoder against an independent reference, and one walk of all encoders over all kinds of trials."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import erf
from sklearn.linear_model import Ridge
from torch import nn
from torch.nn import functional as F

from align.config import EncoderConfig
from align.encoders import ANY_SHAPE, CLOSED_FORM, ENCODERS, LINEAR_FIRST, build_encoder
from align.encoders.braindecode_nets import NETS
from align.encoders.pretrained import PRETRAINED
from align.encoders.ridge import RidgePath, fit_ridge, reciprocal_ranks
from align.encoders.shapes import SignalFacts
from tests.one_line import fails

BRAINDECODE = (*NETS, *PRETRAINED)
ELECTRODES = ("P7", "Pz", "P8", "O1", "Oz", "O2")
TINY: dict[str, list[str]] = {  # options that keep the big ones small
    "conformer": ["num_layers=2", "num_heads=4", "n_filters_time=8", "att_drop_prob=0.0"],
    "labram": ["num_layers=2", "num_heads=2"],
    "cbramod": ["n_layer=2", "nhead=4", "dim_feedforward=32"],
    "reve": ["depth=2", "heads=2", "head_dim=8", "embed_dim=32", "freqs=2"],
}


def needs_library(name: str) -> None:
    """Skip where an encoder's library is not installed."""
    if name in BRAINDECODE and find_spec("braindecode") is None:
        pytest.skip("needs braindecode: pip install '.[encoders]'")


def small(name: str, **changes: Any) -> EncoderConfig:
    return EncoderConfig(**{"name": name, "width": 8, "options": TINY.get(name, []), **changes})


def make(name: str, shape: tuple[int, ...], **changes: Any) -> nn.Module:
    needs_library(name)
    torch.manual_seed(0)
    return build_encoder(shape, small(name, **changes), SignalFacts(200.0, ELECTRODES), load=False)


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def _count(module: nn.Module, but: str = "") -> int:
    return sum(value.numel() for name, value in module.named_parameters() if not but or but not in name)


def _random_norms(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)


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


def _check_residual_mlp() -> None:
    """Layer by layer; and MindEye's own count: 940 M with its last layer to 257 tokens of 768, for 15,724 voxels."""
    module = make("residual_mlp", (3, 4), blocks=2, dropout=0.5, block_dropout=0.15).eval()
    x = torch.randn(5, 3, 4)
    parts = [module[1], *(block.layers for block in module[2:])]
    assert [part[3].p for part in parts] == [0.5, 0.15, 0.15]
    h = x.reshape(5, 12)
    for i, (linear, norm, _, _) in enumerate(parts):
        nn.init.normal_(norm.weight)
        new = h @ linear.weight.T + linear.bias
        new = (new - new.mean(1, keepdim=True)) / (new.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
        new = F.gelu(new * norm.weight + norm.bias)
        h = new if i == 0 else h + new
    torch.testing.assert_close(module(x), h, atol=1e-5, rtol=1e-5)
    with torch.device("meta"):
        published = build_encoder((15724,), EncoderConfig(name="residual_mlp", width=4096, blocks=4))
        last = nn.Linear(4096, 257 * 768)
    assert round((_count(published) + _count(last)) / 1e6) == 940


def _check_skip_mlp() -> None:
    """Gong et al. 2025: the output of the first layer and of each block gains GELU(B A v) of the trial v itself."""
    module = make("skip_mlp", (3, 4), blocks=2, skip_rank=2).eval()
    plain = build_encoder((3, 4), small("mlp", blocks=2)).eval()
    plain.load_state_dict(module.plain.state_dict())
    x = torch.randn(5, 3, 4)
    assert torch.equal(module(x), plain(x)), "nothing is added at the start"
    for skip in module.skips:
        assert float(skip.writes.weight.detach().std()) == pytest.approx(0.01, rel=0.6)
        nn.init.normal_(skip.reads.weight)
        nn.init.normal_(skip.writes.weight)
    v, (_, first, *blocks, norm) = x.reshape(5, 12), module.plain
    added = [F.gelu(v @ skip.reads.weight.T @ skip.writes.weight.T) for skip in module.skips]
    h = v @ first.weight.T + first.bias + added[0]
    for block, more in zip(blocks, added[1:], strict=True):
        h = h + F.gelu(h) @ block.linear.weight.T + block.linear.bias + more
    torch.testing.assert_close(module(x), F.layer_norm(h, (8,), norm.weight, norm.bias), atol=1e-5, rtol=1e-5)


def _check_mindbridge() -> None:
    """Wang et al. 2024: maxima of neighbours, adapter, Linear-LayerNorm-GELU-Dropout, residual blocks; order counts."""
    module = make("mindbridge", (3, 4), blocks=2, pooled=5, adapter=3, dropout=0.5).eval()
    _, (_, embedder), *blocks = module
    adapter, linear, norm, _, dropout = embedder
    assert (dropout.p, [block.layers[3].p for block in blocks]) == (0.5, [0.15, 0.15])
    x = torch.randn(5, 3, 4)
    v = x.reshape(5, 12)
    ends = [(12 * i // 5, -(-12 * (i + 1) // 5)) for i in range(5)]
    v = torch.stack([v[:, start:stop].max(1).values for start, stop in ends], 1)
    v = v + adapter.up(F.gelu(adapter.down(v)))
    h = F.gelu(F.layer_norm(linear(v), (8,), norm.weight, norm.bias))
    for block in blocks:
        part, normed, *_ = block.layers
        h = h + F.gelu(F.layer_norm(part(h), (8,), normed.weight, normed.bias))
    torch.testing.assert_close(module(x), h, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(module(x.flip(2)), h, atol=1e-3), "the order of the values is part of the model"
    assert make("mindbridge", (3, 4))[1][0].size == 12


def _check_sttm() -> None:
    """A residual adapter of the trial, then the layers of `mlp`."""
    module = make("sttm", (3, 4), blocks=2, adapter=3).eval()
    _, (adapter, first), block_1, block_2, norm = module
    x = torch.randn(5, 3, 4)
    v = x.reshape(5, 12)
    h = first(v + F.gelu(v @ adapter.down.weight.T + adapter.down.bias) @ adapter.up.weight.T + adapter.up.bias)
    for block in (block_1, block_2):
        h = h + block.linear(F.gelu(h))
    torch.testing.assert_close(module(x), norm(h), atol=1e-5, rtol=1e-5)


def _check_tsconv() -> None:
    """The order of NICE: convolution in time, pooling, batch norm, ELU, convolution over channels, batch norm, ELU."""
    torch.manual_seed(0)
    x = torch.randn(2, 63, 250)
    module = build_encoder((63, 250), EncoderConfig(name="tsconv", width=768, dropout=0.5)).eval()
    _random_norms(module)
    maps = F.conv2d(x[:, None], module.temporal.weight, module.temporal.bias)
    maps = F.elu(module.norms[0](F.avg_pool2d(maps, (1, 51), (1, 5))))
    maps = F.elu(module.norms[1](F.conv2d(maps, module.spatial.weight, module.spatial.bias)))
    flat = F.conv2d(maps, module.project.weight, module.project.bias).flatten(1)
    assert flat.shape == (2, 1440)  # the width that the paper states
    first, block, norm = module.head
    assert (first.out_features, block.linear.out_features, norm.normalized_shape) == (768, 768, (768,))
    assert [part.p for part in module.modules() if isinstance(part, nn.Dropout)] == [0.5, 0.5]
    h = F.linear(flat, first.weight, first.bias)
    h = h + F.linear(F.gelu(h), block.linear.weight, block.linear.bias)
    torch.testing.assert_close(module(x), F.layer_norm(h, (768,)), atol=1e-4, rtol=1e-4)
    convolutions = (25 * 40 + 40) + 2 * 40 + (63 * 40 * 40 + 40) + 2 * 40 + (40 * 40 + 40)
    assert _count(module) == convolutions + (1440 * 768 + 768) + (768 * 768 + 768) + 2 * 768


def _check_atm() -> None:
    """Its layer is torch's own transformer layer where T is a multiple of the heads; then the published sizes."""
    torch.manual_seed(0)
    n_times, config = 80, EncoderConfig(name="atm", width=8)
    module = build_encoder((5, n_times), config).eval()
    embedding, layer, _, tsconv = module
    theirs = nn.TransformerEncoderLayer(n_times, 4, 256, activation="gelu", batch_first=True).eval()
    attention = layer.attention
    stacked = [attention.query, attention.key, attention.value]
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": torch.cat([part.weight for part in stacked]),
            "self_attn.in_proj_bias": torch.cat([part.bias for part in stacked]),
            **{f"self_attn.out_proj.{key}": value for key, value in attention.out.state_dict().items()},
            **{f"linear1.{key}": value for key, value in layer.feedforward[0].state_dict().items()},
            **{f"linear2.{key}": value for key, value in layer.feedforward[3].state_dict().items()},
            **{f"norm{i + 1}.{key}": v for i in (0, 1) for key, v in layer.norms[i].state_dict().items()},
        }
    )
    x = torch.randn(3, 5, n_times)
    torch.testing.assert_close(layer(x), theirs(x), atol=1e-5, rtol=1e-5)
    tokens = F.layer_norm(theirs(F.linear(x, embedding[0].weight, embedding[0].bias)), (n_times,))
    torch.testing.assert_close(module(x), tsconv(tokens), atol=1e-4, rtol=1e-4)
    published = build_encoder((63, 250), EncoderConfig(name="atm", width=1024, dropout=0.5))
    attention_size = 3 * (250 * 248 + 248) + (248 * 250 + 250)  # 4 heads of 62
    layer_size = attention_size + (250 * 256 + 256) + (256 * 250 + 250) + 2 * 2 * 250
    projection = (1440 * 1024 + 1024) + (1024 * 1024 + 1024) + 2 * 1024
    assert _count(published) == (250 * 250 + 250) + layer_size + 2 * 250 + 103_680 + projection
    assert 0.96 < _count(published) / 3.18e6 < 1  # the paper's count holds a layer per subject that it does not use
    dropouts = [part.p for part in published.modules() if isinstance(part, nn.Dropout)]
    assert dropouts == [0.25, 0.25, 0.25, 0.5, 0.5]


def _check_linear() -> None:
    for name in ("linear", *CLOSED_FORM):
        module = build_encoder((3, 4), EncoderConfig(name=name, width=5))
        x = torch.randn(2, 3, 4)
        torch.testing.assert_close(module(x), x.reshape(2, 12) @ module[1].weight.T + module[1].bias)


def _check_ridge() -> None:
    _check_linear()
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


def _check_eegnet() -> None:
    """Lawhern et al., table 2: F1 = 8 filters of 64, D = 2, pools of 4 and 8, separable filters of 16, norm limits."""
    module = make("eegnet", (6, 128), dropout=0.25).eval()
    _random_norms(module)
    x = torch.randn(3, 6, 128)
    maps = F.conv2d(x[:, None], module.conv_temporal.weight, padding=(0, 32))
    maps = F.conv2d(module.bnorm_temporal(maps), module.conv_spatial.weight, groups=8)
    maps = F.avg_pool2d(F.elu(module.bnorm_1(maps)), (1, 4))
    maps = F.conv2d(maps, module.conv_separable_depth.weight, padding=(0, 8), groups=16)
    maps = F.conv2d(maps, module.conv_separable_point.weight)
    flat = F.avg_pool2d(F.elu(module.bnorm_2(maps)), (1, 8)).flatten(1)
    head = module.final_layer.linearconstraint
    torch.testing.assert_close(module(x), F.linear(flat, head.weight, head.bias), atol=1e-5, rtol=1e-5)
    assert (head.weight.norm(dim=1) <= 0.2501).all()
    assert (module.conv_spatial.weight.flatten(1).norm(dim=1) <= 1.0001).all()
    sizes = 8 * 64 + 2 * 8 + 16 * 6 + 2 * 16 + 16 * 16 + 16 * 16 + 2 * 16
    assert _count(module) == sizes + 16 * 4 * 8 + 8


def _check_shallownet() -> None:
    """Schirrmeister et al.: 40 filters of 25, 40 spatial filters, square, mean over 75 every 15, logarithm, linear."""
    module = make("shallownet", (6, 130), dropout=0.5).eval()
    _random_norms(module)
    x = torch.randn(3, 6, 130)
    first, second = module.conv_time_spat.conv_time, module.conv_time_spat.conv_spat
    assert (tuple(first.weight.shape), tuple(second.weight.shape)) == ((40, 1, 25, 1), (40, 40, 1, 6))
    maps = F.conv2d(x.transpose(1, 2)[:, None], first.weight, first.bias)
    maps = module.bnorm(F.conv2d(maps, second.weight)).square()
    maps = F.avg_pool2d(maps, (75, 1), (15, 1)).clamp_min(1e-6).log()
    head = module.final_layer.conv_classifier
    expected = F.linear(maps.flatten(1), head.weight.flatten(1), head.bias)
    torch.testing.assert_close(module(x), expected, atol=1e-4, rtol=1e-4)


def _check_conformer() -> None:
    """Song et al. 2022: 40 maps, pools of 75 every 15, 6 layers of 10 heads, feed-forward 4 x, 256 and 32 units."""
    module = make("conformer", (63, 250), options=[])
    patches = (250 - 25 + 1 - 75) // 15 + 1
    stem = (25 * 40 + 40) + (63 * 40 * 40 + 40) + 2 * 40 + (40 * 40 + 40)
    layer = 4 * (40 * 40 + 40) + (40 * 160 + 160) + (160 * 40 + 40) + 2 * 2 * 40
    head = (patches * 40 * 256 + 256) + (256 * 32 + 32) + (32 * 8 + 8)
    assert _count(module) == stem + 6 * layer + head
    heads = {part.num_heads for part in module.modules() if hasattr(part, "num_heads")}
    assert heads == {10}
    kinds = [type(part).__name__ for part in module.patch_embedding.shallownet]
    assert kinds == ["Conv2d", "Conv2d", "BatchNorm2d", "ELU", "AvgPool2d", "Dropout"]


def _check_labram() -> None:
    """LaBraM-Base has 5.8 M parameters; electrodes are set apart by name, so their order must not matter."""
    assert round(_count(make("labram", (6, 200), options=[]), but="final_layer") / 1e6, 1) == 5.8
    module = make("labram", (6, 250)).eval()
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    names = tuple(ELECTRODES[i] for i in order)
    other = build_encoder((6, 250), small("labram"), SignalFacts(200.0, names), load=False).eval()
    other.load_state_dict(module.state_dict())
    nn.init.normal_(module.model.position_embedding)
    x = torch.randn(3, 6, 250)
    assert not torch.allclose(other(x[:, order]), module(x), atol=1e-6)
    other.load_state_dict(module.state_dict())
    torch.testing.assert_close(other(x[:, order]), module(x), atol=1e-5, rtol=1e-4)


def _check_cbramod() -> None:
    """Wang et al. 2025: 12 layers of width 200, feed-forward 800, half of 8 heads across channels, half over time."""
    model = make("cbramod", (6, 200), options=[]).model
    layers = model.encoder.layers
    assert len(layers) == 12
    half = 4 * (100 * 100 + 100)
    assert _count(layers[0]) == 2 * half + (200 * 800 + 800) + (800 * 200 + 200) + 2 * 2 * 200


def _check_reve() -> None:
    """El Ouahidi et al. 2025, Base: 22 layers, width 512, 8 heads, feed-forward 2.66 x; places of electrodes count."""
    with torch.device("meta"):
        model = make("reve", (6, 200), options=[]).model
    hidden = int(512 * 2.66)
    layer = (512 + 512 * 3 * 512 + 512 * 512) + (512 + 512 * 2 * hidden + hidden * 512)
    assert _count(model.transformer) == 22 * layer
    module = make("reve", (6, 200)).eval()
    x = torch.randn(3, 6, 200)
    before = module(x)
    module.positions.copy_(torch.randn(6, 3))
    assert not torch.allclose(module(x), before, atol=1e-4)


CHECKS: dict[str, Callable[[], None]] = {
    "mlp": _check_mlp,
    "residual_mlp": _check_residual_mlp,
    "skip_mlp": _check_skip_mlp,
    "mindbridge": _check_mindbridge,
    "sttm": _check_sttm,
    "tsconv": _check_tsconv,
    "atm": _check_atm,
    "linear": _check_linear,
    "ridge": _check_ridge,
    "banded_ridge": _check_linear,  # its solution: test_encoders_banded
    "encoding": _check_linear,  # its solution: test_encoding
    "eegnet": _check_eegnet,
    "shallownet": _check_shallownet,
    "conformer": _check_conformer,
    "labram": _check_labram,
    "cbramod": _check_cbramod,
    "reve": _check_reve,
}


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_encoder_equals_its_reference(name: str) -> None:
    CHECKS[name]()


KINDS = {"units": (67,), "window": (6, 110)}
FITTING = [(name, kind) for name in ENCODERS for kind in KINDS if kind == "window" or name in ANY_SHAPE]


@pytest.mark.parametrize(("name", "kind"), FITTING)
def test_walk_shape_gradient_and_eval(name: str, kind: str) -> None:
    module = make(name, KINDS[kind])
    x = torch.randn(5, *KINDS[kind])
    out = module.train()(x)
    assert out.shape == (5, 8)
    assert out.dtype == torch.float32
    (out * torch.randn(5, 8)).sum().backward()
    trained = {key: value for key, value in module.named_parameters() if value.requires_grad}
    assert trained
    assert [key for key, value in trained.items() if value.grad is None or not value.grad.isfinite().all()] == []
    with torch.no_grad():
        out = module.eval()(x)
        torch.testing.assert_close(module(x), out, rtol=0, atol=0)
        torch.testing.assert_close(module(x[1:2]), out[1:2], atol=1e-4, rtol=1e-3)  # rows do not see each other


@pytest.mark.parametrize("name", sorted(set(ENCODERS) - set(ANY_SHAPE)))
@pytest.mark.parametrize("shape", [(67,), (2, 3, 200)])
def test_walk_other_shapes_are_refused(name: str, shape: tuple[int, ...]) -> None:
    needs_library(name)
    fails(rf"encoder '{name}' needs trials of shape \(C, T\)", lambda: build_encoder(shape, small(name)))


@pytest.mark.parametrize(("name", "kind"), FITTING)
def test_walk_a_tiny_batch_is_learned_by_heart(name: str, kind: str) -> None:
    module = make(name, KINDS[kind], dropout=0.0, block_dropout=0.0, attention_dropout=0.0)
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    x, target = torch.randn(8, *KINDS[kind]), F.normalize(torch.randn(8, 8), dim=1)
    optimizer = torch.optim.Adam([v for v in module.parameters() if v.requires_grad], 3e-3)
    before = None
    for _ in range(80):
        loss = F.cross_entropy(10 * F.normalize(module(x), dim=1) @ target.T, torch.arange(8))
        before = loss.item() if before is None else before
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    floor = F.cross_entropy(10 * target @ target.T, torch.arange(8)).item()
    assert loss.item() - floor < 0.2 * (before - floor)


@pytest.mark.parametrize("name", sorted(set(ENCODERS) - {"linear", "reve", *CLOSED_FORM}))
def test_dropout_of_the_configuration_is_used(name: str) -> None:
    module = make(name, (6, 110), dropout=0.123)
    assert 0.123 in {part.p for part in module.modules() if isinstance(part, nn.Dropout)}


@pytest.mark.parametrize("name", LINEAR_FIRST)
def test_linear_first_sees_nothing_outside_the_span_of_the_rows(name: str) -> None:
    """So the signals' principal components may stand in for the signals: the first layer is linear in all values."""
    module = make(name, (4, 5), skip_rank=2, adapter=3).eval()
    readers = [part.weight for part in module.modules() if isinstance(part, nn.Linear) and part.in_features == 20]
    outside = torch.linalg.svd(torch.cat(readers))[2][-1].reshape(1, 4, 5)
    x = torch.randn(3, 4, 5)
    torch.testing.assert_close(module(x + 3 * outside), module(x), atol=1e-4, rtol=1e-4)


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
        ((63, 74), EncoderConfig(name="tsconv"), "at least 75 samples"),
        ((63, 74), EncoderConfig(name="atm"), "at least 75 samples"),
        ((63, 250), EncoderConfig(name="tsconv", stride=0), "encoder.stride=0 should be 1 or more"),
        ((63, 250), EncoderConfig(name="atm", heads=251), "encoder.heads=251"),
        ((63, 250), EncoderConfig(name="atm", layers=0), "encoder.layers=0"),
        (
            (63, 250),
            EncoderConfig(name="atm", attention_dropout=1.0),
            "attention_dropout=1 should be 0 or more",
        ),
        ((67,), EncoderConfig(name="skip_mlp", skip_rank=0), "encoder.skip_rank=0 should be 1 or more"),
        ((67,), EncoderConfig(name="residual_mlp", block_dropout=-0.1), "encoder.block_dropout=-0.1"),
    ],
)
def test_what_an_encoder_cannot_read_is_refused(shape: tuple[int, ...], config: EncoderConfig, message: str) -> None:
    fails(message, lambda: build_encoder(shape, config))


@pytest.mark.parametrize("name", ["tsconv", "atm"])
def test_the_shortest_window(name: str) -> None:
    assert build_encoder((63, 75), EncoderConfig(name=name, width=8)).eval()(torch.zeros(2, 63, 75)).shape == (2, 8)


def test_every_numeric_default_is_that_of_a_paper() -> None:
    """So that `width` and `dropout` alone turn the defaults into NICE or ATM."""
    config = EncoderConfig()
    assert (config.filters, config.kernel, config.pool, config.stride) == (40, 25, 51, 5)
    assert (config.layers, config.heads, config.feedforward, config.attention_dropout) == (1, 4, 256, 0.25)
    assert config.block_dropout == 0.15
