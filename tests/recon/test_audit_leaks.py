"""Every fault, planted into an otherwise honest run, is flagged by its own check and by no unrelated one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from recon.audit.checks import Material, Order
from recon.audit.selection import Choice
from tests.recon.clean_material import N_TEST, add_pictures, blend, by_name, clean_material, random_pictures, thumbs

SEED = 0


def _test_pictures() -> np.ndarray:
    """The test pictures of the clean material of SEED."""
    rng = np.random.default_rng(SEED)
    random_pictures(rng, 240)
    return random_pictures(rng, N_TEST)


def exact_duplicates(m: Material) -> None:
    assert m.train_pictures is not None
    m.train_pictures = add_pictures(m.train_pictures, _test_pictures()[7:8])


def near_duplicates(m: Material) -> None:
    assert m.train_pictures is not None
    blurred = [Image.fromarray(p).filter(ImageFilter.GaussianBlur(1)) for p in _test_pictures()[7:9]]
    m.train_pictures = add_pictures(m.train_pictures, np.stack([np.asarray(p) for p in blurred]))


def mirrored_duplicates(m: Material) -> None:
    assert m.train_pictures is not None
    m.train_pictures = add_pictures(m.train_pictures, _test_pictures()[7:9, :, ::-1])


def repeated_stimuli(m: Material) -> None:
    assert m.train_ids is not None and m.test_ids is not None
    m.train_ids = [*m.train_ids, m.test_ids[0]]


def shared_categories(m: Material) -> None:
    assert m.train_labels is not None
    m.train_labels = [*m.train_labels, "category 3"]


def feature_clusters(m: Material) -> None:
    rng = np.random.default_rng(1)
    centres = 4 * rng.normal(size=(8, 32))
    m.train_embeds = centres[np.arange(240) % 8] + rng.normal(size=(240, 32))
    m.images = centres[np.arange(N_TEST) % 8] + rng.normal(size=(N_TEST, 32))
    m.brain = m.images + rng.normal(size=m.images.shape)


def shared_recordings(m: Material) -> None:
    assert m.train_signals is not None and m.test_signals is not None
    m.train_signals = np.concatenate([m.train_signals, m.test_signals[3:4]])


def standardised_test_rows(m: Material) -> None:
    assert m.test_signals is not None
    m.test_signals = (m.test_signals - m.test_signals.mean(0)) / m.test_signals.std(0)


def standardised_in_half_precision(m: Material) -> None:
    standardised_test_rows(m)
    assert m.test_signals is not None
    m.test_signals = m.test_signals.astype(np.float16)


def predictions_standardised(m: Material) -> None:
    assert m.brain is not None
    m.brain = (m.brain - m.brain.mean(0)) / m.brain.std(0)


def predictions_given_training_moments(m: Material) -> None:
    assert m.train_embeds is not None and m.brain is not None
    predictions_standardised(m)
    m.brain = m.brain * m.train_embeds.std(0) + m.train_embeds.mean(0)


def normalised_together(m: Material) -> None:
    assert m.train_signals is not None and m.test_signals is not None
    together = np.concatenate([m.train_signals, m.test_signals])
    m.train_signals, m.test_signals = (
        (x - together.mean(0)) / together.std(0) for x in (m.train_signals, m.test_signals)
    )


def normalised_per_session(m: Material) -> None:
    assert m.train_signals is not None and m.test_signals is not None
    m.sessions = (np.arange(len(m.train_signals)) % 3, np.arange(len(m.test_signals)) % 3)
    for session in range(3):
        rows = [sessions == session for sessions in m.sessions]
        together = np.concatenate([m.train_signals[rows[0]], m.test_signals[rows[1]]])
        m.train_signals[rows[0]] = (m.train_signals[rows[0]] - together.mean(0)) / together.std(0)
        m.test_signals[rows[1]] = (m.test_signals[rows[1]] - together.mean(0)) / together.std(0)


def few_test_rows_normalised_together(m: Material) -> None:
    """With 20 test beside 20,000 training rows, the mean of training rows alone is within a thousandth too."""
    rng = np.random.default_rng(4)
    rows = rng.normal(1.0, 2.0, size=(20_020, 12)).astype(np.float32)
    rows = (rows - rows.mean(0)) / rows.std(0)
    m.train_signals, m.test_signals = rows[20:], rows[:20]


def block_design(m: Material) -> None:
    labels = tuple(f"category {i // 40}" for i in range(400))
    m.order = Order(labels, np.arange(400), np.random.default_rng(0).random(400) < 0.3)


def block_design_without_split(m: Material) -> None:
    block_design(m)
    assert m.order is not None
    m.order = replace(m.order, is_test=None)


def category_only(m: Material) -> None:
    rng = np.random.default_rng(2)
    assert m.labels is not None and m.images is not None
    code = np.unique(m.labels, return_inverse=True)[1]
    centres = 2 * rng.normal(size=(10, 32))
    m.images = centres[code] + rng.normal(size=(N_TEST, 32))
    m.brain = centres[code] + rng.normal(size=(N_TEST, 32))


def cluster_only(m: Material) -> None:
    """No two stimuli share a label, but the pictures are of ten kinds and the decoder knows nothing else."""
    rng = np.random.default_rng(8)
    centres = 3 * rng.normal(size=(20, 32))
    kind = np.arange(N_TEST) % 10
    m.images, m.brain = (centres[kind] + rng.normal(size=(N_TEST, 32)) for _ in range(2))
    m.train_embeds = centres[10 + np.arange(240) % 10] + rng.normal(size=(240, 32))
    m.labels = m.test_labels = [f"concept {i}" for i in range(N_TEST)]


def collapse(m: Material) -> None:
    assert m.brain is not None
    two = np.linalg.svd(m.brain - m.brain.mean(0))[2][:2]
    m.brain = m.brain.mean(0) + (m.brain - m.brain.mean(0)) @ two.T @ two


def anisotropy(m: Material) -> None:
    assert m.brain is not None and m.images is not None and m.train_embeds is not None
    m.brain, m.images, m.train_embeds = m.brain + 20, m.images + 20, m.train_embeds + 20


def rows_shifted(m: Material) -> None:
    assert m.brain is not None
    m.brain, m.brain_ids, m.image_ids = np.roll(m.brain, 3, axis=0), None, None


def rows_listed_as_text(m: Material) -> None:
    """Files listed as text (b0, b1, b10, ...) beside pictures in the order of their numbers."""
    assert m.brain is not None and m.test_ids is not None
    m.brain = m.brain[sorted(range(N_TEST), key=lambda i: m.test_ids[i])]  # type: ignore[index]
    m.brain_ids = None


def rows_permuted_with_ids(m: Material) -> None:
    assert m.brain is not None and m.brain_ids is not None
    order = np.random.default_rng(3).permutation(N_TEST)
    m.brain, m.brain_ids = m.brain[order], [m.brain_ids[i] for i in order]


def copied_training_pictures(m: Material) -> None:
    assert m.train_pictures is not None and m.train_pictures.thumbs is not None and m.shown is not None
    r = m.shown[1] @ m.train_pictures.thumbs.T
    m.shown = (m.train_pictures.thumbs[r.argmax(axis=1)], m.shown[1])


def _some_copies(m: Material, count: int) -> None:
    assert m.train_pictures is not None and m.train_pictures.thumbs is not None and m.shown is not None
    shown = m.shown[0].copy()
    shown[:count] = m.train_pictures.thumbs[:count]
    m.shown = (shown, m.shown[1])


def a_few_copies(m: Material) -> None:
    _some_copies(m, 8)


def one_copy(m: Material) -> None:
    _some_copies(m, 1)


def noisy_training_pictures(m: Material) -> None:
    rng = np.random.default_rng(SEED)
    train = random_pictures(rng, 240)
    shown = blend(train[:N_TEST], random_pictures(rng, N_TEST), 0.6)
    assert m.shown is not None
    m.shown = (thumbs(shown), m.shown[1])


def memorised_embeds(m: Material) -> None:
    assert m.train_embeds is not None
    m.shown, m.brain = None, m.train_embeds[np.random.default_rng(5).permutation(N_TEST)]


def best_of_k(m: Material) -> None:
    assert m.samples is not None
    m.samples = replace(m.samples, published=m.samples.to_target.argmax(axis=1))


def epoch_on_test(m: Material) -> None:
    choice = m.choices[0]
    test = choice.test.copy()
    test[4] = test.max() + 0.01
    m.choices = [replace(choice, test=test, chosen=4)]


def layers_on_test_without_validation(m: Material) -> None:
    rng = np.random.default_rng(5)
    scores = rng.random((4, 12))
    m.choices = [Choice(f"subject {i}", row, None, int(row.argmax())) for i, row in enumerate(scores)]


def validation_is_test(m: Material) -> None:
    m.choices = [replace(m.choices[0], validation=m.choices[0].test, chosen=int(m.choices[0].test.argmax()))]


def declared_on_test(m: Material) -> None:
    m.declared = {"layer": "oracle: chosen on test", "epoch": "last"}


def best_seed(m: Material) -> None:
    assert m.seeds is not None
    m.reported = float(m.seeds.max())


def better_than_any_seed(m: Material) -> None:
    assert m.seeds is not None
    m.reported = float(m.seeds.max()) + 0.05


PLANTED: list[tuple[Callable[[Material], None], str, str, set[str]]] = [
    # plant, its check, verdict, further checks that see the same fault
    (exact_duplicates, "exact_duplicates", "leak", set()),
    (near_duplicates, "near_duplicates", "leak", set()),
    (mirrored_duplicates, "near_duplicates", "leak", set()),
    (repeated_stimuli, "repeated_stimuli", "leak", set()),
    (shared_categories, "shared_categories", "leak", set()),
    (feature_clusters, "feature_clusters", "leak", set()),
    (shared_recordings, "shared_recordings", "leak", set()),
    (standardised_test_rows, "test_standardised_signals", "leak", set()),
    (standardised_in_half_precision, "test_standardised_signals", "leak", set()),
    (predictions_standardised, "test_standardised_predictions", "leak", set()),
    (predictions_given_training_moments, "test_standardised_predictions", "leak", set()),
    (normalised_together, "pooled_normalisation", "leak", set()),
    (normalised_per_session, "pooled_normalisation", "leak", set()),
    (few_test_rows_normalised_together, "pooled_normalisation", "leak", set()),
    (block_design, "block_design", "leak", set()),
    (block_design_without_split, "block_design", "leak", set()),
    (category_only, "category_only", "leak", set()),
    (cluster_only, "category_only", "leak", set()),
    (collapse, "collapse", "suspect", set()),
    (anisotropy, "anisotropy", "suspect", set()),
    (rows_shifted, "row_order", "leak", set()),
    (rows_listed_as_text, "row_order", "leak", set()),
    (rows_permuted_with_ids, "row_order", "leak", set()),
    (copied_training_pictures, "memorisation", "leak", set()),
    (a_few_copies, "memorisation", "leak", set()),
    (one_copy, "memorisation", "suspect", set()),
    (noisy_training_pictures, "memorisation", "leak", set()),
    (memorised_embeds, "memorisation", "leak", set()),
    (best_of_k, "sample_selection", "leak", set()),
    (epoch_on_test, "choice_on_test", "leak", set()),
    (layers_on_test_without_validation, "choice_on_test", "leak", set()),
    (validation_is_test, "choice_on_test", "leak", set()),
    (declared_on_test, "declared_choice", "leak", set()),
    (best_seed, "seed_variance", "suspect", set()),
    (better_than_any_seed, "seed_variance", "leak", set()),
]


@pytest.mark.parametrize(("plant", "check", "verdict", "also"), PLANTED, ids=[plant.__name__ for plant, *_ in PLANTED])
def test_planted_fault_is_found(
    plant: Callable[[Material], None], check: str, verdict: str, also: set[str], material: Material
) -> None:
    plant(material)
    found = by_name(material)
    assert found[check].verdict == verdict, found[check].evidence
    flagged = {name for name, finding in found.items() if finding.verdict in ("leak", "suspect")}
    assert flagged == {check} | also
    assert any(digit in found[check].evidence for digit in "0123456789") or check == "declared_choice"
    assert len(found[check].evidence) < 500 and not found[check].evidence.endswith(".")
    assert found[check].threshold


@pytest.fixture
def material() -> Material:
    return clean_material(SEED)


def test_shared_kinds_are_told_from_shared_categories(material: Material) -> None:
    feature_clusters(material)
    assert "named categories of the splits differ" in by_name(material)["feature_clusters"].evidence
    shared_categories(material)
    found = by_name(material)["feature_clusters"]
    assert "named categories" not in found.evidence
    assert found.numbers["two_way_of_cluster"] == pytest.approx(1 - 1 / 16, abs=0.01)  # eight kinds
