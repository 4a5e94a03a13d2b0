"""Views by the uncertainty of a pair: the rule against loops, what the loss sees, resuming, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from align.checkpoint import tensors_hash
from align.config import Config, load_config
from align.data.signals import Recording, Stimuli, Trials
from align.errors import UserError
from align.model.aligner import Network
from align.sweep import run as sweep
from align.training import optimise as training
from align.training.batches import Batch, Pairs
from align.training.fit import fit
from align.training.objective import loss_parts
from align.training.state import load_state
from align.training.training_set import join
from align.training.uncertainty import MEDIUM, STRONG, WEAK, Uncertainty, uncertainty_of
from align.vision.fused import candidate_targets, layer_targets, training_targets
from tests.align.fixture_sweep import Toy, toy, toy_config
from tests.align.test_targets import pictures, tiny_backbone
from tests.one_line import fails

__all__ = ["toy"]  # a fixture
VIEWS = "target.uncertain_views=[foveal:45,foveal:51,foveal:57]"
SMALL = ["target.components=6", "encoder.width=8", "train.epochs=6", "train.batch_size=20", "target.spread=0", VIEWS]
N = 80


def _config(*overrides: str) -> Config:
    return load_config(Config, None, [*SMALL, *overrides])


def _data() -> tuple[np.ndarray, list[np.ndarray]]:
    """Signals (80, 12), and tokens (80, 3, 4) of the weak, medium and strong view."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(N, 5))
    x = hidden @ rng.normal(size=(5, 12)) + rng.normal(size=(N, 12))
    views = [hidden @ rng.normal(size=(5, 12)) + 0.5 * rng.normal(size=(N, 12)) for _ in range(3)]
    return x.astype(np.float32), [view.reshape(N, 3, 4).astype(np.float16) for view in views]


def _by_loops(batches: list[tuple[list[int], np.ndarray]], n: int, alpha: float, gamma: float) -> tuple[Any, Any]:
    """Memory and level of n pairs after batches of (rows, similarities), one pair after the other."""
    memory, level = [1.0] * n, [1] * n
    for rows, similarity in batches:
        for row, now in zip(rows, similarity, strict=True):
            memory[row] = gamma * float(now) + (1 - gamma) * memory[row]
        own = [memory[row] for row in rows]
        reach = stats.norm.ppf(1 - alpha / 2) * np.std(own, ddof=1)
        for row, now in zip(rows, similarity, strict=True):
            level[row] = 0 if now > np.mean(own) + reach else 2 if now < np.mean(own) - reach else 1
    return memory, level


@pytest.mark.parametrize(("alpha", "gamma"), [(0.05, 0.3), (0.5, 0.3), (0.05, 1.0), (0.8, 0.7)])
def test_memory_and_levels_are_those_of_loops(alpha: float, gamma: float) -> None:
    rng, state = np.random.default_rng(1), Uncertainty(30, alpha, gamma)
    batches = []
    for _ in range(4):
        order = rng.permutation(30)
        batches += [(list(part), rng.normal(2, 3, 15).astype(np.float32)) for part in (order[:15], order[15:])]
    for rows, similarity in batches:
        state.observe(torch.tensor(rows), torch.tensor(similarity))
    memory, level = _by_loops(batches, 30, alpha, gamma)
    np.testing.assert_allclose(state.similarity, memory, rtol=1e-5)
    assert state.level.tolist() == level and set(level) == {WEAK, MEDIUM, STRONG}


def test_one_pair_alone_keeps_the_medium_view() -> None:
    state = Uncertainty(3, 0.05, 0.3)
    state.observe(torch.tensor([1]), torch.tensor([50.0]))
    assert state.level.tolist() == [MEDIUM] * 3 and state.similarity.tolist() == pytest.approx([1, 15.7, 1])


