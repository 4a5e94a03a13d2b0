"""Response models: equal to scikit-learn where it has them, and planted truths are found (layer, place, no signal)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.cross_decomposition import PLSRegression
from sklearn.linear_model import Ridge as OtherRidge
from sklearn.linear_model import RidgeCV

from align.comparison.predictability import column_correlation
from align.data.splits import grouped_folds
from align.errors import UserError
from align.response_models.attention import AttentionRouted, sine_positions
from align.response_models.banded import Banded
from align.response_models.contract import Seen, joined, take_rows
from align.response_models.cross_validation import Material, held_out_predictions, learn
from align.response_models.gradient import Training
from align.response_models.in_context import InContext
from align.response_models.joint import Joint
from align.response_models.methods import METHODS, methods_of
from align.response_models.partition import partition
from align.response_models.pls import PartialLeastSquares
from align.response_models.ridge import SHARES, Ridge
from align.response_models.scaling import Scaling, compact
from align.response_models.scores import explained, identification, unit_scores
from align.response_models.spatial import SpatialFeature

PLACES, WIDTH, PLACE = 9, 6, 5


def tokens(n: int, seed: int = 0, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, PLACES, width)).astype(np.float32)


def planted(n: int = 160, noise: float = 0.3) -> Material:
    """Units 0-2 read layer "a" at `PLACE`, 3-5 layer "b" at all places, 6 and 7 nothing."""
    rng = np.random.default_rng(1)
    a, b = tokens(n, 2), tokens(n, 3)
    drive = np.zeros((n, 8))
    drive[:, :3] = a[:, PLACE] @ rng.normal(size=(WIDTH, 3)) / WIDTH**0.5
    drive[:, 3:6] = b.sum(1) @ rng.normal(size=(WIDTH, 3)) / (WIDTH * PLACES) ** 0.5
    drive[:, 6:] = rng.normal(size=(n, 2))
    return Material({"a": a, "b": b}, drive + noise * rng.normal(size=drive.shape), np.arange(n))


def seen_of(material: Material) -> Seen:
    return material.seen(Scaling.of(material.tokens))


def folds_of(material: Material, count: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    return grouped_folds(material.groups, count, 0)


def test_ridge_is_that_of_scikit_learn() -> None:
    seen = seen_of(planted())
    x, new = joined(seen.spaces), joined(Scaling.of(planted().tokens)({"a": tokens(7, 8), "b": tokens(7, 9)}))
    for choose in ("gcv", "loo"):
        fit = Ridge(choose).fit(seen)
        estimate = fit.predict({"all": new[:, None]})
        for u, alpha in enumerate(fit.per_unit()["penalty"]):
            other = OtherRidge(alpha=alpha, solver="svd").fit(x, seen.responses[:, u])
            np.testing.assert_allclose(estimate[:, u], other.predict(new), rtol=1e-6, atol=1e-6)
    theirs = RidgeCV(SHARES, alpha_per_target=True).fit(x, seen.responses)
    np.testing.assert_array_equal(fit.per_unit()["penalty"], theirs.alpha_)


@pytest.mark.parametrize(("units", "components"), [(1, 3), (8, 25), (150, 5)])
def test_partial_least_squares_is_that_of_scikit_learn(units: int, components: int) -> None:
    material = planted(60)
    y = material.responses @ np.random.default_rng(4).normal(size=(8, units))
    seen = seen_of(replace(material, responses=y))
    x, new = joined(seen.spaces).astype(np.float64), tokens(7, 8, 2 * WIDTH).reshape(7, -1).astype(np.float64)
    other = PLSRegression(components, scale=False, tol=1e-24, max_iter=100_000).fit(x, y)
    estimate = PartialLeastSquares(components).fit(seen).predict({"all": new[:, None]})
    np.testing.assert_allclose(
        estimate, other.predict(new).reshape(estimate.shape), rtol=1e-6, atol=1e-6 * np.abs(estimate).max()
    )


def test_partial_least_squares_stops_where_nothing_is_shared() -> None:
    seen = seen_of(planted(30))
    fit = PartialLeastSquares(25).fit(replace(seen, responses=np.ones((30, 2))))
    np.testing.assert_allclose(fit.predict(seen.spaces), 1.0)


@pytest.mark.parametrize("name", ["ridge", "banded", "pls"])
def test_spaces_of_the_same_inner_products_give_the_same_predictions(name: str) -> None:
    material = planted(50)
    spaces = Scaling.of(material.tokens)(material.tokens)
    rows, new = np.arange(40), np.arange(40, 50)
    found = []
    for part in (spaces, compact(spaces)):
        seen = Seen(part, material.responses, material.groups).take(rows)
        found.append(METHODS[name]().fit(seen).predict(take_rows(part, new)))
    assert compact(spaces)["a"].shape[1:] == (1, min(50, compact(spaces)["a"].shape[2]))
    np.testing.assert_allclose(found[0], found[1], atol=2e-4)


def test_scaling_takes_nothing_from_pictures_that_are_not_fitted() -> None:
    material, rows = planted(60), np.arange(40)
    changed = {name: np.concatenate([part[:40], 9 * part[40:]]) for name, part in material.tokens.items()}
    folds = [(rows, np.arange(40, 50))]
    one, _ = held_out_predictions(Ridge(), material, folds)
    strange = {name: np.concatenate([part[:50], changed[name][50:]]) for name, part in material.tokens.items()}
    other, _ = held_out_predictions(Ridge(), replace(material, tokens=strange), folds)
    np.testing.assert_allclose(one[40:50], other[40:50], atol=1e-4)
    lengths = [np.square(part).sum((1, 2)).mean() for part in Scaling.of(material.tokens)(material.tokens).values()]
    np.testing.assert_allclose(lengths, 1.0, rtol=1e-4)


def test_banded_ridge_finds_the_layer_of_every_unit() -> None:
    material = planted()
    fit = Banded().fit(seen_of(material))
    shares = fit.per_unit()["share of a"]
    assert (shares[:3] > 0.9).all() and (shares[3:6] < 0.1).all()
    estimates, _ = held_out_predictions(Banded(), material, folds_of(material))
    plain, _ = held_out_predictions(Ridge(), material, folds_of(material))
    scored = [rows for _, rows in folds_of(material)]
    gain = explained(material.responses, estimates, scored) - explained(material.responses, plain, scored)
    assert gain[:6].mean() > 0.02


def test_parts_of_a_banded_prediction_add_up_to_it() -> None:
    seen = seen_of(planted(60))
    fit = Banded(draws=5).fit(seen)
    level = seen.responses.mean(axis=0)
    np.testing.assert_allclose(sum(fit.by_space(seen.spaces).values()) + level, fit.predict(seen.spaces), atol=1e-8)


def test_a_partition_says_which_layer_explains() -> None:
    material = planted()
    found = partition(material, folds_of(material), Banded(draws=8))
    assert found.unique["a"][:3].min() > 0.35 and np.abs(found.unique["b"][:3]).max() < 0.1
    assert found.unique["b"][3:6].min() > 0.35 and np.abs(found.unique["a"][3:6]).max() < 0.1
    np.testing.assert_allclose(sum(found.product.values()), found.full, atol=0.02)
    np.testing.assert_allclose(found.shared + sum(found.unique.values()), found.full, atol=1e-12)
    np.testing.assert_allclose(found.full[6:], 0, atol=0.15)
    with pytest.raises(ValueError, match="two spaces"):
        partition(replace(material, tokens={"a": material.tokens["a"]}), folds_of(material))


@pytest.mark.parametrize("name", ["spatial_feature", "attention"])
def test_readouts_find_the_planted_place(name: str) -> None:
    rng = np.random.default_rng(6)
    a = tokens(240, 2)
    drive = a[:, PLACE] @ rng.normal(size=(WIDTH, 4))
    material = Material({"a": a}, drive + 0.3 * rng.normal(size=drive.shape), np.arange(240))
    training = Training(epochs={"spatial_feature": 100, "attention": 40}[name], batch=48, rate=1e-2, splits=1)
    kind = {"spatial_feature": SpatialFeature, "attention": AttentionRouted}[name]
    estimates, found = held_out_predictions(kind(training=training), material, folds_of(material)[:1])
    scored = folds_of(material)[0][1]
    assert (found["place"].argmax(1) == PLACE).all()
    np.testing.assert_allclose(found["place"].sum(1), 1, rtol=1e-4)
    assert column_correlation(estimates[scored], drive[scored]).min() > 0.8


def test_training_step_by_step_repeats_itself_and_leaves_the_generator_alone() -> None:
    import torch

    material = planted(60)
    method = AttentionRouted(hidden=8, heads=2, training=Training(epochs=2, splits=1))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, other = (method.fit(seen_of(material)).predict(seen_of(material).spaces) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


def test_positions_tell_places_apart() -> None:
    for places in (9, 5):
        rows = sine_positions(places, 16)
        assert rows.shape == (places, 16)
        assert min(float((rows[i] - rows[j]).norm()) for i in range(places) for j in range(i)) > 0.1


def people() -> tuple[list[Material], Material]:
    """Units of everybody read two features at some place; the new subject's pictures are others."""
    rng, found = np.random.default_rng(7), []
    axes = np.linalg.qr(rng.normal(size=(24, 2)))[0]
    for number in range(4):
        n, units = (200, 12) if number < 3 else (160, 10)
        x = tokens(n, 20 + number, 24)
        where = rng.dirichlet(np.full(PLACES, 0.3), size=units)
        drive = np.einsum("npd,up,du->nu", x, where, axes @ rng.normal(size=(2, units)))
        y = drive / drive.std(0) + 0.7 * rng.normal(size=drive.shape)
        found.append(Material({"a": x}, y, np.arange(n)))
    return found[:3], found[3]


