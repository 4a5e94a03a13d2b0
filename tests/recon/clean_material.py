"""A simulated decoder with honest noise: everything `recon audit` can look at, with no fault in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recon.audit import checks
from recon.audit.checks import Material, Order, Pictures, Samples
from recon.audit.copies import compared, likeness
from recon.audit.files import picture_set, rowwise
from recon.audit.selection import Choice
from recon.audit.verdict import Finding

N_TRAIN, N_TEST, WIDTH, K = 240, 100, 32, 4


def random_pictures(rng: np.random.Generator, n: int) -> np.ndarray:
    """Smooth colour noise, uint8 (n, 32, 32, 3)."""
    coarse = rng.random((n, 8, 8, 3))
    return np.round(255 * coarse.repeat(4, axis=1).repeat(4, axis=2)).astype(np.uint8)


def blend(pictures: np.ndarray, noise: np.ndarray, share: float) -> np.ndarray:
    """``share`` of a picture, the rest of another, uint8."""
    return np.round(share * pictures + (1 - share) * noise.astype(np.float64)).astype(np.uint8)


def thumbs(pictures: np.ndarray) -> np.ndarray:
    """Thumbnails (n, 768) of uint8 pictures."""
    found = picture_set([str(i) for i in range(len(pictures))], pictures).thumbs
    assert found is not None
    return found


def clean_material(seed: int) -> Material:
    """Disjoint pictures and categories, training statistics, shuffled trials, choices on validation."""
    rng = np.random.default_rng(seed)
    train, test = random_pictures(rng, N_TRAIN), random_pictures(rng, N_TEST)
    train_ids, test_ids = [f"a{i}" for i in range(N_TRAIN)], [f"b{i}" for i in range(N_TEST)]
    images, known = rng.normal(size=(N_TEST, WIDTH)), rng.normal(size=(N_TRAIN, WIDTH))
    brain = images + rng.normal(size=images.shape)
    recordings = rng.normal(1.0, 2.0, size=(N_TRAIN + N_TEST, 40)) @ rng.normal(size=(40, 60))
    recordings = (recordings - recordings[:N_TRAIN].mean(0)) / recordings[:N_TRAIN].std(0)
    labels = [f"category {i % 10}" for i in range(N_TEST)]
    order = rng.permutation(np.arange(4 * N_TEST) % N_TEST)
    samples = np.stack([blend(test, random_pictures(rng, N_TEST), 0.4) for _ in range(K)], axis=1)
    published = rng.integers(0, K, size=N_TEST)
    shown = thumbs(samples[np.arange(N_TEST), published])
    to_target = rowwise(np.stack([thumbs(samples[:, k]) for k in range(K)], axis=1), thumbs(test))
    validation = 0.3 + 0.02 * rng.normal(size=20)
    seeds = 0.3 + 0.02 * rng.normal(size=10)
    return Material(
        train_pictures=picture_set(train_ids, train),
        test_pictures=picture_set(test_ids, test),
        train_ids=train_ids,
        test_ids=test_ids,
        train_labels=[f"other {i % 12}" for i in range(N_TRAIN)],
        test_labels=labels,
        labels=labels,
        brain=brain,
        images=images,
        train_embeds=known,
        brain_ids=test_ids,
        image_ids=test_ids,
        train_signals=recordings[:N_TRAIN],
        test_signals=recordings[N_TRAIN:],
        shown=(shown, thumbs(test)),
        copied=compared(test_ids, [[likeness(one, seen) for one in k] for k, seen in zip(samples, test, strict=True)]),
        places=([], []),
        samples=Samples(to_target, published),
        order=Order(tuple(labels[i] for i in order), np.arange(len(order)), rng.random(len(order)) < 0.3),
        choices=[Choice("epoch", 0.3 + 0.02 * rng.normal(size=20), validation, int(validation.argmax()))],
        seeds=seeds,
        reported=float(seeds.mean()),
        declared={"layer": "grouped 3-fold cross-validation on training rows", "epoch": "last"},
    )


def add_pictures(pictures: Pictures, more: np.ndarray) -> Pictures:
    """A picture set with further pictures."""
    extra = picture_set([f"extra {i}" for i in range(len(more))], more)
    assert pictures.thumbs is not None and extra.thumbs is not None
    stacked = np.concatenate([pictures.thumbs, extra.thumbs])
    return replace(pictures, ids=pictures.ids + extra.ids, hashes=pictures.hashes + extra.hashes, thumbs=stacked)


def by_name(material: Material) -> dict[str, Finding]:
    """The findings of a whole audit."""
    return {finding.check: finding for finding in checks.audit(material)}
