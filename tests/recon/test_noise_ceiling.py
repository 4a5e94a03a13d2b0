"""Split-half reliability against theory, numpy's correlations, and resampling by hand."""

from __future__ import annotations

import numpy as np
import pytest

from recon.analysis.noise_ceiling import Reliability, _correlations, spearman_brown


def test_reliability_is_that_of_the_noise_put_in() -> None:
    rng, n, repetitions = np.random.default_rng(0), 3000, 8
    noise = np.array([1.0, 2.0, 4.0])[:, None]  # deviations; that of the signal is 1
    signal = rng.normal(size=(n, 3, 2))
    gathered = Reliability(n, (3, 2), seed=0, n_boot=100)
    for _ in range(4):
        trials = signal[:, None] + noise * rng.normal(size=(n, repetitions, 3, 2))
        gathered.add(trials[:, :4].mean(axis=1), trials[:, 4:].mean(axis=1))
    report = gathered.report(4, repetitions, ("a", "b", "c"), (0.0, 0.01))
    for entry, deviation in zip(report["by_channel"], noise[:, 0], strict=True):
        assert entry["half"] == pytest.approx(1 / (1 + deviation**2 / 4), abs=0.03)
        assert entry["full"] == pytest.approx(1 / (1 + deviation**2 / 8), abs=0.03)
        assert entry["single"] == pytest.approx(1 / (1 + deviation**2), abs=0.03)
        assert entry["ceiling"] == pytest.approx(np.sqrt(entry["full"]))
        low, high = entry["ci95_full"]
        assert low < entry["full"] < high < low + 0.1
    assert [entry["channel"] for entry in report["by_channel"]] == ["a", "b", "c"]
    assert [entry["time"] for entry in report["by_time"]] == [0.0, 0.01]
    assert (report["n"], report["repetitions"], report["repetitions_per_half"], report["cuts"]) == (n, 8, 4, 4)
    mean = np.mean([entry["half"] for entry in report["by_channel"]])
    assert report["overall"]["half"] == pytest.approx(mean)
    assert report["by_time"][0]["half"] == pytest.approx(mean, abs=0.02)


def test_spearman_brown_by_its_formula() -> None:
    assert spearman_brown(0.5, 2) == pytest.approx(2 / 3)
    assert spearman_brown(spearman_brown(0.3, 5), 1 / 5) == pytest.approx(0.3)
    np.testing.assert_allclose(spearman_brown(np.array([-0.9, 0.0, 1.0]), 2), [-0.9, 0.0, 1.0])


def test_resampled_correlations_are_those_of_repeated_rows() -> None:
    rng, n = np.random.default_rng(1), 40
    one, other = rng.normal(3, 2, size=(2, n, 5, 3))
    other += one
    counts = rng.multinomial(n, np.full(n, 1 / n), size=6)
    found = _correlations(np.vstack([np.ones(n), counts]) / n, one, other)
    for row, times in zip(found, [np.ones(n, int), *counts], strict=True):
        a, b = (np.repeat(part.reshape(n, -1), times, axis=0) for part in (one, other))
        expected = [np.corrcoef(a[:, j], b[:, j])[0, 1] for j in range(15)]
        np.testing.assert_allclose(row.ravel(), expected, atol=1e-10)


def test_pieces_of_channels_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = np.random.default_rng(2).normal(size=(2, 30, 7, 4))
    reports = []
    for at_once in (1, 1 << 22):
        monkeypatch.setattr("recon.analysis.noise_ceiling._AT_ONCE", at_once)
        gathered = Reliability(30, (7, 4), seed=0, n_boot=20)
        gathered.add(one, other)
        reports.append(gathered.report(2, 4, (), (0.0, 0.1, 0.2, 0.3)))
    for part in ("by_channel", "by_time"):
        for a, b in zip(reports[0][part], reports[1][part], strict=True):
            assert a["half"] == pytest.approx(b["half"]) and a["ci95_full"] == pytest.approx(b["ci95_full"])


def test_a_channel_that_never_varies_repeats_nothing() -> None:
    one, other = np.random.default_rng(3).normal(size=(2, 30, 3))
    one[:, 1] = 5.0
    gathered = Reliability(30, (3,), seed=0, n_boot=20)
    gathered.add(one, other)
    entry = gathered.report(1, 2, (), ())["by_channel"][1]
    assert entry == {"channel": "1", "half": 0.0, "single": 0.0, "full": 0.0, "ci95_full": [0.0, 0.0], "ceiling": 0.0}
