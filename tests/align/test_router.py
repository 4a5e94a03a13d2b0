"""The layer router: components that keep layers apart, flat weights at the start, a preference for what helps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from align.batches import Pairs
from align.config import Config, load_config
from align.errors import UserError
from align.model import Aligner, Network
from align.optimise import StateFolder, optimise
from align.router import Router, check_router, fit_targets
from align.rows import Rows
from align.spaces import SignalSpace, TargetSpace

N, WIDTHS = 3, (4, 7)


def _config(*overrides: str) -> Config:
    base = ["target.router=true", "target.layer=early+late", "target.components=10", "encoder.width=16"]
    return load_config(Config, None, [*base, *overrides])


def _tokens(count: int = 60, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (2 + rng.normal(size=(count, N, sum(WIDTHS))) * np.arange(1, 12)).astype(np.float32)


def test_components_of_a_layer_do_not_depend_on_the_others() -> None:
    tokens = _tokens()
    space = fit_targets(_config(), Rows.of(tokens), WIDTHS)
    changed = tokens.copy()
    changed[:, :, 4:] = _tokens(seed=1)[:, :, 4:]
    before, after = (space.encode(torch.tensor(each)) for each in (tokens, changed))
    assert space.components == 10
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert (before[:, 5:] - after[:, 5:]).abs().min(0).values.max() > 1e-3
    for part, rows in ((slice(0, 4), slice(0, 5)), (slice(4, 11), slice(5, 10))):
        alone = TargetSpace.fit(np.ascontiguousarray(tokens[:, :, part]), 5)
        expected = alone.encode(torch.tensor(tokens[:, :, part])) * alone.unit / space.unit
        torch.testing.assert_close(before[:, rows], expected, rtol=1e-4, atol=1e-5)
        size = (before * space.gain)[:, rows].square().mean().sqrt()
        assert float(size) == pytest.approx(1, abs=1e-3)  # on the image side both layers are equally large


def test_tokens_come_back_in_their_own_order() -> None:
    tokens = _tokens(200)
    space = fit_targets(_config("target.components=24"), Rows.of(tokens), WIDTHS)
    assert space.components == 24 and space.token_shape == (N, 11)
    back = space.decode(space.encode(torch.tensor(tokens))).numpy()
    np.testing.assert_allclose(back[:, :, :4], tokens[:, :, :4], atol=1e-3)  # 12 components are all of the first layer
    assert np.corrcoef(back[:, :, 4:].ravel(), tokens[:, :, 4:].ravel())[0, 1] > 0.7


def test_rows_are_read_in_their_order_and_only_they() -> None:
    tokens = _tokens()
    picked = np.array([5, 3, 40, 41, 12, 9, 30, 22, 55, 57, 1, 0, 19, 33])
    spoiled = tokens.copy()
    spoiled[np.setdiff1d(np.arange(60), picked)] = np.nan
    config = _config("target.components=4")
    left = fit_targets(config, Rows.of(spoiled).only(picked), WIDTHS)
    right = fit_targets(config, Rows.of(tokens[picked]), WIDTHS)
    torch.testing.assert_close(left.encode(torch.tensor(tokens)), right.encode(torch.tensor(tokens)))


def test_without_router_nothing_changes() -> None:
    tokens = _tokens()
    plain = fit_targets(load_config(Config, None, ["target.components=6"]), Rows.of(tokens), WIDTHS)
    expected = TargetSpace.fit(tokens, 6)
    for name, value in expected.state_dict().items():
        assert torch.equal(plain.state_dict()[name], value), name


def test_the_start_is_flat_and_the_sum_is_weighted() -> None:
    torch.manual_seed(0)
    router = Router(2, 10, 16, 0.5).eval()
    x = torch.randn(4, 10)
    parts = [layer.weight.numpy(force=True) for layer in router.maps]
    biases = [layer.bias.numpy(force=True) for layer in router.maps]
    each = [x.numpy()[:, 5 * i : 5 * i + 5] @ parts[i].T + biases[i] for i in range(2)]
    np.testing.assert_allclose(router.weights.detach(), [0.5, 0.5])
    np.testing.assert_allclose(router(x).detach(), (each[0] + each[1]) / 2, atol=1e-5)
    with torch.no_grad():
        router.logits[1] = np.log(3)
    np.testing.assert_allclose(router(x).detach(), 0.25 * each[0] + 0.75 * each[1], atol=1e-5)


@pytest.mark.parametrize("informative", [0, 1])
def test_the_layer_that_helps_gets_the_weight(informative: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5)).astype(np.float32)
    tokens = _tokens(200)
    start, stop = (0, 4) if informative == 0 else (4, 11)
    seen = x @ rng.normal(size=(5, N * (stop - start)))
    tokens[:, :, start:stop] = seen.reshape(200, N, -1)
    config = _config("encoder.name=linear", "train.epochs=60", "train.batch_size=50", "train.lr=1e-2")
    space = fit_targets(config, Rows.of(tokens), WIDTHS)
    pairs = Pairs(torch.tensor(x), space.encode(torch.tensor(tokens)), torch.arange(200), distinct=True)
    torch.manual_seed(0)
    network = Network(config, (5,), space.components)
    optimise(network, config, pairs, space.gain, "train", StateFolder(config, pairs), progress=False)
    router = network.image_head
    assert isinstance(router, Router)
    assert float(router.weights[informative].detach()) > 0.6


def test_a_saved_router_comes_back() -> None:
    config = _config("encoder.name=linear")
    tokens = _tokens()
    targets = fit_targets(config, Rows.of(tokens), WIDTHS)
    torch.manual_seed(0)
    aligner = Aligner(config, SignalSpace.fit(np.random.default_rng(0).normal(size=(20, 5))), targets)
    with torch.no_grad():
        aligner.network.image_head.logits.copy_(torch.tensor([0.3, -0.2]))  # type: ignore[union-attr, operator]
    copy = Aligner.from_state(config, aligner.state(), aligner.shapes())
    np.testing.assert_array_equal(copy.embed_images(tokens), aligner.embed_images(tokens))


WRONG = [
    (["target.layer=late"], r"target\.layer='late' is one"),
    (["encoder.name=ridge"], r"trained by the contrastive part"),
    (["loss.contrastive=0"], r"trained by the contrastive part"),
    (["target.components=1"], r"target\.components=1 is less than one"),
]


@pytest.mark.parametrize(("overrides", "message"), WRONG)
def test_wrong_routers_are_refused_in_one_line(overrides: list[str], message: str) -> None:
    check_router(_config())
    check_router(Config())
    with pytest.raises(UserError, match=message):
        check_router(_config(*overrides))
    with pytest.raises(UserError, match=r"widths of 2 layers in 11, got \(4,\)"):
        fit_targets(_config(), Rows.of(_tokens()), (4,))
