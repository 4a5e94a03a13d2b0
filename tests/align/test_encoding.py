"""The encoding model: closed forms against brute force, receptive fields found, noise discounted, joined layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from align import retrieval
from align.checkpoint import load_run, save_run, tensors_hash
from align.config import Config, load_config
from align.training import encoding
from align.training.encoding import fit_fields, positions
from align.training.fit import fit
from align.vision.fused import layer_targets, resolve_layers
from tests.one_line import fails

GRID, WIDTH, N, N_TEST = 4, 5, 150, 60


def _config(*overrides: str) -> Config:
    return load_config(Config, None, ["encoder.name=encoding", *overrides])


def _data(noise: float, n_units: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Responses (210, V) to tokens (210, 16, 5); unit u sees only the tokens around its own position; common noise."""
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(N + N_TEST, GRID * GRID, WIDTH))
    seen = [int(rng.integers(GRID * GRID)) for _ in range(n_units)]
    x = np.stack([tokens[:, place] @ rng.normal(size=WIDTH) for place in seen], axis=1)
    common = rng.normal(size=(len(x), 1)) * 2
    return x + noise * (common + 0.5 * rng.normal(size=x.shape)), tokens.astype(np.float32), seen


def _top1(aligner: object, x: np.ndarray, tokens: np.ndarray) -> float:
    embeds = aligner.predict(x[N:])["embeds"]  # type: ignore[attr-defined]
    similarity = retrieval.scores(embeds, aligner.embed_images(tokens[N:]))  # type: ignore[attr-defined]
    return float((similarity.argmax(1) == np.arange(N_TEST)).mean())


def test_fields_cover_the_grid() -> None:
    fields = positions(16)
    assert fields.shape == (10, 16) and torch.allclose(fields.mean(1), torch.ones(10, dtype=torch.float64))
    line = torch.tensor([0.125, 0.375, 0.625, 0.875], dtype=torch.float64)  # of the columns, from left to right
    middle = fields.unflatten(1, (4, 4)).mean(1) @ line / 4
    assert (middle[[0, 3, 6]] < 0.45).all() and (middle[[2, 5, 8]] > 0.55).all() and abs(middle[4] - 0.5) < 1e-9
    rows = fields.unflatten(1, (4, 4)).mean(2) @ line / 4
    assert (rows[[0, 1, 2]] < 0.45).all() and (rows[[6, 7, 8]] > 0.55).all()
    assert (fields[9] == 1).all() and (positions(7) == 1).all() and len(positions(1)) == 1


@pytest.mark.parametrize("grouped", [False, True])
def test_left_out_predictions_are_those_of_refits(grouped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 2, 3)), rng.normal(size=(30, 4))
    x, y = x - x.mean(0), y - y.mean(0)
    y[:, 0] += 5 * x[:, 0, 0]
    groups = np.arange(30) // 3 if grouped else np.arange(30)
    monkeypatch.setattr(encoding, "PENALTIES", (0.1, 3.0))
    found = fit_fields(torch.tensor(x), torch.tensor(y), groups)
    flat = x.reshape(30, 6)
    unit = np.square(flat).sum(1).mean()  # the kernel's mean diagonal
    errors, held_out = [], []
    for penalty in (0.1, 3.0):
        left = np.zeros_like(y)
        for group in np.unique(groups):
            out = groups == group
            left[out] = Ridge(penalty * unit).fit(flat[~out], y[~out]).predict(flat[out])
        errors.append(np.square(y - left).mean(0))
        held_out.append(left)
    best = np.argmin(errors, axis=0)
    assert set(best) == {0, 1}, "both penalties are chosen by some channel"
    expected = np.stack([held_out[k][:, u] for u, k in enumerate(best)], axis=1)
    np.testing.assert_allclose(found.held_out, expected, atol=1e-5)
    for u, k in enumerate(best):
        whole = Ridge((0.1, 3.0)[k] * unit).fit(flat, y[:, u])
        np.testing.assert_allclose(found.weight[u], whole.coef_, atol=1e-5)
        np.testing.assert_allclose(found.bias[u], whole.intercept_, atol=1e-5)


def test_every_channel_finds_its_field() -> None:
    x, tokens, seen = _data(noise=0.3)
    found = fit_fields(torch.tensor(tokens[:N]), torch.tensor(x[:N] - x[:N].mean(0)), np.arange(N))
    power = found.weight.unflatten(1, (GRID * GRID, WIDTH)).square().sum(2)
    assert [int(row.argmax()) for row in power] == seen


def test_it_finds_the_picture_and_discounts_common_noise() -> None:
    x, tokens, _ = _data(noise=0.6)
    tokens = tokens**3  # a long tail
    aligner = fit(_config("target.root=true"), x[:N], tokens, np.arange(N))
    ridge = fit(_config("encoder.name=ridge", "target.spread=0"), x[:N], tokens, np.arange(N))
    score, straight = _top1(aligner, x, tokens), _top1(ridge, x, tokens)
    assert score > 0.5 > straight, "chance is .017"
    assert not aligner.has_tokens and set(aligner.predict(x[:2])) == {"embeds"}
    residual = aligner.predict(x[:N])["embeds"] - aligner.embed_images(tokens[:N])
    correlation = np.corrcoef(residual.T)[np.triu_indices(12, 1)]
    assert np.abs(correlation).mean() < 0.25, "shared noise is whitened away"
    wrong = np.random.default_rng(0).permutation(N)
    assert _top1(fit(_config("target.root=true"), x[:N], tokens, wrong), x, tokens) < 0.12