def test_a_pair_that_fits_badly_is_shown_the_strong_view_and_the_others_stay() -> None:
    state = Uncertainty(40, 0.05, 0.3)
    similarity = torch.full((40,), 1.0)
    similarity[7], similarity[11] = -9.0, 11.0
    state.observe(torch.arange(40), similarity)
    assert [int(state.level[i]) for i in (7, 11, 3)] == [STRONG, WEAK, MEDIUM]
    levels = torch.arange(3.0)[:, None, None] * 100 + torch.arange(4.0)[:, None]  # (3, K, 1): level and picture
    rows = torch.tensor([3, 7, 11])
    batch = Batch(torch.zeros(3, 2), levels[1, :3], torch.tensor([2, 0, 3]), rows=rows, levels=levels)
    assert state.pictures(batch)[:, 0].tolist() == [102, 200, 3]


def test_the_image_side_sees_the_level_and_the_token_head_the_medium_view() -> None:
    torch.manual_seed(0)
    config = _config("train.image_dropout=0", "train.noise=0", "encoder.dropout=0")
    levels = torch.randn(3, 10, 6)
    stimulus = torch.randperm(10)
    pairs = Pairs(torch.randn(10, 5), levels[MEDIUM], stimulus, distinct=True, levels=levels)
    network, gain = Network(config, (5,), 6).eval(), torch.ones(6)
    state = uncertainty_of(config, 10)
    assert state is not None
    batch = pairs.batch(np.arange(10))
    plain = loss_parts(network, config, batch, gain)
    first = loss_parts(network, config, batch, gain, state)
    assert first["contrastive"] == plain["contrastive"], "all views are medium at the start"
    hidden = network.encoder(batch.signals)
    image = torch.nn.functional.normalize(network.image_head(levels[MEDIUM][stimulus]), dim=1)
    seen = (network.logit_scale.exp() * hidden @ image.T).diagonal()
    memory, level = _by_loops([(list(range(10)), seen.detach().numpy())], 10, 0.05, 0.3)
    np.testing.assert_allclose(state.similarity, memory, rtol=1e-5)
    assert state.level.tolist() == level
    state.level = torch.tensor([WEAK, MEDIUM, STRONG, *[MEDIUM] * 7])
    shown = levels[MEDIUM].clone()
    shown[stimulus[0]], shown[stimulus[2]] = levels[WEAK, stimulus[0]], levels[STRONG, stimulus[2]]
    expected = loss_parts(network, config, replace(batch, components=shown[stimulus]), gain)["contrastive"]
    found = loss_parts(network, config, batch, gain, state)
    torch.testing.assert_close(found["contrastive"], expected)
    assert found["contrastive"] != plain["contrastive"] and found["regression"] == plain["regression"]


# --- whole fits ---


def _fit(folder: Path | None, views: list[np.ndarray] | None = None, *overrides: str) -> str:
    x, own = _data()
    weak, medium, strong = own if views is None else views
    config = _config("target.spread=1", "train.checkpoint_every=4", *overrides)
    return tensors_hash(fit(config, x, medium, np.arange(N), view_tokens=[weak, strong], state_dir=folder).state())


def test_views_change_what_is_learnt_and_a_gate_that_never_opens_is_the_medium_view(tmp_path: Path) -> None:
    x, views = _data()
    plain = _config("target.spread=1", "train.checkpoint_every=4", "target.uncertain_views=[]")
    medium = tensors_hash(fit(plain, x, views[1], np.arange(N)).state())
    assert _fit(None, None, "target.uncertain_alpha=1e-300") == medium
    whole = _fit(None)
    assert whole != medium
    for changed in (WEAK, STRONG):
        other = [view + (k == changed) for k, view in enumerate(views)]
        assert _fit(None, other) != whole, "both views are looked at"


