"""What a batch is trained on: every option from the configuration to the number, and that each of them learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from align.config import Config, load_config
from align.errors import UserError
from align.model.aligner import Network
from align.model.losses import part_names
from align.training.augment import mixture, partners
from align.training.batches import Batch, Pairs
from align.training.objective import loss_parts
from align.training.optimise import StateFolder, optimise

B, V, K, E = 12, 6, 4, 5
SMALL = [f"encoder.width={E}", "train.noise=0", "train.image_dropout=0", "encoder.dropout=0", "encoder.name=linear"]


def _config(*overrides: str) -> Config:
    return load_config(Config, None, [*SMALL, *overrides])


def _network(config: Config) -> Network:
    torch.manual_seed(0)
    return Network(config, (V,), K)


def _batch(stimulus: list[int] | None = None, subject: list[int] | None = None) -> Batch:
    rng = torch.Generator().manual_seed(1)
    seen = torch.arange(B) if stimulus is None else torch.tensor(stimulus)
    pictures = torch.randn(B, K, generator=rng)
    signals = torch.randn(B, V, generator=rng)
    return Batch(signals, pictures[seen], seen, stimulus is None, None if subject is None else torch.tensor(subject))


def _parts(config: Config, batch: Batch, network: Network | None = None) -> dict[str, torch.Tensor]:
    network = network or _network(config)
    torch.manual_seed(3)
    np.random.seed(3)
    return loss_parts(network, config, batch, torch.linspace(0.5, 2, K))


def _value(parts: dict[str, torch.Tensor], name: str) -> float:
    return float(parts[name].detach())


def _embeds(config: Config, batch: Batch, signals: torch.Tensor | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Brain embeds and image embeds of length 1, float64."""
    network = _network(config)
    brain = network.encoder(batch.signals if signals is None else signals)
    image = F.normalize(network.image_head(batch.components * torch.linspace(0.5, 2, K)), dim=-1)
    return brain.detach().double().numpy(), image.detach().double().numpy()


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def test_the_default_parts_by_hand() -> None:
    config, batch = _config(), _batch()
    brain, image = _embeds(config, batch)
    parts = _parts(config, batch)
    logits = brain @ image.T
    expected = -(np.diag(_log_softmax(logits)).mean() + np.diag(_log_softmax(logits.T)).mean()) / 2
    assert list(parts) == ["contrastive", "regression"] == part_names(config.loss)
    assert _value(parts, "contrastive") == pytest.approx(expected, rel=1e-5)


def test_siglip_reads_its_bias_and_trains_it() -> None:
    config, batch = _config("loss.kind=siglip", "loss.siglip_bias=-3", "loss.temperature=0.5"), _batch()
    brain, image = _embeds(config, batch)
    network = _network(config)
    parts = _parts(config, batch, network)
    logits, sign = 2 * brain @ image.T - 3, 2 * np.eye(B) - 1
    assert _value(parts, "contrastive") == pytest.approx(np.log1p(np.exp(-sign * logits)).sum() / B, rel=1e-5)
    parts["contrastive"].backward()
    assert network.logit_bias.grad is not None and float(network.logit_bias.grad) != 0
    assert "logit_bias" not in dict(_network(_config()).named_parameters())


def test_softclip_takes_the_likeness_of_whitened_components() -> None:
    config, batch = _config("loss.kind=softclip", "loss.soft_temperature=0.3"), _batch()
    brain, image = _embeds(config, batch)
    seen = batch.components.double().numpy() * np.linspace(0.5, 2, K)
    unit = seen / np.linalg.norm(seen, axis=1, keepdims=True)
    wanted = np.exp(_log_softmax(unit @ unit.T / 0.3))
    logits = brain @ image.T
    expected = -((wanted * _log_softmax(logits)).sum() + (wanted * _log_softmax(logits.T)).sum()) / (2 * B)
    assert _value(_parts(config, batch), "contrastive") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("subject", [None, [0, 1] * 6])
