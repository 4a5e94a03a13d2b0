"""Honest runs are cleared, missing inputs are named, and the small statistics agree with independent ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn.metrics import silhouette_score

from recon.audit import outputs, selection, signals, splits, verdict
from recon.audit.checks import Material, audit
from recon.audit.verdict import Finding
from tests.recon.clean_material import by_name, clean_material

CHECKS = {
    "exact_duplicates",
    "near_duplicates",
    "repeated_stimuli",
    "shared_categories",
    "feature_clusters",
    "test_standardised_signals",
    "shared_recordings",
    "pooled_normalisation",
    "block_design",
    "test_standardised_predictions",
    "anisotropy",
    "collapse",
    "row_order",
    "category_only",
    "memorisation",
    "seen_pictures",
    "outside_run",
    "sample_selection",
    "choice_on_test",
    "declared_choice",
    "seed_variance",
}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_honest_runs_are_cleared(seed: int) -> None:
    found = audit(clean_material(seed))
    assert {finding.check for finding in found} == CHECKS
    assert {finding.check: finding.evidence for finding in found if finding.verdict != "clear"} == {}
    assert verdict.overall(found)[0] == "clear"
    json.dumps([verdict.as_dict(finding) for finding in found], allow_nan=False)


def test_nothing_is_passed_silently() -> None:
    found = audit(Material(missing={"pictures": "study.root is gone"}))
    assert {finding.check for finding in found} == CHECKS
    assert {finding.verdict for finding in found} == {"not checked"}
    evidence = {finding.check: finding.evidence for finding in found}
    assert all(text.startswith("needs ") for text in evidence.values())
    assert "study.root is gone" in evidence["near_duplicates"]
    assert verdict.overall(found)[0] == "not checked"


def test_overall_verdict_is_the_worst() -> None:
    clear, bad, odd = (Finding(name, kind, "e") for name, kind in (("a", "clear"), ("b", "leak"), ("c", "suspect")))
    assert verdict.overall([clear])[0] == "clear"
    assert verdict.overall([clear, odd])[0] == "suspect"
    word, sentence = verdict.overall([clear, odd, bad, verdict.not_checked("d", "x")])
    assert word == "leak" and "b" in sentence and "1 check lacked" in sentence
    assert verdict.as_text([clear, bad]).startswith("LEAK")
    with pytest.raises(ValueError, match="maybe"):
        Finding("a", "maybe", "e")


def test_a_chance_decoder_is_not_called_a_leak() -> None:
    material = clean_material(5)
    assert material.images is not None
    material.brain = np.random.default_rng(9).normal(size=material.images.shape)
    found = by_name(material)
    assert {found[name].verdict for name in ("row_order", "category_only", "collapse")} == {"clear"}


def test_statistics_agree_with_other_libraries() -> None:
    rng = np.random.default_rng(0)
    x, cluster = rng.normal(size=(60, 5)), rng.integers(0, 4, size=60)
    distances = np.linalg.norm(x[:, None] - x[None], axis=2)
    assert splits.silhouette(distances, cluster) == pytest.approx(silhouette_score(x, cluster), abs=1e-12)
    assert signals.participation_ratio(np.eye(4).repeat(3, axis=0)) == pytest.approx(3)
    eigen = np.linalg.eigvalsh(np.cov(x.T))
    assert signals.participation_ratio(x) == pytest.approx(eigen.sum() ** 2 / (eigen**2).sum())
    chances = [0.2] * 12
    assert selection._at_least(4, chances) == pytest.approx(scipy_stats.binom.sf(3, 12, 0.2))


def test_pairing_deviations_match_drawn_permutations() -> None:
    rng = np.random.default_rng(1)
    similarity = rng.normal(size=(30, 30)) + rng.normal(size=30)  # columns of different height: hubs
    similarity[np.arange(30), np.arange(30)] += 1.0
    drawn = np.array([similarity[np.arange(30), rng.permutation(30)].sum() for _ in range(20000)])
    z = (np.trace(similarity) - drawn.mean()) / drawn.std()
    assert outputs.row_order(similarity).numbers["given"] == pytest.approx(z, abs=0.15)


def test_time_neighbours_match_brute_force() -> None:
    rng = np.random.default_rng(2)
    when, labels, test = np.sort(rng.random(50)), rng.integers(0, 5, size=50), rng.random(50) < 0.4
    right = []
    for i in np.flatnonzero(test):
        sources = np.flatnonzero(~test)
        right.append(labels[sources[np.abs(when[sources] - when[i]).argmin()]] == labels[i])
    shuffled = rng.permutation(50)
    names = [str(label) for label in labels[shuffled]]
    found = signals.block_design(names, when[shuffled], test[shuffled])
    assert found.numbers["accuracy"] == pytest.approx(np.mean(right))


def test_false_alarms_of_p_based_checks_stay_near_their_rate() -> None:
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(300):
        to_target, published = rng.random((50, 4)), rng.integers(0, 4, size=50)
        alarms += selection.best_of_k(to_target, published).verdict != "clear"
    assert alarms <= scipy_stats.binom.ppf(0.9999, 300, verdict.SUSPECT_P)


def test_category_only_decoders_score_the_known_line() -> None:
    """1 - 1/(2k) for k equal categories, and .5 within them."""
    for k in (5, 10, 20):
        code = np.arange(200) % k
        noise = 1e-3 * np.random.default_rng(k).normal(size=(200, 200))
        found = outputs.category_only((code[:, None] == code[None]) + noise, [str(c) for c in code])
        line = 1 - 1 / (2 * k)
        assert found.verdict == "leak" and found.numbers["ceiling"] == pytest.approx(line)
        assert found.numbers["two_way"] == pytest.approx(line, abs=0.01)
        assert found.numbers["within"] == pytest.approx(0.5, abs=0.05)


def test_sentences_that_name_the_test_set() -> None:
    for text in ("oracle: best on test", "top-1 of the Test set", "test_top1", "no validation; chosen on test"):
        assert selection.declared_choice({"layer": text}).verdict == "leak", text
    for text in ("validation concepts; no test row", "never on the test set", "the latest epoch", "tested by hand"):
        assert selection.declared_choice({"layer": text}).verdict == "clear", text


def test_training_statistics_are_no_leak_however_few_the_test_rows() -> None:
    rng = np.random.default_rng(6)
    rows = rng.normal(1.0, 2.0, size=(20_020, 12))
    rows = (rows - rows[20:].mean(0)) / rows[20:].std(0)
    assert signals.pooled_normalisation(rows[20:], rows[:20]).verdict == "clear"
    assert signals.test_standardised(rows[20:15_000]).verdict == "clear"  # means of a hundredth are chance, not a fit
    rows[[3, 40]] = 0  # rows of dead trials are equal by accident
    assert signals.shared_recordings(rows[20:], rows[:20]).verdict == "clear"


def test_a_choice_by_the_prediction_is_no_leak() -> None:
    rng = np.random.default_rng(7)
    to_prediction = rng.random((60, 4))
    published = to_prediction.argmax(axis=1)
    to_target = to_prediction + 0.05 * rng.random((60, 4))
    assert selection.best_of_k(to_target, published).verdict == "leak"
    assert selection.best_of_k(to_target, published, to_prediction).verdict == "clear"


def test_choices_that_are_not_best_on_test() -> None:
    nothing = np.full(5, np.nan)
    found = selection.chosen_on_test([selection.Choice("layer", nothing, np.arange(5.0), 2)])
    worse = selection.Choice("layer", np.array([0.3, 0.2, 0.1]), np.array([0.1, 0.3, 0.2]), 2)
    assert selection.chosen_on_test([worse]).verdict == "clear"  # best on neither
    assert found.verdict == "clear" and "0 report what is best on validation" in found.evidence


@pytest.mark.parametrize("kind", ["few", "falling", "heavy"])
def test_features_without_clusters(kind: str) -> None:
    """Few dimensions, falling variances and outliers have large silhouettes, but no larger than their references."""
    rng = np.random.default_rng(8)
    features = {
        "few": rng.random((250, 2)) @ rng.normal(size=(2, 32)),
        "falling": rng.normal(size=(250, 64)) / np.arange(1, 65) ** 2,
        "heavy": rng.standard_t(3, size=(250, 32)),
    }[kind]
    found = splits.clusters(features[:150], features[150:])
    assert found is not None and not found.real
    assert splits.feature_clusters(found).verdict == "clear"


def test_predictions_along_one_direction_are_not_judged() -> None:
    x = np.random.default_rng(9).normal(size=(50, 1)) * np.ones(12)
    assert signals.test_standardised(x - x.mean(0)).verdict == "not checked"


def test_names_in_quotes_are_no_confession() -> None:
    for said, wanted in (
        ("cross-validation on training rows of 'folder my-test', subject 'test 1'", "clear"),
        ("cross-validation on training rows of my-test", "leak"),
        ("the author's test rows, as the paper's", "leak"),  # apostrophes quote nothing
    ):
        assert selection.declared_choice({"layer": said}).verdict == wanted, said