def test_a_killed_fit_keeps_the_memory_of_its_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _fit(tmp_path / "whole")
    real = training.seed_step
    for stage, at in (("spread", 10), ("train", 3), ("train", 11), ("train", 17)):
        folder = tmp_path / f"{stage} {at}"

        def killed(seed: int, step: int, name: str = "", where: tuple[str, int] = (stage, at)) -> Any:
            if (name, step) == where:
                raise KeyboardInterrupt
            return real(seed, step, name)

        monkeypatch.setattr(training, "seed_step", killed)
        with pytest.raises(KeyboardInterrupt):
            _fit(folder)
        monkeypatch.setattr(training, "seed_step", real)
        assert _fit(folder) == whole, (stage, at)
    state = Uncertainty(N, 0.05, 0.3)
    network = Network(_config(), (12,), 6)
    sums = training._Sums(["contrastive", "regression", "loss"])
    modules: dict[str, torch.nn.Module] = {"network": network, "sums": sums, "uncertainty": state}
    assert load_state(tmp_path / "whole" / "train", modules, training._optimizer(network, _config())) == 24
    assert state.similarity.ne(1).all() and set(state.level.tolist()) == {WEAK, MEDIUM, STRONG}


def test_other_views_start_afresh(tmp_path: Path) -> None:
    _, views = _data()
    _fit(tmp_path / "one")
    changed = [views[0] + 1, *views[1:]]
    assert _fit(tmp_path / "one", changed) == _fit(tmp_path / "two", changed)


