"""Universality on planted truth, against scikit-learn, and its chance; components against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score

from align.comparison.components import fit_components
from align.comparison.null import p_values, q_values, rank_correlation, shuffled
from align.comparison.predictability import Regression, predictability
from align.comparison.ridge import ALPHAS
from align.comparison.universality import brain_similarity, corrected, reliability, universality
from tests.align.fixture_comparison import NETWORKS, PRIVATE, SHARED, plant

FIT, N = 500, 1500
RIDGE = Regression()


def folds(n: int, count: int = 5) -> list[tuple[np.ndarray, np.ndarray]]:
    order = np.random.default_rng(1).permutation(n)
    return [(np.setdiff1d(order, part), np.sort(part)) for part in np.array_split(order, count)]


@pytest.fixture(scope="module")
def measured() -> dict[str, np.ndarray]:
    """All dimensions of three planted networks, with the kind of the factor that each is; its scores by every rule."""
    made, rng = plant(0, N), np.random.default_rng(2)
    here = slice(FIT, None)
    bases = {name: fit_components(x[:FIT], most=len(made.kinds)) for name, x in made.features.items()}
    scores = {name: one.scores(made.features[name][here]) for name, one in bases.items()}
    features = {name: x[here] for name, x in made.features.items()}
    shared = universality(scores, features, folds(N - FIT), RIDGE, 300, rng)
    brain = brain_similarity(made.brain[here], np.hstack(list(scores.values())), folds(N - FIT), RIDGE, 300, rng)
    kinds = []
    for name, part in scores.items():
        r = np.corrcoef(part.T, made.factors[name][here].T)[: part.shape[1], part.shape[1] :]
        assert (np.abs(r).max(1) > 0.7).all()  # each dimension is one factor
        kinds.append(made.kinds[np.abs(r).argmax(1)])
    universal = np.concatenate([one.median for one in shared.values()])
    p = np.concatenate([p_values(one.median, one.null) for one in shared.values()])
    found = {"kind": np.concatenate(kinds), "universality": universal, "p": p, "brain": brain.r, "null": brain.null}
    return found | {"brain_p": p_values(brain.r, brain.null)}


def test_three_planted_kinds_are_told_apart(measured: dict[str, np.ndarray]) -> None:
    kind, universal, brain = measured["kind"], measured["universality"], measured["brain"]
    assert {name: int((kind == name).sum()) for name in (SHARED, NETWORKS, PRIVATE)} == dict.fromkeys(
        (SHARED, NETWORKS, PRIVATE), 15
    )
    assert roc_auc_score(kind != PRIVATE, universal) >= 0.95
    of_networks = kind != PRIVATE
    assert roc_auc_score(kind[of_networks] == SHARED, brain[of_networks]) >= 0.95
    # not 0: a component that is estimated mixes a little of its neighbours in
    assert abs(universal[kind == PRIVATE].mean()) < 0.1 and abs(brain[kind != SHARED].mean()) < 0.1
    assert (q_values(measured["p"])[kind != PRIVATE] <= 0.05).all()
    assert rank_correlation(universal, kind != PRIVATE) > 0.8


def test_a_shuffled_brain_carries_nothing(measured: dict[str, np.ndarray]) -> None:
    made, order = plant(0, 4000), np.random.default_rng(3).permutation(4000)
    r = predictability(made.brain[order], made.factors["net0"], folds(4000), RIDGE)
    assert np.abs(r).mean() < 0.03 and abs(r.mean()) < 0.02
    assert abs(measured["null"].mean()) < 0.01


def test_p_of_dimensions_without_relation_is_uniform() -> None:
    """200 draws; some with a few large values, as noisy components have."""
    made, rng = plant(4, 300), np.random.default_rng(5)
    targets = np.concatenate([rng.normal(size=(300, 100)), rng.standard_t(3, size=(300, 100))], axis=1)
    null = shuffled(targets, 2000, rng)
    r = predictability(made.features["net0"], np.hstack([targets, null]), folds(300), RIDGE)
    p = p_values(r[:200], r[200:])
    assert stats.kstest(p, "uniform").pvalue > 0.05
    assert (q_values(p) > 0.05).mean() > 0.98


def test_universality_is_that_of_scikit_learn() -> None:
    made, regression = plant(6, 120, networks=4, width=26), Regression("ridge", ALPHAS[1:], "loo")
    scores = {name: PCA(5).fit_transform(x) for name, x in made.features.items()}
    parts = folds(120, 3)
    found = universality(scores, made.features, parts, regression, 0, np.random.default_rng(0))
    for name, targets in scores.items():
        by_predictor = []
        for other, x in made.features.items():
            if other == name:
                continue
            r = np.zeros((3, 5))
            for k, (fitted, scored) in enumerate(parts):
                z = (x - x[fitted].mean(0)) / x[fitted].std(0)
                model = RidgeCV(ALPHAS[1:], alpha_per_target=True).fit(z[fitted], targets[fitted])
                estimate = model.predict(z[scored])
                r[k] = [np.corrcoef(estimate[:, t], targets[scored, t])[0, 1] for t in range(5)]
            by_predictor.append(r.mean(0))
        assert found[name].predictors == tuple(other for other in made.features if other != name)
        np.testing.assert_allclose(found[name].by_predictor, by_predictor, rtol=0, atol=1e-6)
        np.testing.assert_allclose(found[name].median, np.median(by_predictor, axis=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("n", "width"), [(80, 12), (20, 30)])
@pytest.mark.parametrize("zscore", [False, True])
def test_components_are_those_of_scikit_learn(n: int, width: int, zscore: bool) -> None:
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, width)) * np.geomspace(1, 100, width) + 50
    x[:, 3] = 2.0
    z = x / np.where(x.std(0) > 0, x.std(0), 1) if zscore else x
    found, expected = fit_components(x, zscore=zscore), PCA().fit(z)
    assert len(found.axes) == min(n - 1, width - 1)
    np.testing.assert_allclose(found.explained, expected.explained_variance_ratio_[: len(found.axes)], atol=1e-10)
    np.testing.assert_allclose(np.abs(found.scores(x)), np.abs(expected.transform(z))[:, : len(found.axes)], atol=1e-6)
    np.testing.assert_allclose(found.kept(found.scores(x), np.arange(len(found.axes))), x, atol=1e-6)
    two = found.kept(found.scores(x), np.array([0, 2]))
    np.testing.assert_allclose(found.scores(two)[:, [0, 2]], found.scores(x)[:, [0, 2]], atol=1e-6)
    assert np.abs(found.scores(two)[:, 1]).max() < 1e-6


def test_p_and_partial_correlation_by_hand() -> None:
    np.testing.assert_allclose(p_values(np.array([0.5, 2.0]), np.array([0.1, 0.5, 0.9])), [3 / 4, 1 / 4])
    rng = np.random.default_rng(0)
    z = rng.normal(size=200)
    a, b = z + 0.3 * rng.normal(size=200), z + 0.3 * rng.normal(size=200)
    assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    r = stats.spearmanr(np.stack([a, b, z], axis=1)).statistic
    expected = (r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2))
    assert rank_correlation(a, b, z) == pytest.approx(expected, abs=1e-12)
    assert abs(rank_correlation(a, b, z)) < 0.2 < rank_correlation(a, b)


def test_reliability_compares_the_same_pictures() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(30, 4))
    names = [f"p{i}" for i in range(30)]
    orders = {"01": rng.permutation(30), "02": rng.permutation(30)[:20], "03": np.arange(3)}
    estimates = {who: truth[order] + 0.1 * rng.normal(size=(len(order), 4)) for who, order in orders.items()}
    pictures = {who: tuple(names[i] for i in order) for who, order in orders.items()}
    found = reliability(estimates, pictures)
    at = {i: row for row, i in enumerate(orders["01"])}
    rows = [at[i] for i in orders["02"]]
    expected = [np.corrcoef(estimates["01"][rows, t], estimates["02"][:, t])[0, 1] for t in range(4)]
    assert found is not None
    np.testing.assert_allclose(found, expected)
    assert reliability({"01": estimates["01"], "03": estimates["03"]}, pictures) is None
    np.testing.assert_allclose(corrected(np.array([0.3, 0.2, -0.1]), np.array([0.25, -0.1, 0.5])), [0.6, 0, 0])
