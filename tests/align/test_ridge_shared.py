"""The shared ridge against scikit-learn: slopes, penalties by leave-one-out and by generalised cross-validation."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge, RidgeCV

from align.comparison.predictability import Regression, column_correlation, predictability
from align.comparison.ridge import ALPHAS, SharedRidge

SHAPES = pytest.mark.parametrize(("n", "p"), [(60, 12), (30, 80)], ids=["tall", "wide"])


def problem(n: int, p: int, targets: int = 9) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    x, x_new = 3 + rng.normal(size=(n, p)), 3 + rng.normal(size=(7, p))
    signal = x @ rng.normal(size=(p, targets)) / np.sqrt(p)
    return x, 5 + signal + np.geomspace(0.01, 30, targets) * rng.normal(size=(n, targets)), x_new


@SHAPES
@pytest.mark.parametrize("alpha", [1e-2, 1.0, 300.0])
def test_one_penalty_is_ridge_of_scikit_learn(n: int, p: int, alpha: float) -> None:
    x, y, x_new = problem(n, p)
    fit, expected = SharedRidge(x).fit(y, (alpha,)), Ridge(alpha=alpha).fit(x, y)
    np.testing.assert_allclose(fit.predict(x_new), expected.predict(x_new), rtol=0, atol=1e-8)
    weight, bias = fit.slopes()
    np.testing.assert_allclose(weight, expected.coef_.T, rtol=0, atol=1e-8)
    np.testing.assert_allclose(bias, expected.intercept_, rtol=0, atol=1e-7)


@SHAPES
def test_leaving_one_out_chooses_as_ridge_cv(n: int, p: int) -> None:
    x, y, x_new = problem(n, p)
    alphas = ALPHAS[1:]  # scikit-learn takes no penalty of 0
    fit, expected = SharedRidge(x).fit(y, alphas, "loo"), RidgeCV(alphas, alpha_per_target=True).fit(x, y)
    assert len(set(fit.alpha)) > 2
    np.testing.assert_array_equal(fit.alpha, expected.alpha_)
    np.testing.assert_allclose(fit.predict(x_new), expected.predict(x_new), rtol=0, atol=1e-8)


@SHAPES
@pytest.mark.parametrize("choose", ["gcv", "loo"])
def test_errors_are_those_of_the_hat_matrix_or_of_refits(n: int, p: int, choose: str) -> None:
    """Of a penalty of 0 where nothing is left over, the limit: that of a tiny penalty."""
    x, y, _ = problem(n, p, 4)
    base, centred = SharedRidge(x), y - y.mean(0)
    found = base.errors(centred, base.left.T @ centred, (0.0, 0.5, 40.0), choose)
    small = 1e-7 if p >= n else 0.0
    for row, alpha in enumerate((small, 0.5, 40.0)):
        model = Ridge(alpha=alpha, solver="svd") if alpha else LinearRegression()
        if choose == "gcv":
            hat = model.fit(x, np.eye(n)).predict(x)
            residual, freedom = y - hat @ y, n - np.trace(hat)
            np.testing.assert_allclose(found[row], np.square(residual).sum(0) / freedom**2, rtol=1e-4)
        else:
            left_out = [y[i] - model.fit(np.delete(x, i, 0), np.delete(y, i, 0)).predict(x[[i]])[0] for i in range(n)]
            np.testing.assert_allclose(found[row], np.square(left_out).mean(0), rtol=1e-5)


def test_no_penalty_is_the_least_norm_solution() -> None:
    for shape in ((60, 12), (30, 80)):
        x, y, x_new = problem(*shape)
        slopes = np.linalg.pinv(x - x.mean(0), rcond=1e-10) @ (y - y.mean(0))
        expected = (x_new - x.mean(0)) @ slopes + y.mean(0)
        np.testing.assert_allclose(SharedRidge(x).fit(y, (0.0,)).predict(x_new), expected, rtol=0, atol=1e-7)


def folds(n: int, count: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    order = np.random.default_rng(1).permutation(n)
    return [(np.setdiff1d(order, part), np.sort(part)) for part in np.array_split(order, count)]


@pytest.mark.parametrize("kind", ["ridge", "ols", "one-to-one"])
def test_predictability_is_the_mean_of_r_over_folds(kind: str) -> None:
    x, y, _ = problem(60, 12)
    x = x * np.geomspace(1e-3, 1e3, 12)
    x[:, 4] = 7.0  # a constant column says nothing
    estimates = np.full_like(y, np.nan)
    regression = Regression(kind, ALPHAS[1:], "loo")
    found = predictability(x, y, folds(60), regression, estimates)
    expected = np.zeros((3, y.shape[1]))
    for row, (fitted, scored) in enumerate(folds(60)):
        with np.errstate(invalid="ignore"):
            z = (x - x[fitted].mean(0)) / x[fitted].std(0)
        z = np.delete(z, 4, axis=1)
        for t in range(y.shape[1]):
            if kind == "one-to-one":
                r = [np.corrcoef(z[fitted, k], y[fitted, t])[0, 1] for k in range(z.shape[1])]
                best = int(np.abs(r).argmax())
                estimate = np.sign(r[best]) * z[scored, best]
            else:
                model = LinearRegression() if kind == "ols" else RidgeCV(ALPHAS[1:])
                estimate = model.fit(z[fitted], y[fitted, t]).predict(z[scored])
            expected[row, t] = np.corrcoef(estimate, y[scored, t])[0, 1]
    np.testing.assert_allclose(found, expected.mean(0), rtol=0, atol=1e-6)
    assert np.isfinite(estimates).all()


def test_a_column_that_does_not_vary_correlates_with_nothing() -> None:
    rng = np.random.default_rng(0)
    a = np.stack([rng.normal(size=20), np.full(20, 0.1), 1e6 + 1e-12 * rng.normal(size=20)], axis=1)
    np.testing.assert_allclose(column_correlation(a, a), [1, 0, 0], atol=1e-12)