def test_streamed_signals_end_with_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next batch is read before the present one is learnt from: its views must be chosen afterwards."""
    held = _fit(None, None, "train.epochs=4", "encoder.components=5", "train.batch_size=40")
    real, seen = training.loss_parts, []

    def slow(network: Network, config: Config, batch: Batch, gain: torch.Tensor, state: Uncertainty) -> Any:
        assert batch.rows is not None
        seen.append((state.level[batch.rows].clone(), batch.rows.clone()))
        return real(network, config, batch, gain, state)

    monkeypatch.setattr(training, "loss_parts", slow)
    ahead = training.Ahead
    monkeypatch.setattr(training, "Ahead", lambda make, steps, _: ahead(make, steps, True))
    assert _fit(None, None, "train.epochs=4", "encoder.components=5", "train.batch_size=40") == held
    assert any((level != MEDIUM).any() for level, _ in seen[2:])


# --- targets and studies ---


def test_tokens_of_three_views_are_cached_and_candidates_are_the_medium_ones(tmp_path: Path) -> None:
    backbone, images, target = tiny_backbone(), pictures(5), _config("target.pooling=mean").target
    found = training_targets(backbone, images, ["first", "first+second"], target, tmp_path, False)

    def of(layer: str, *views: str) -> Any:
        return layer_targets(backbone, images, [layer], "mean", tmp_path, False, views)[layer]

    for layer, got in found.items():
        for tokens, view in zip(
            (got.view_tokens[0], got.tokens, got.view_tokens[1]), target.uncertain_views, strict=True
        ):
            np.testing.assert_array_equal(tokens, of(layer, view).tokens)
        assert got.key == of(layer, "foveal:51").key
        candidates = candidate_targets(backbone, images, [layer], target, tmp_path, False)[layer]
        np.testing.assert_array_equal(candidates.tokens, got.tokens)
        apart = candidate_targets(backbone, images, [layer], replace(target, candidate_views=False), tmp_path, False)
        np.testing.assert_array_equal(apart[layer].tokens, of(layer).tokens)
    assert np.abs(found["first"].view_tokens[0] - found["first"].tokens).max() > 0


def test_joined_subjects_keep_views_and_pictures_together() -> None:
    ids = [("a", "b", "c"), ("c", "d", "a")]
    recordings, trials, tokens, other = [], [], [], []
    for k, names in enumerate(ids):
        values = np.array([ord(name) for name in names], dtype=np.float32)
        stimuli = Stimuli(names, lambda i: np.zeros((2, 2, 3), np.uint8), np.arange(3), ("",) * 3, ("",) * 3)
        stimuli = replace(stimuli, known_hashes=lambda names=names: names)
        part = Trials(values[[2, 0, 1], None], np.array([2, 0, 1]), np.zeros(3, int))
        recordings.append(Recording("made", str(k), part, part, stimuli))
        trials.append(part)
        tokens.append(values[:, None, None])
        other.append(1000 + values[:, None, None])
    data = join(recordings, trials, tokens)
    values = data.tokens.all()[:, 0, 0]
    assert values.tolist() == [97, 98, 99, 100]
    assert data.of_pictures(other).all()[:, 0, 0].tolist() == (values + 1000).tolist()
    assert data.signals.all()[:, 0].tolist() == values[data.stimulus].tolist()


def test_a_sweep_trains_with_the_views_of_its_recipe(
    toy: type[Toy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    from align.training import training_set

    def watched(config: Config, x: Any, tokens: Any, *rest: Any, view_tokens: Any, **options: Any) -> Any:
        given.append((tokens.all(), [view.all() for view in view_tokens]))
        return fit(config, x, tokens, *rest, view_tokens=view_tokens, **options)

    monkeypatch.setattr(training_set, "fit", watched)
    config = toy_config(seeds=1, folds=2, encoders=["mlp"], layers=["1"])
    config = replace(config, subjects=["01"], target=_config("target.pooling=grid:2", "target.components=8").target)
    views = ["foveal:9", "foveal:51", "foveal:111"]  # names of three lengths: the toy's tokens differ by them
    config = replace(config, target=replace(config.target, uncertain_views=views))
    result = sweep.run(config, out=tmp_path, progress=False, test=False).summary
    assert len(given) == 2 and result["curves"][0]["points"]
    for medium, (weak, strong) in given:
        torch.testing.assert_close(weak / medium, torch.full_like(medium, 1.8 / 1.9), atol=2e-3, rtol=0)
        torch.testing.assert_close(strong / medium, torch.full_like(medium, 2.0 / 1.9), atol=2e-3, rtol=0)
    line = fails("acts in the contrastive part", lambda: sweep.run(config, encoders=["ridge"], out=tmp_path))
    assert "uncertain_views" in line


# --- mistakes ---

WRONG = [
    (["target.uncertain_views=[foveal:45,foveal:51]"], "three different views"),
    (["target.uncertain_views=[foveal:45,foveal:51,foveal:51.0]"], "three different views"),
    (["target.uncertain_views=[foveal:45,foveal:51,fovea:57]"], "'fovea:57' is not known"),
    (["target.views=[blur:15]"], "both say what is seen"),
    (["encoder.name=ridge"], "acts in the contrastive part"),
    (["encoder.name=encoding"], "acts in the contrastive part"),
    (["loss.contrastive=0"], "acts in the contrastive part"),
    (["train.mixup=0.2"], "follows single pairs"),
    (["train.mixco=0.2"], "follows single pairs"),
    (["target.uncertain_alpha=1"], "uncertain_alpha=1 should be above 0 and below 1"),
    (["target.uncertain_gamma=0"], "uncertain_gamma=0 should be above 0 and at most 1"),
]


@pytest.mark.parametrize(("overrides", "message"), WRONG)
def test_what_cannot_be_is_refused_in_one_line(overrides: list[str], message: str) -> None:
    fails(message, lambda: _config(*overrides))
    x, views = _data()
    unchecked = load_config(Config, None, [*SMALL, *overrides], check=False)
    fails(message, lambda: fit(unchecked, x, views[1], np.arange(N), view_tokens=[views[0], views[2]]))


def test_views_that_are_missing_or_not_wanted_are_refused() -> None:
    x, views = _data()
    fails("it should be 2 times", lambda: fit(_config(), x, views[1], np.arange(N)))
    fails(
        "it should be 2 times",
        lambda: fit(_config(), x, views[1], np.arange(N), view_tokens=[views[0], views[2][:, :2]]),
    )
    plain = _config("target.uncertain_views=[]")
    fails("it should be 0 times", lambda: fit(plain, x, views[1], np.arange(N), view_tokens=[views[0], views[2]]))
    assert uncertainty_of(plain, 3) is None
    with pytest.raises(UserError, match="tokens of three views"):
        Uncertainty(3, 0.05, 0.3).pictures(Batch(x, x, x))  # type: ignore[arg-type]