@pytest.mark.parametrize("method", [InContext(), Joint(general=Training(30, 64, 4e-3, splits=1))], ids=lambda m: m.name)
def test_few_pictures_suffice_where_other_units_are_like(method: InContext | Joint) -> None:
    others, new = people()
    folds = [(np.arange(40), np.arange(60, 160))]
    learnt = learn(method, others)
    r = {}
    for one in (method, Ridge()):
        estimates, _ = held_out_predictions(one, new, folds, learnt if one is method else None)
        r[one.name] = column_correlation(estimates[60:], new.responses[60:]).mean()
    assert r[method.name] > r["ridge"] + 0.1
    with pytest.raises(ValueError, match="other subjects"):
        method.fit(seen_of(new))


def test_methods_that_learn_from_others_say_so() -> None:
    assert {name for name, kind in METHODS.items() if kind.from_others} == {"joint", "in_context"}
    assert learn(Ridge(), []) is None


def test_noise_is_found_to_be_noise() -> None:
    rng = np.random.default_rng(8)
    material = Material({"a": tokens(120, 2)}, rng.normal(size=(120, 300)), np.arange(120))
    folds = folds_of(material, 5)
    estimates, _ = held_out_predictions(Ridge(), material, folds)
    scored = [rows for _, rows in folds]
    found = unit_scores(material.responses, estimates, scored, 0, 300)
    assert abs(found.r.mean()) < 0.03
    assert (found.p <= 0.05).mean() <= 0.05 and (found.q <= 0.05).sum() == 0
    one = unit_scores(material.responses, estimates, scored[:1], 0, 300)
    assert stats.kstest(one.p, "uniform").pvalue > 0.05
    assert (one.q <= 0.05).sum() <= 1


