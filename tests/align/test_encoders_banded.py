"""Banded ridge against scikit-learn by brute force, and against himalaya's own solution."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from align.config import Config, EncoderConfig, load_config
from align.data.studies import open_study
from align.encoders.banded_ridge import BandedRidgeFit, candidate_shares, fit_banded_ridge
from align.encoders.bands import lay_out
from align.encoders.ridge import fit_ridge, reciprocal_ranks
from align.encoders.shapes import SignalFacts
from align.training.fit import fit
from align.training.training_set import training_side
from tests.align.fixture_studies import write_folder
from tests.one_line import fails

BANDS = [4, 20, 6]
ALPHAS = [0.3, 3.0, 30.0, 300.0]


def _toy(seed: int = 0, n: int = 60) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Only the first band carries the targets; three equal folds."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, sum(BANDS)))
    y = x[:, : BANDS[0]] @ rng.normal(size=(BANDS[0], 5)) + 2 * rng.normal(size=(n, 5)) + 1.5
    fold = np.arange(n) % 3
    return x, y, [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(3)]


def _brute_force(
    x: np.ndarray, y: np.ndarray, folds: list[tuple[np.ndarray, np.ndarray]], shares: np.ndarray
) -> tuple[float, np.ndarray, float]:
    """(score, weights, penalty) of the best pair, by one scikit-learn fit per fold, weighting and penalty."""
    best = (-1.0, shares[0], 0.0)
    for share in shares:
        scaled = x * np.sqrt(share * len(share)).repeat(BANDS)
        for alpha in ALPHAS:
            ranks = []
            for rows, held_out in folds:
                estimate = Ridge(alpha=alpha).fit(scaled[rows], y[rows]).predict(scaled[held_out])
                centre = y[rows].mean(0)  # himalaya scores what is left of the mean
                found = reciprocal_ranks(torch.tensor(estimate - centre), torch.tensor(y[held_out] - centre))
                ranks.append(found.mean().item())
            if np.mean(ranks) > best[0] + 1e-9:
                best = (float(np.mean(ranks)), share * len(share), alpha)
    return best


def test_weights_of_the_bands_are_those_of_brute_force() -> None:
    pytest.importorskip("himalaya", reason="needs himalaya: pip install '.[encoders]'")
    x, y, folds = _toy()
    found = fit_banded_ridge(torch.tensor(x), torch.tensor(y), BANDS, ALPHAS, folds, draws=12, seed=3)
    score, weights, _ = _brute_force(x, y, folds, candidate_shares(3, 12, 3))
    np.testing.assert_allclose(found.band_weights, weights, atol=1e-9)
    assert np.mean(found.band_weights) == pytest.approx(1)
    assert found.band_weights[0] > 1 > found.band_weights[1], "the band with the signal is penalised least"
    penalties = (found.alpha / np.array(found.band_weights)).repeat(BANDS)
    centred, targets = x - x.mean(0), y - y.mean(0)
    expected = np.linalg.solve(centred.T @ centred + np.diag(penalties), centred.T @ targets).T
    np.testing.assert_allclose(found.weight, expected, atol=1e-5)
    np.testing.assert_allclose(found.bias, y.mean(0) - expected @ x.mean(0), atol=1e-5)
    for rows, held_out in folds:
        scaled = x * np.sqrt(np.array(found.band_weights)).repeat(BANDS)
        estimate = Ridge(alpha=found.alpha).fit(scaled[rows], y[rows]).predict(scaled[held_out])
        np.testing.assert_allclose(found.held_out[held_out], estimate, atol=1e-5)
    plain = fit_ridge(torch.tensor(x), torch.tensor(y), ALPHAS, folds)
    assert max(found.scores.values()) > max(plain.scores.values())
    assert score > 0


def test_solution_is_that_of_himalaya_at_its_weights() -> None:
    ridge = pytest.importorskip("himalaya.ridge", reason="needs himalaya: pip install '.[encoders]'")
    x, y, folds = _toy(1)
    found = fit_banded_ridge(torch.tensor(x), torch.tensor(y), BANDS, ALPHAS, folds, draws=6)
    edges = np.cumsum([0, *BANDS])
    parts = [x[:, edges[i] : edges[i + 1]] for i in range(3)]
    share = np.array([found.band_weights]) / 3
    alpha = np.array([found.alpha / 3])
    theirs = ridge.solve_group_ridge_random_search(
        parts, y, share, alphas=alpha, fit_intercept=True, cv=folds, return_weights=True, progress_bar=False
    )
    np.testing.assert_allclose(found.weight, theirs[1].T, atol=1e-5)
    np.testing.assert_allclose(found.bias, theirs[3], atol=1e-5)


def test_one_band_is_ridge_and_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("align.encoders.banded_ridge.himalaya", lambda: pytest.fail("himalaya was asked for"))
    x, y, folds = _toy(2)
    plain = fit_ridge(torch.tensor(x), torch.tensor(y), ALPHAS, folds)
    found = fit_banded_ridge(torch.tensor(x), torch.tensor(y), [30], ALPHAS, folds)
    assert isinstance(found, BandedRidgeFit)
    assert found.band_weights == (1.0,)
    assert (found.alpha, found.scores) == (plain.alpha, plain.scores)
    torch.testing.assert_close(found.weight, plain.weight, rtol=0, atol=0)


def test_more_values_than_rows_and_the_same_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("himalaya", reason="needs himalaya: pip install '.[encoders]'")
    x, y, folds = _toy(3, n=24)
    assert len(x) < x.shape[1]
    runs = [fit_banded_ridge(torch.tensor(x), torch.tensor(y), BANDS, ALPHAS, folds, seed=5) for _ in range(2)]
    assert torch.equal(runs[0].weight, runs[1].weight)
    _, weights, _ = _brute_force(x, y, folds, candidate_shares(3, 20, 5))
    np.testing.assert_allclose(runs[0].band_weights, weights, atol=1e-9)
    monkeypatch.setattr("align.encoders.banded_ridge._MOST_KERNEL_VALUES", 0)  # the other of himalaya's two ways
    again = fit_banded_ridge(torch.tensor(x), torch.tensor(y), BANDS, ALPHAS, folds, seed=5)
    assert again.band_weights == runs[0].band_weights


def test_candidates_start_equal_and_stay_inside() -> None:
    shares = candidate_shares(5, 40, 0)
    np.testing.assert_allclose(shares[0], 0.2)
    np.testing.assert_allclose(shares.sum(1), 1)
    assert shares.min() > 0
    assert not np.array_equal(shares[1:], candidate_shares(5, 40, 1)[1:])


@pytest.mark.parametrize(
    ("bands", "shape", "sizes"),
    [
        ([], (3, 4), [12]),
        (["channel"], (3, 4), [4, 4, 4]),
        (["channel"], (3,), [1, 1, 1]),
        (["1", "2"], (3, 4), [4, 8]),  # channels
        (["5", "7"], (3, 4), [5, 7]),  # values
        (["30", "37"], (67,), [30, 37]),
    ],
)
def test_band_sizes(bands: list[str], shape: tuple[int, ...], sizes: list[int]) -> None:
    assert lay_out(EncoderConfig(bands=bands), shape, {}) == (sizes, None)


def test_bands_that_do_not_fit_are_refused() -> None:
    fails(r"add up to 60, a trial has 67 values", lambda: lay_out(EncoderConfig(bands=["30", "30"]), (67,), {}))


REGIONS = {"V1": (3, 0), "V2": (1,), "VC": (0, 1)}


@pytest.mark.parametrize(
    ("bands", "shape", "sizes", "order"),
    [
        (["V1", "V2", "rest"], (5,), [2, 1, 2], [3, 0, 1, 2, 4]),
        (["V2", "rest", "V1"], (4,), [1, 1, 2], [1, 2, 3, 0]),
        (["V2", "V1"], (4, 2), None, "1 of 4 channels or voxels are in none of V2, V1; .*bands=\\[V2,V1,rest\\]"),
        (["V1", "V2", "VC"], (5,), None, "regions 'V1' and 'VC' share 1 channels or voxels"),
        (["V1", "V4"], (5,), None, "come without regions, 'V4'"),
        (["V1", "rest"], (2,), None, "come without regions|nothing is left"),
        (["V2", "rest"], (2, 3), [3, 3], [3, 4, 5, 0, 1, 2]),
    ],
)
def test_bands_of_regions(bands: list[str], shape: tuple[int, ...], sizes: list[int] | None, order: object) -> None:
    regions = {"V1": (0, 1)} if shape == (2,) else REGIONS
    if sizes is None:
        fails(str(order), lambda: lay_out(EncoderConfig(bands=bands), shape, regions))
        return
    found = lay_out(EncoderConfig(bands=bands), shape, regions)
    assert (found[0], None if found[1] is None else found[1].tolist()) == (sizes, order)


def test_bands_that_are_scattered_are_those_put_side_by_side() -> None:
    pytest.importorskip("himalaya", reason="needs himalaya: pip install '.[encoders]'")
    x, y, folds = _toy(4)
    order = np.random.default_rng(0).permutation(x.shape[1])
    scattered = torch.tensor(x[:, np.argsort(order)])
    plain = fit_banded_ridge(torch.tensor(x), torch.tensor(y), BANDS, ALPHAS, folds, draws=6)
    found = fit_banded_ridge(scattered, torch.tensor(y), BANDS, ALPHAS, folds, draws=6, order=order)
    assert found.band_weights == plain.band_weights
    torch.testing.assert_close(found.weight[:, order], plain.weight)


def test_regions_of_a_study_are_counted_among_what_is_left(tmp_path: Path) -> None:
    rows = [
        {"row": i, "image": f"pic{i:03d}.png", "split": "train" if i < 24 else "test", "subject": "01"}
        for i in range(30)
    ]
    write_folder(tmp_path, np.random.default_rng(0).normal(size=(30, 7)).astype(np.float32), rows)
    (tmp_path / "info.json").write_text('{"roi": {"V1": [6, 1, 3], "V2": [0, 2], "V3": [4]}}')

    def regions(*more: str) -> dict[str, tuple[int, ...]]:
        pairs = ["study.name=folder", f"study.root={tmp_path}", f"cache_dir={tmp_path / 'cache'}", *more]
        return dict(open_study(load_config(Config, overrides=pairs)).recording("01").regions)

    assert regions() == {}
    assert regions("encoder.bands=[V2,V1,rest]") == {"V2": (0, 2), "V1": (1, 3, 6)}
    assert regions("encoder.bands=[V2,V1]", "study.roi=[V1,V2]") == {"V2": (0, 2), "V1": (1, 3, 4)}
    assert regions("encoder.bands=[V1,V3]", "study.roi=[V3,V1]", "preprocess.scale=zscore")["V3"] == (2,)
    fails("encoder.bands: .* has no region 'V9'; did you mean", lambda: regions("encoder.bands=[V1,V9]"))
    fails("nothing of region 'V2' is left", lambda: regions("encoder.bands=[V1,V2]", "study.roi=[V1]"))


def test_cells_of_a_sweep_know_other_regions_of_the_same_name(tmp_path: Path) -> None:
    rows = [
        {"row": i, "image": f"pic{i:03d}.png", "split": "train" if i < 24 else "test", "subject": "01"}
        for i in range(30)
    ]
    write_folder(tmp_path, np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32), rows)

    def digest(region: str, *more: str) -> str:
        (tmp_path / "info.json").write_text(f'{{"roi": {{"V1": {region}}}}}')
        pairs = ["study.name=folder", f"study.root={tmp_path}", f"cache_dir={tmp_path / 'cache'}", *more]
        config = load_config(Config, None, pairs)
        return training_side(open_study(config), config, "01").digest

    assert digest("[0]") == digest("[1]")
    assert digest("[0]", "encoder.bands=[V1,rest]") != digest("[1]", "encoder.bands=[V1,rest]")


def test_a_run_with_bands_by_name_is_that_of_sizes() -> None:
    """Scattered regions are the same bands as those that stand side by side."""
    pytest.importorskip("himalaya", reason="needs himalaya: pip install '.[encoders]'")
    rng, order = np.random.default_rng(0), [3, 0, 1, 2, 4, 5]
    x, tokens = rng.normal(size=(60, 6)).astype(np.float32), rng.normal(size=(60, 1, 8)).astype(np.float32)
    tokens[:, 0, :4] += 3 * x[:, [3, 0, 0, 3]]  # told by the first region
    found = []
    for bands, signals in ((["2", "4"], x[:, order]), (["V1", "rest"], x)):
        config = load_config(Config, None, ["target.components=6", "encoder.name=banded_ridge", "encoder.band_draws=6"])
        config = replace(config, encoder=replace(config.encoder, bands=bands))
        facts = SignalFacts(regions={"V1": (3, 0)})
        found.append(fit(config, signals, tokens, np.arange(60), facts=facts).predict(signals)["embeds"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


@pytest.mark.parametrize(
    ("bands", "told"),
    [
        (["0", "67"], "encoder.bands='0' is not a size, a region or 'channel'"),
        (["-3"], "encoder.bands='-3' is not a size"),
        (["V1", "30"], r"encoder.bands=\[V1,30\] holds sizes beside names"),
        (["V1", "V2", "V1"], r"encoder.bands=\[V1,V2,V1\] names a region twice"),
        (["rest"], r"encoder.bands=\[rest\] names no region"),
        (["channel", "3"], r"encoder.bands=\[channel,3\] holds 'channel' beside others"),
    ],
)
def test_bands_that_cannot_be_are_refused(bands: list[str], told: str) -> None:
    fails(told, lambda: EncoderConfig(name="banded_ridge", bands=bands).check("encoder."))
