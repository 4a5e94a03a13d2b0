"""Scene twins, groups and folds, each against a second computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from align.data.signals import Recording, Stimuli, Trials, pixel_hash
from align.data.splits import (
    grouped_folds,
    manifest,
    merge_groups,
    refuse_overlap,
    scene_groups,
    scene_twins,
    thumbnails,
)
from align.errors import UserError
from tests.align.fixture_studies import blurred, picture

PICTURES = [np.asarray(picture(seed, size=40)) for seed in range(8)]
BLURRED = [np.asarray(blurred(picture(seed, size=40))) for seed in range(8)]


def hashes(images: list[np.ndarray]) -> list[str]:
    return [pixel_hash(image) for image in images]


def test_thumbnails_are_antialiased_bilinear_without_mean() -> None:
    found = thumbnails([*PICTURES, np.asarray(picture(9, size=112))[:90]])
    assert found.shape == (9, 768)
    assert found.dtype == np.float32
    for row, image in zip(found, PICTURES, strict=False):
        batch = torch.tensor(image).permute(2, 0, 1)[None].float()
        small = torch.nn.functional.interpolate(batch, (16, 16), mode="bilinear", antialias=True)[0]
        expected = small.permute(1, 2, 0).numpy().ravel()
        np.testing.assert_allclose(row, expected - expected.mean(), atol=1.1)  # Pillow rounds to whole numbers
    assert thumbnails([]).shape == (0, 768)


def test_twins_match_brute_force_correlation() -> None:
    rng = np.random.default_rng(0)
    test = rng.normal(size=(30, 768))
    mixing = rng.uniform(0.0, 0.5, size=(60, 1))
    train = 3 * (test[rng.integers(0, 30, 60)] + mixing * rng.normal(size=(60, 768))) + 7
    correlation = np.corrcoef(train, test)[:60, 60:]
    assert np.abs(correlation - 0.97).min() > 1e-5
    names = [f"train{i}" for i in range(60)]
    remove_mean = [(x - x.mean(axis=1, keepdims=True)).astype(np.float32) for x in (train, test)]
    found = scene_twins(*remove_mean, names, [f"test{i}" for i in range(30)])
    np.testing.assert_array_equal(found, (correlation > 0.97).any(axis=1))
    assert 10 < found.sum() < 50


def test_twins_by_hash_alone_and_by_thumbnail_alone() -> None:
    flat = np.full((40, 40, 3), 90, np.uint8)  # no correlation is defined, only the hash sees it
    train, test = [PICTURES[0], BLURRED[1], PICTURES[2], flat], [PICTURES[0], PICTURES[1], flat]
    assert hashes(train)[1] != hashes(test)[1]
    found = scene_twins(thumbnails(train), thumbnails(test), hashes(train), hashes(test))
    assert found.tolist() == [True, True, False, True]
    assert not scene_twins(thumbnails(train), thumbnails([]), hashes(train), []).any()


def test_groups_match_a_walk_over_pairs() -> None:
    images = [PICTURES[0], PICTURES[1], BLURRED[0], PICTURES[2], PICTURES[1], BLURRED[2], PICTURES[3]]
    found = scene_groups(thumbnails(images), hashes(images))
    assert found.tolist() == [0, 1, 0, 2, 1, 2, 3]


def test_groups_are_transitive() -> None:
    rng = np.random.default_rng(1)
    steps = np.cumsum(rng.normal(size=(12, 768)) * np.r_[1, [0.2] * 5, 3, [0.2] * 5][:, None], axis=0)
    x = steps - steps.mean(axis=1, keepdims=True)
    near = np.corrcoef(x) > 0.97
    assert not near[0, 5]  # joined only through those between
    reached = np.linalg.matrix_power(near.astype(int), 12) > 0
    found = scene_groups(x.astype(np.float32), [str(i) for i in range(12)])
    np.testing.assert_array_equal(found[:, None] == found[None], reached)
    assert len(set(found)) > 1


def test_merged_groups_never_split_a_label() -> None:
    assert merge_groups(np.array([5, 5, 6, 7, 8]), ["", "a", "a", "", ""]).tolist() == [0, 0, 0, 1, 2]


def test_folds_cover_all_rows_once_and_never_split_a_group() -> None:
    groups = np.random.default_rng(0).integers(0, 40, 200) ** 2
    folds = grouped_folds(groups, 3, seed=0)
    assert sorted(np.concatenate([validation for _, validation in folds])) == list(range(200))
    largest = np.unique(groups, return_counts=True)[1].max()
    sizes = [len(validation) for _, validation in folds]
    assert max(sizes) - min(sizes) <= largest
    for fit, validation in folds:
        assert not set(groups[fit]) & set(groups[validation])
        assert sorted([*fit, *validation]) == list(range(200))


def test_folds_depend_on_the_seed_alone() -> None:
    groups = np.arange(50) // 2
    first, again, other = (grouped_folds(groups, 5, seed) for seed in (0, 0, 1))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a[1], b[1])
    assert any(set(a[1]) != set(b[1]) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(("n_groups", "n_folds"), [(2, 3), (5, 1), (5, 0)])
def test_impossible_folds_are_refused(n_groups: int, n_folds: int) -> None:
    with pytest.raises(UserError, match=f"{n_folds} folds from {n_groups} groups"):
        grouped_folds(np.arange(n_groups), n_folds, 0)


def recording(images: list[np.ndarray], train: list[int], test: list[int], concepts: list[str]) -> Recording:
    def trials(rows: list[int]) -> Trials:
        index = np.array(rows, dtype=np.int64)
        return Trials(np.zeros((len(rows), 2), np.float32), index, np.zeros_like(index))

    ids = tuple(f"id{i}" for i in range(len(images)))
    stimuli = Stimuli(ids, images.__getitem__, np.arange(len(images)), tuple(concepts), ("",) * len(images))
    return Recording("folder", "01", trials(train), trials(test), stimuli, log=("one sentence",))


def test_overlap_is_refused_by_pixels_with_the_ids() -> None:
    images = [*PICTURES[:3], PICTURES[1].copy()]
    clean = recording(images, [0, 1], [2], ["a", "b", "a", ""])
    refuse_overlap(clean)
    with pytest.raises(UserError, match="share 1 picture: id3"):
        refuse_overlap(recording(images, [0, 1], [2, 3], [""] * 4))
    with pytest.raises(UserError, match="share 1 concept: a"):
        refuse_overlap(clean, concept_disjoint=True)
    refuse_overlap(recording(images, [0], [1], [""] * 4), concept_disjoint=True)


def test_manifest_lists_each_split() -> None:
    found = manifest(recording(PICTURES[:4], [3, 0, 0], [2], ["a", "b", "c", "d"]))
    assert found["train"]["ids"] == ["id0", "id3"]
    assert found["train"]["n_trials"] == 3
    assert found["test"] == {
        "n_trials": 1,
        "ids": ["id2"],
        "hashes": [pixel_hash(PICTURES[2])],
        "concepts": ["c"],
        "groups": [2],
    }
    assert (found["study"], found["subject"], found["log"]) == ("folder", "01", ["one sentence"])