def test_p_and_q_separate_units_that_are_driven() -> None:
    material = planted()
    folds = folds_of(material)
    estimates, _ = held_out_predictions(Ridge(), material, folds)
    found = unit_scores(material.responses, estimates, [rows for _, rows in folds], 0, 400)
    assert (found.q[:6] <= 0.05).all() and (found.q[6:] > 0.05).all()
    np.testing.assert_allclose(found.q, stats.false_discovery_control(found.p))
    assert found.p.min() == pytest.approx(2 / 401)
    one = unit_scores(material.responses, estimates, [folds[0][1]], 0, 400)
    assert one.p.min() == pytest.approx(1 / 401)
    own = [stats.pearsonr(material.responses[rows, 0], estimates[rows, 0])[0] for _, rows in folds]
    assert found.r[0] == pytest.approx(np.mean(own))


def test_pictures_are_found_by_their_predicted_responses() -> None:
    rng = np.random.default_rng(9)
    y = rng.normal(size=(90, 20))
    folds = np.split(np.arange(90), 3)
    assert identification(y, y + 0.01 * rng.normal(size=y.shape), folds)["top1"] == 1.0
    blind = identification(y, rng.normal(size=y.shape), folds)
    assert blind["chance"] == pytest.approx(3 / 90) and blind["top1"] < 0.15
    assert identification(y, y, [np.arange(90)])["top1"] == 1.0
    together = rng.normal(size=(90, 1)) * rng.normal(size=(1, 20))  # noise that all units share
    noisy = y + 4 * together
    assert identification(noisy, y, folds)["top1"] > 0.8


def test_an_unknown_method_is_named_with_the_nearest() -> None:
    assert [one.name for one in methods_of(["ridge", "pls", "ridge"])] == ["ridge", "pls"]
    with pytest.raises(UserError, match="'atention' is not known; did you mean 'attention'"):
        methods_of(["atention"])