def test_mixco_mixes_signals_and_keeps_pictures_whole(subject: list[int] | None) -> None:
    config, batch = _config("train.mixco=0.3", "train.mixco_share=0.7"), _batch(subject=subject)
    torch.manual_seed(3)
    np.random.seed(3)
    partner = partners(batch.subject, B, batch.signals.device)
    shares = mixture(config.train, partner)
    assert 0 < int((shares.diagonal() < 1).sum()) < B
    brain, image = _embeds(config, batch, shares @ batch.signals)
    mix = shares.double().numpy()
    logits = brain @ image.T
    expected = -((mix * _log_softmax(logits)).sum() + (mix.T * _log_softmax(logits.T)).sum()) / (2 * B)
    parts = _parts(config, batch)
    assert _value(parts, "contrastive") == pytest.approx(expected, rel=1e-5)
    network = _network(config)
    estimate = network.token_head(network.encoder(shares @ batch.signals))
    expected = float(F.mse_loss(estimate, shares @ batch.components).detach())
    assert _value(parts, "regression") == pytest.approx(expected, rel=1e-5)
    if subject is not None:
        mine = np.array(subject)
        assert (mine[partner.numpy()] == mine).all()


def test_rows_of_one_picture_are_pairs_for_siglip() -> None:
    stimulus = [0, 0, 1, 2, 1, 3, 4, 5, 6, 7, 8, 0]
    config, batch = _config("loss.kind=siglip", "loss.siglip_bias=-3"), _batch(stimulus)
    brain, image = _embeds(config, batch)
    sign = 2 * np.equal.outer(stimulus, stimulus) - 1
    expected = np.log1p(np.exp(-sign * (brain @ image.T - 3))).sum() / B
    assert _value(_parts(config, batch), "contrastive") == pytest.approx(expected, rel=1e-5)


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(UserError, match=r"loss\.kind='clip'"):
        _parts(_config("loss.kind=clip"), _batch())


LEARNS = [
    [],
    ["loss.kind=siglip", "loss.siglip_bias=-3"],
    ["loss.kind=softclip"],
    ["loss.mmd=0.5", "loss.mmd_end=0.1"],
    ["loss.regression_kind=cosine"],
    ["train.mixco=0.15"],
    ["train.channel_dropout=0.1"],
    ["loss.kind=siglip", "loss.siglip_bias=-3", "train.mixco=0.15"],
]


@pytest.mark.parametrize("overrides", LEARNS, ids=["+".join(each) or "default" for each in LEARNS])
def test_every_option_learns(overrides: list[str]) -> None:
    """40 held-out pictures among themselves: chance .025; the options reach at least .3, shuffled pairs do not."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(160, 6))
    x = torch.tensor(hidden @ rng.normal(size=(6, 20)) + 1.0 * rng.normal(size=(160, 20)), dtype=torch.float32)
    y = torch.tensor(hidden @ rng.normal(size=(6, 8)) / 2.5, dtype=torch.float32)
    config = load_config(
        Config, None, ["encoder.width=32", "train.epochs=40", "train.batch_size=60", "train.lr=3e-3", *overrides]
    )
    tops = []
    for order in (torch.arange(120), torch.randperm(120, generator=torch.Generator().manual_seed(0))):
        pairs = Pairs(x[:120], y[:120], order, distinct=True)
        torch.manual_seed(0)
        network = Network(config, (20,), 8)
        optimise(network, config, pairs, torch.ones(8), "train", StateFolder(config, pairs), progress=False)
        with torch.no_grad():
            brain, image = network.encoder(x[120:]), network.image_head(y[120:])
        cosine = F.normalize(brain, dim=-1) @ F.normalize(image, dim=-1).T
        tops.append(float((cosine.argmax(1) == torch.arange(40)).float().mean()))
    assert tops[0] >= 0.3 and tops[1] <= 0.2, tops
