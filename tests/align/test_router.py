"""The layer router: components that keep layers apart, flat weights at the start, a preference for what helps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from align.checkpoint import tensors_hash
from align.config import Config, load_config
from align.data.rows import Rows
from align.errors import UserError
from align.model.aligner import Aligner, Network
from align.model.router import SUBJECT_DROPOUT, Router, check_router, fit_targets
from align.model.spaces import SignalSpace, TargetSpace
from align.training.batches import Pairs
from align.training.fit import fit
from align.training.optimise import StateFolder, optimise

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
    left = fit_targets(config, Rows.of(spoiled).subset(picked), WIDTHS)
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


# --- several subjects ---


def _two_subjects(informative: tuple[int, int], count: int = 150) -> tuple[Rows, np.ndarray, np.ndarray]:
    """Signals of two subjects, tokens (300, 3, 11), picture of a row; each subject's signals carry its own layer."""
    rng = np.random.default_rng(3)
    tokens = _tokens(2 * count, seed=5)
    parts = []
    for k, layer in enumerate(informative):
        x = rng.normal(size=(count, 5)).astype(np.float32)
        start, stop = (0, 4) if layer == 0 else (4, 11)
        own = slice(k * count, (k + 1) * count)
        tokens[own, :, start:stop] = (x @ rng.normal(size=(5, N * (stop - start)))).reshape(count, N, -1)
        parts.append((x, np.arange(count)))
    return Rows(parts), tokens, np.arange(2 * count)


FAST = ["encoder.name=linear", "train.epochs=60", "train.batch_size=50", "train.lr=1e-2", "loss.regression=0"]


def test_every_subject_gets_the_layer_that_helps_and_a_new_one_the_mean() -> None:
    x, tokens, stimulus = _two_subjects((0, 1))
    aligner = fit(_config(*FAST), x, tokens, stimulus, widths=WIDTHS)
    router = aligner.network.image_head
    assert isinstance(router, Router) and router.terms.shape == (2, 2)
    weights = router.weights_of(torch.tensor([0, 1])).detach().numpy()
    shared = router.weights.detach().numpy()
    assert weights[0, 0] > 0.6 and weights[1, 1] > 0.6 and abs(shared[0] - 0.5) < 0.15
    np.testing.assert_allclose(np.log(weights).mean(0) @ [1, -1], np.log(shared) @ [1, -1], atol=1e-5)
    components = aligner.targets.encode(torch.tensor(tokens[:4])) * aligner.targets.gain
    images = torch.stack([part(components[:, 5 * i : 5 * i + 5]) for i, part in enumerate(router.maps)]).detach()
    for subject, own in ((0, weights[0]), (1, weights[1]), (None, shared)):
        expected = own[0] * images[0] + own[1] * images[1]
        np.testing.assert_allclose(aligner.embed_images(tokens[:4], subject=subject), expected, atol=1e-4)


def test_terms_are_left_out_for_three_rows_in_ten_in_training_only() -> None:
    torch.manual_seed(0)
    router = Router(2, 10, 16, 0.0, subjects=3)
    with torch.no_grad():
        router.terms.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]]))
    subject = torch.zeros(4000, dtype=torch.long)
    weights = router.weights_of(subject)[:, 0].detach().numpy()
    share = np.isclose(weights, 0.5).mean()
    assert abs(share - SUBJECT_DROPOUT) < 0.03 and len(np.unique(weights.round(4))) == 2
    assert len(np.unique(router.eval().weights_of(subject)[:, 0].detach())) == 1


def test_one_subject_is_trained_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    x, tokens, stimulus = _two_subjects((0, 0))
    alone = x.subset(np.arange(150)).all().numpy()
    config = _config(*FAST, "train.epochs=3")
    one = fit(config, alone, tokens[:150], stimulus[:150], widths=WIDTHS)
    assert not [name for name in one.state() if "terms" in name] and one.shapes()["n_subjects"] == 1

    def plain(self: Router, components: torch.Tensor, subject: object = None) -> torch.Tensor:
        parts = self.dropout(components).chunk(len(self.maps), dim=1)
        images = [layer(part) for layer, part in zip(self.maps, parts, strict=True)]
        return torch.einsum("l,lbe->be", self.logits.softmax(0), torch.stack(images))

    monkeypatch.setattr(Router, "forward", plain)
    before = fit(config, alone, tokens[:150], stimulus[:150], widths=WIDTHS)
    assert tensors_hash(one.state()) == tensors_hash(before.state())
    np.testing.assert_array_equal(one.embed_images(tokens[:9], subject=0), one.embed_images(tokens[:9]))


def test_terms_of_subjects_come_back() -> None:
    x, tokens, stimulus = _two_subjects((0, 1))
    aligner = fit(_config(*FAST, "train.epochs=5"), x, tokens, stimulus, widths=WIDTHS)
    meta = aligner.shapes()
    copy = Aligner.from_state(aligner.config, aligner.state(), meta)
    for subject in (0, 1, None):
        np.testing.assert_array_equal(
            copy.embed_images(tokens[:9], subject=subject), aligner.embed_images(tokens[:9], subject=subject)
        )
    assert np.abs(copy.embed_images(tokens[:9], subject=0) - copy.embed_images(tokens[:9], subject=1)).max() > 1e-3
    with pytest.raises(UserError, match="unexpected tensors"):
        Aligner.from_state(aligner.config, aligner.state(), {**meta, "n_subjects": 1})
