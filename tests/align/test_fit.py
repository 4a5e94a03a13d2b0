"""Fitting on synthetic recordings: what it learns, what it must not, what it reads, what it restores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from align.checkpoint import tensors_hash
from align.config import Config, load_config
from align.errors import UserError
from align.model import principal
from align.model.aligner import Aligner
from align.model.spaces import SignalSpace, TargetSpace
from align.training.fit import fit
from align.training.optimise import _average

N_TRAIN, N_TEST = 120, 40
TOKENS = (4, 6)
SMALL = ["target.components=10", "encoder.width=32", "train.epochs=30", "train.batch_size=30", "train.lr=3e-3"]


def _config(*overrides: str) -> Config:
    return load_config(Config, None, [*SMALL, *overrides])


def _data(shape: tuple[int, ...] = (20,), noise: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Signals (160, *shape) and tokens (160, 4, 6) that share eight hidden causes; tokens have unlike scales."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(N_TRAIN + N_TEST, 8))
    width = int(np.prod(shape))
    x = hidden @ rng.normal(size=(8, width)) + noise * rng.normal(size=(len(hidden), width)) * 8**0.5
    flat = hidden @ rng.normal(size=(8, 24)) + 0.2 * rng.normal(size=(len(hidden), 24))
    flat = 5 + flat * np.exp(0.4 * rng.normal(size=24))
    return (3 + x).reshape(-1, *shape).astype(np.float32), flat.reshape(-1, *TOKENS).astype(np.float16)


def _top1(aligner: Aligner, x: np.ndarray, tokens: np.ndarray) -> float:
    """Share of held-out rows whose own picture has the highest cosine among the held-out pictures; chance 1/40."""
    embeds, images = aligner.predict(x[N_TRAIN:])["embeds"], aligner.embed_images(tokens[N_TRAIN:])
    cosine = (embeds / np.linalg.norm(embeds, axis=1)[:, None]) @ (images / np.linalg.norm(images, axis=1)[:, None]).T
    return float((cosine.argmax(1) == np.arange(N_TEST)).mean())


RECIPES: dict[str, tuple[tuple[int, ...], list[str]]] = {
    "ridge": ((20,), ["encoder.name=ridge"]),
    "mlp": ((20,), ["encoder.name=mlp"]),
    "mlp of windows": ((15, 12), ["encoder.name=mlp"]),
    "mlp on components": ((15, 12), ["encoder.name=mlp", "encoder.components=12"]),
    "mixup and averaging": ((20,), ["train.mixup=0.3", "train.ema=0.9"]),
    "tsconv": (
        (15, 12),
        ["encoder.name=tsconv", "encoder.kernel=3", "encoder.pool=3", "encoder.stride=2", "encoder.filters=8"],
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_it_learns_the_pairing_and_nothing_from_shuffled_pairs(name: str) -> None:
    shape, recipe = RECIPES[name]
    x, tokens = _data(shape)
    config = _config("target.spread=0", *recipe)
    real = fit(config, x[:N_TRAIN], tokens, np.arange(N_TRAIN))
    assert _top1(real, x, tokens) > 0.3, "chance is .025"
    truth = tokens[N_TRAIN:].astype(np.float64)
    error = np.square(real.predict(x[N_TRAIN:])["tokens"] - truth).sum((0, 1, 2))
    assert error < 0.8 * np.square(truth - tokens[:N_TRAIN].astype(np.float64).mean(0)).sum()
    wrong = np.random.default_rng(0).permutation(N_TRAIN)
    shuffled = [_top1(fit(config, x[:N_TRAIN], tokens, wrong), x, tokens)]
    assert np.mean(shuffled) <= 0.125, "5 of 40 or more has p < .005 at chance"


def test_statistics_and_weights_come_from_training_rows_only() -> None:
    x, tokens = _data()
    index = np.arange(N_TRAIN)
    other = tokens.copy()
    other[N_TRAIN:] = np.nan
    config = _config("train.epochs=3")
    weights = fit(config, x[:N_TRAIN], tokens, index).state()
    assert tensors_hash(fit(config, x[:N_TRAIN], other, index).state()) == tensors_hash(weights)
    assert tensors_hash(fit(_config("train.epochs=3", "seed=1"), x[:N_TRAIN], tokens, index).state()) != tensors_hash(
        weights
    )
    np.testing.assert_allclose(weights["signals.mean"], x[:N_TRAIN].mean(0), rtol=1e-5)
    np.testing.assert_allclose(weights["signals.scale"], x[:N_TRAIN].std(0), rtol=1e-4)
    np.testing.assert_allclose(
        weights["targets.mean"], tokens[:N_TRAIN].astype(np.float32).mean(0).ravel(), rtol=1e-4, atol=1e-4
    )


def test_repetitions_share_a_picture() -> None:
    x, tokens = _data(noise=0.2)
    twice = np.concatenate([x[:N_TRAIN], x[:N_TRAIN] + 0.01])
    aligner = fit(_config("target.spread=0"), twice, tokens, np.tile(np.arange(N_TRAIN), 2))
    assert _top1(aligner, x, tokens) > 0.3
    np.testing.assert_allclose(aligner.targets.mean, tokens[:N_TRAIN].astype(np.float32).mean(0).ravel(), rtol=1e-3)


@pytest.mark.parametrize("encoder", ["mlp", "ridge"])
def test_mean_and_spread_of_training_are_restored(encoder: str) -> None:
    x, tokens = _data(noise=1.5)
    truth = tokens[:N_TRAIN].astype(np.float64).reshape(N_TRAIN, -1)
    flatness = {}
    for strength in (0, 1):
        config = _config(f"encoder.name={encoder}", f"target.spread={strength}", "loss.contrastive=0.1")
        estimate = fit(config, x[:N_TRAIN], tokens, np.arange(N_TRAIN)).predict(x[N_TRAIN:])["tokens"]
        flat = estimate.reshape(N_TEST, -1)
        flatness[strength] = np.median(flat.std(0) / truth.std(0))
        assert np.abs((flat.mean(0) - truth.mean(0)) / truth.std(0)).mean() < 0.35
    assert flatness[0] < 0.8
    assert 0.75 < flatness[1] < 1.3


def test_without_regression_there_are_no_tokens_and_without_contrast_embeds_are_components() -> None:
    x, tokens = _data()
    contrast = fit(_config("loss.regression=0"), x[:N_TRAIN], tokens, np.arange(N_TRAIN))
    assert set(contrast.predict(x)) == {"embeds"}
    regression = fit(_config("loss.contrastive=0", "target.spread=0"), x[:N_TRAIN], tokens, np.arange(N_TRAIN))
    out = regression.predict(x)
    candidates = torch.tensor(regression.embed_images(tokens))
    assert out["embeds"].shape == candidates.shape == (len(x), 10)
    decoded = regression.targets.decode(torch.tensor(out["embeds"]), bounded=True)
    np.testing.assert_allclose(out["tokens"], decoded, atol=1e-4)
    torch.testing.assert_close(candidates, regression.targets.encode(torch.tensor(tokens).float()))
    assert _top1(regression, x, tokens) > 0.3


def test_the_temperature_can_be_fixed() -> None:
    x, tokens = _data()
    scales = []
    for more in ("true", "false"):
        config = _config("train.epochs=2", "loss.temperature=0.5", f"loss.learn_temperature={more}")
        scales.append(fit(config, x[:N_TRAIN], tokens, np.arange(N_TRAIN)).network.logit_scale.exp().item())
    assert scales[1] == pytest.approx(2.0, rel=1e-6) and abs(scales[0] - 2) > 1e-3


def test_shapes_types_and_batches() -> None:
    x, tokens = _data((3, 5))
    aligner = fit(_config("train.epochs=2"), x[:N_TRAIN], tokens, np.arange(N_TRAIN))
    whole, parts = aligner.predict(x), aligner.predict(x, batch_size=7)
    assert whole["embeds"].shape == (160, 32) and whole["tokens"].shape == (160, *TOKENS)
    assert whole["embeds"].dtype == whole["tokens"].dtype == np.float32
    for name in whole:
        np.testing.assert_allclose(whole[name], parts[name], rtol=1e-4, atol=1e-4)
    assert aligner.predict(x[:0])["tokens"].shape == (0, *TOKENS)
    assert aligner.embed_images(tokens[:0]).shape == (0, 32)
    with pytest.raises(UserError, match=r"\(15,\).*\(3, 5\)"):
        aligner.predict(x.reshape(len(x), 15))
    with pytest.raises(UserError, match="tokens have shape"):
        aligner.embed_images(tokens[:, :2])


def _spoil(what: str) -> dict[str, Any]:
    x, tokens = _data()
    rows = np.arange(N_TRAIN)
    case: dict[str, Any] = {"x": x[:N_TRAIN].copy(), "tokens": tokens.astype(np.float32), "stimulus_index": rows}
    if what == "nan":
        case["x"][3, 4] = np.nan
    elif what == "inf":
        case["tokens"][5] = np.inf
    elif what == "rows":
        case["x"] = case["x"][1:]
    elif what == "index":
        case["stimulus_index"] = rows + 100
    elif what == "few":
        case["stimulus_index"] = rows % 4
    elif what == "alike":
        case["tokens"][:] = 1
    elif what == "flat":
        case["tokens"] = case["tokens"].reshape(160, -1)
    return case


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nan", "signals hold values that are not finite"),
        ("inf", "tokens hold values that are not finite"),
        ("rows", "119 trials but 120"),
        ("index", "stimulus index 219"),
        ("few", "4 different pictures are too few"),
        ("alike", "all 120 training rows are alike"),
        ("flat", r"should be \(n, ...\) and \(K, N, D\)"),
    ],
)
def test_bad_data_is_refused(what: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit(_config(), **_spoil(what))


@pytest.mark.parametrize("pairs", [["loss.contrastive=0", "loss.regression=0"], ["loss.regression=-1"]])
def test_bad_weights_of_the_loss_are_refused(pairs: list[str]) -> None:
    with pytest.raises(UserError, match=r"loss\.contrastive and loss\.regression|loss\.regression=-1"):
        _config(*pairs)
    config = load_config(Config, None, pairs, check=False)
    with pytest.raises(UserError, match=r"loss\.contrastive and loss\.regression|loss\.regression=-1"):
        fit(config, **_spoil(""))


@pytest.mark.parametrize("exact", [4000, 10])
@pytest.mark.parametrize("n", [30, 200])
def test_principal_axes_equal_sklearn(n: int, exact: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(principal, "_EXACT", exact)  # 10: the randomised way
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 90)) * np.geomspace(10, 0.01, 90) @ np.linalg.qr(rng.normal(size=(90, 90)))[0]
    x -= x.mean(0)
    reference = PCA(12, svd_solver="full").fit(x)
    state = torch.random.get_rng_state()
    axes = principal.principal_axes(torch.tensor(x, dtype=torch.float32), 12).double().numpy()
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_allclose(np.abs(axes @ reference.components_.T), np.eye(12), atol=2e-3)
    np.testing.assert_allclose(axes @ axes.T, np.eye(12), atol=1e-4)
    assert (np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1) > 0).all()


def test_targets_are_standardised_components_and_come_back() -> None:
    tokens = torch.tensor(_data()[1]).float()
    tokens[:, 0, 0] = 3.0  # constant
    space = TargetSpace.fit(tokens.numpy(), 23)
    flat = tokens.flatten(1).numpy().astype(np.float64)
    standardised = (flat - flat.mean(0)) / np.where(flat.std(0) > 0, flat.std(0), 1)
    reference = PCA(23).fit(standardised)
    components = space.encode(tokens)
    np.testing.assert_allclose(
        components.var(0, correction=0),
        reference.explained_variance_ * 159 / 160 / np.mean(reference.explained_variance_ * 159 / 160),
        rtol=1e-3,
    )
    np.testing.assert_allclose(space.decode(components), tokens, atol=1e-2)
    lengths = [
        np.linalg.norm(
            (space.decode(c, bounded=True).flatten(1).numpy() - flat.mean(0))[:, 1:] / flat.std(0)[1:], axis=1
        )
        for c in (0.5 * components, 5 * components)
    ]
    typical = np.sqrt(flat.shape[1] - 1)  # root mean square length of standardised tokens, the constant one apart
    np.testing.assert_allclose(lengths[1], typical, rtol=1e-2)
    assert lengths[0].max() < typical and lengths[0].std() > 0.01
    assert torch.equal(space.gain, torch.ones(23)) or torch.allclose(space.gain, torch.ones(23), atol=1e-5)
    white = TargetSpace.fit(tokens.numpy(), 23, whiten=1.0)
    np.testing.assert_allclose((white.encode(tokens) * white.gain).std(0, correction=0), np.ones(23), rtol=1e-4)


def test_rare_dimensions_are_not_blown_up() -> None:
    rng = np.random.default_rng(0)
    tokens = torch.tensor(rng.normal(size=(50, 1, 8)), dtype=torch.float32)
    tokens[:, 0, 0] = 0
    tokens[7, 0, 0] = 1e-3  # active once, faintly
    space = TargetSpace.fit(tokens.numpy(), 8)
    assert space.scale[0] == pytest.approx(0.1 * float(tokens[:, 0].std(0, correction=0).median()), rel=0.2)


def test_a_projection_keeps_what_the_rows_span() -> None:
    x = torch.tensor(_data((15, 12))[0][:50])
    plain, spanned = SignalSpace.fit(x.numpy()), SignalSpace.fit(x.numpy(), project=True)
    assert plain.basis is None and spanned.out_shape == (49,)
    rows, coordinates = plain(x).flatten(1), spanned(x)
    np.testing.assert_allclose(coordinates @ coordinates.T, rows @ rows.T, atol=1e-2)
    assert SignalSpace.fit(x.numpy(), components=5, project=True).out_shape == (5,)
    tall = torch.tensor(_data()[0])
    assert SignalSpace.fit(tall.numpy(), project=True).basis is None, "20 dimensions are spanned by 160 rows"


def test_the_running_average_follows_its_formula() -> None:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2)
    average = _average(module, 0.5)  # type: ignore[arg-type]
    values, expected = [], None
    for count in range(6):
        with torch.no_grad():
            module.weight.normal_()
        average.update_parameters(module)
        values.append(module.weight.detach().clone())
        share = min(0.5, (1 + count) / (10 + count))
        expected = values[0] if expected is None else share * expected + (1 - share) * values[-1]
    assert expected is not None
    torch.testing.assert_close(average.module.weight, expected)