def test_repetitions_seeds_and_layers() -> None:
    x, tokens, _ = _data(noise=0.5)
    single = np.concatenate([x[:N] + 0.3, x[:N] - 0.3])
    once = fit(_config(), x[:N], tokens, np.arange(N))
    twice = fit(_config("seed=5"), single, tokens, np.tile(np.arange(N), 2))
    np.testing.assert_allclose(  # the scale of single trials differs, the pictures' mean responses do not
        twice.embed_images(tokens[:5]), once.embed_images(tokens[:5]), rtol=0.1, atol=0.3
    )
    assert tensors_hash(fit(_config("seed=5"), x[:N], tokens, np.arange(N)).state()) == tensors_hash(once.state())
    big = np.concatenate([tokens, np.random.default_rng(1).normal(size=(N + N_TEST, 16, 40))], axis=2)
    for widths, least in (((WIDTH, 40), 0.5), ((WIDTH + 40,), 0.0)):
        aligner = fit(_config(), x[:N], big, np.arange(N), widths=widths)
        score = _top1(aligner, x, big)
        scale = aligner.targets.scale.unflatten(0, (16, WIDTH + 40))
        standardised = (torch.tensor(big[:N]) - aligner.targets.mean.unflatten(0, (16, -1))) / scale
        first, second = (standardised[:, :, part].square().sum() for part in (slice(WIDTH), slice(WIDTH, None)))
        assert (first / second).item() == pytest.approx(1 if len(widths) == 2 else WIDTH / 40, rel=1e-2)
        assert score > least, "a wide layer of noise does not drown the other"


def test_a_run_comes_back_and_mistakes_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, tokens, _ = _data(noise=0.5)
    aligner = fit(_config("target.root=true"), x[:N], tokens, np.arange(N))
    side = {"n_trials": 1, "ids": ["a"], "hashes": ["1"], "concepts": [""], "groups": [0]}
    manifest = {"study": "toy", "subject": "01", "log": [], "train": side, "test": side}
    save_run(tmp_path, aligner, aligner.config, manifest, {})
    run = load_run(tmp_path)
    np.testing.assert_array_equal(run.aligner.predict(x[N:])["embeds"], aligner.predict(x[N:])["embeds"])
    np.testing.assert_array_equal(run.aligner.embed_images(tokens[N:]), aligner.embed_images(tokens[N:]))
    windows = x[:N, :, None].repeat(3, axis=2)
    fails("set encoder.components=100", lambda: fit(_config(), windows, tokens, np.arange(N)))
    assert fit(_config("encoder.components=8"), windows, tokens, np.arange(N)).width == 8
    monkeypatch.setattr(encoding, "MOST_PICTURES", 100)
    fails("at most 100 pictures, got 150", lambda: fit(_config(), x[:N], tokens, np.arange(N)))


def test_joined_layers(tmp_path: Path) -> None:
    from align.config import BackboneConfig
    from align.vision.backbones import load_backbone
    from tests.align.test_targets import pictures

    backbone, images = load_backbone(BackboneConfig()), pictures(5)
    assert resolve_layers(backbone, "4+2+2+0.5") == "2+4"
    fails("no layer '99'", lambda: resolve_layers(backbone, "2+99"))
    found = layer_targets(backbone, images, ["4", "2+4"], "grid:2", tmp_path, progress=False)
    alone = layer_targets(backbone, images, ["2"], "grid:2", tmp_path, progress=False)["2"]
    both = found["2+4"]
    assert both.widths == (alone.tokens.shape[2], found["4"].tokens.shape[2]) and both.layer == "2+4"
    np.testing.assert_array_equal(both.tokens, np.concatenate([alone.tokens, found["4"].tokens], axis=2))
    assert len({both.key, alone.key, found["4"].key}) == 3 and both.ids == images.ids


def test_a_constant_makes_the_order_of_cosines_that_of_likelihoods(tmp_path: Path) -> None:
    x, tokens, _ = _data(1.5)
    rows = np.arange(N)
    plain = fit(_config(), x[:N], tokens[:N], rows)
    config = _config("encoder.constant=50")
    found = fit(config, x[:N], tokens[:N], rows)
    said, own = plain.predict(x[N:])["embeds"], plain.embed_images(tokens[N:])
    with_it, pictures = found.predict(x[N:])["embeds"], found.embed_images(tokens[N:])
    assert with_it.shape == (N_TEST, found.width) == (N_TEST, plain.width + 1)
    assert np.array_equal(found.without_constant(with_it), said), "nothing else changes"
    assert np.array_equal(found.responses_to(tokens[N:]), own) and np.array_equal(plain.without_constant(said), said)
    assert len({*with_it[:, -1], *pictures[:, -1]}) == 1
    length = np.sqrt(np.square(plain.embed_images(tokens[:N])).sum(1).mean())
    assert 10 * length < pictures[0, -1] < 60 * length, "50 lengths of left-out predictions, which are shorter"
    distance = -np.square(said[:, None] - own[None]).sum(2)
    order = retrieval.scores(with_it, pictures).argsort(1)
    assert (order == distance.argsort(1)).mean() > 0.9
    assert (retrieval.scores(said, own).argsort(1) == distance.argsort(1)).mean() < 0.5, "cosines have another order"
    side = {"n_trials": 1, "ids": ["a"], "hashes": ["1"], "concepts": [""], "groups": [0]}
    save_run(tmp_path, found, config, {"study": "toy", "subject": "01", "log": [], "train": side, "test": side}, {})
    assert np.array_equal(load_run(tmp_path).aligner.embed_images(tokens[N:]), pictures)
    wrong = ["encoder.name=ridge", "encoder.constant=2"]
    fails("encoder.constant=2 is of encoder.name=encoding, not of ridge", lambda: load_config(Config, None, wrong))
