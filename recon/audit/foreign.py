"""Files of strangers to the material of an audit: folders and stacks of pictures, embeds, signals, tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.data.safe_load import IMAGE_SUFFIXES, decode_image, load_array, require_finite
from align.data.splits import thumbnails
from align.errors import UserError
from recon.audit import tables
from recon.audit.checks import Material, PictureSet, Samples
from recon.audit.picture_files import as_pixels, paired, read_pictures, read_stack, rowwise
from recon.evaluation.embeddings import read_listing, read_matrix

_SAMPLE = re.compile(r"^(?P<stem>.+?)_(?:seed-|sample-)?(?P<k>\d+)$")


@dataclass(frozen=True)
class Given:
    """What was given on the command line: paths, or None."""

    train_images: Path | None = None
    test_images: Path | None = None
    reconstructions: Path | None = None
    targets: Path | None = None
    brain: str | None = None
    images: str | None = None
    train_embeds: str | None = None
    train_signals: Path | None = None
    test_signals: Path | None = None
    ids: Path | None = None
    image_ids: Path | None = None
    labels: Path | None = None
    order: Path | None = None
    samples: Path | None = None
    chosen: Path | None = None
    scores: Path | None = None
    reported: float | None = None


def add_files(material: Material, given: Given) -> None:
    """Read every given file into ``material``, over what a run has put there. Raises `UserError` for a bad one."""
    _add_embeds(material, given)
    for name in ("train_signals", "test_signals"):
        path = getattr(given, name)
        if path is not None:
            array = load_array(path)
            require_finite(array, str(path))
            setattr(material, name, array)
    if given.labels is not None:
        tables.add_labels(material, given.labels)
    if given.order is not None:
        tables.add_order(material, given.order)
    if given.scores is not None:
        tables.add_scores(material, given.scores, given.reported)
    _add_pictures(material, given)
    if given.samples is not None:
        material.samples = _samples(material, given)


def _add_embeds(material: Material, given: Given) -> None:
    for name in ("brain", "images", "train_embeds"):
        spec = getattr(given, name)
        if spec is not None:
            array = read_matrix(spec).astype(np.float64)
            require_finite(array, str(spec))
            setattr(material, name, array)
    if given.ids is not None:
        material.brain_ids = read_listing(given.ids).ids
    if given.image_ids is not None:
        material.image_ids = read_listing(given.image_ids).ids
    brain, images, known = material.brain, material.images, material.train_embeds
    if brain is not None and images is not None and brain.shape != images.shape:
        raise UserError(
            f"--brain {brain.shape} and --images {images.shape} differ in shape; row i of both must be stimulus i, "
            "in one space"
        )
    if known is not None and any(x is not None and x.shape[1] != known.shape[1] for x in (brain, images)):
        raise UserError(f"--train-embeds have width {known.shape[1]}, not that of --brain or --images")
    for option, ids, rows in (("--ids", material.brain_ids, brain), ("--image-ids", material.image_ids, images)):
        if ids is not None and rows is not None and len(ids) != len(rows):
            raise UserError(f"{option} lists {len(ids)} ids for {len(rows)} rows; one id per row")


def _add_pictures(material: Material, given: Given) -> None:
    if given.train_images is not None:
        material.train_pictures = read_pictures(given.train_images)
    if given.test_images is not None:
        material.test_pictures = read_pictures(given.test_images)
    if given.targets is not None and material.test_pictures is None:
        material.test_pictures = read_pictures(given.targets)
    if given.reconstructions is None:
        return
    target_path = given.targets or given.test_images
    if target_path is None:
        raise UserError("--reconstructions need the pictures that were seen: pass --targets or --test-images")
    estimate, targets = read_pictures(given.reconstructions), read_pictures(target_path)
    material.shown = paired(estimate, targets, given.reconstructions)


def _samples(material: Material, given: Given) -> Samples:
    """Samples as pictures (folder, or stack with k in the second place) or as embeds (n, k, E)."""
    assert given.samples is not None
    path = given.samples
    if path.is_dir():
        ids, thumbs = _sample_folder(path)
    else:
        stack = read_stack(path)
        if stack.ndim == 3:
            return _embedded_samples(material, given, stack)
        if stack.ndim != 5:
            raise UserError(
                f"{str(path)!r} has shape {stack.shape}; samples are (n, k, E), (n, k, H, W, 3) or a folder"
            )
        n, k = stack.shape[:2]
        flat = as_pixels(stack.reshape(n * k, *stack.shape[2:]), path)
        ids, thumbs = [str(i) for i in range(n)], thumbnails(flat).reshape(n, k, -1)
    target_path = given.targets or given.test_images
    if target_path is None:
        raise UserError("--samples of pictures need the pictures that were seen: pass --targets or --test-images")
    targets = read_pictures(target_path)
    seen = paired(PictureSet(tuple(ids), (), thumbs[:, 0]), targets, path)[1]
    published = _published(given, ids, thumbs)
    return Samples(rowwise(thumbs, seen), _within(published, thumbs.shape[1], path))


def _embedded_samples(material: Material, given: Given, stack: np.ndarray) -> Samples:
    if material.images is None or material.images.shape != (len(stack), stack.shape[2]):
        raise UserError(f"--samples {stack.shape} of embeds need --images of shape ({len(stack)}, {stack.shape[2]})")
    published = _published(given, material.brain_ids, None, len(stack))
    predicted = None if material.brain is None else rowwise(stack, material.brain)
    return Samples(rowwise(stack, material.images), _within(published, stack.shape[1], given.samples), predicted)


def _published(given: Given, ids: Sequence[str] | None, thumbs: np.ndarray | None, n: int | None = None) -> np.ndarray:
    """Which sample was published: a table or array of numbers, or the published pictures themselves."""
    path = given.chosen or (given.reconstructions if thumbs is not None else None)
    if path is None:
        raise UserError("--samples need what was published: pass --chosen (numbers or pictures) or --reconstructions")
    count = len(ids) if n is None and ids is not None else n or 0
    if path.suffix.lower() == ".csv":
        return tables.read_published(path, ids, count)
    numbers = None if path.is_dir() else read_stack(path)
    if numbers is not None and numbers.ndim == 1:
        if len(numbers) != count:
            raise UserError(f"{str(path)!r} has {len(numbers)} choices for {count} stimuli")
        return numbers.astype(np.int64)
    if thumbs is None or ids is None:
        raise UserError(f"{str(path)!r} should hold one sample number per stimulus")
    shown = read_pictures(path)
    place = {name: i for i, name in enumerate(shown.ids)}
    strange = [name for name in ids if name not in place]
    if strange:
        raise UserError(f"{str(path)!r} has no published picture called {strange[0]!r}")
    assert shown.thumbs is not None
    return rowwise(thumbs, shown.thumbs[[place[name] for name in ids]]).argmax(axis=1)


def _sample_folder(path: Path) -> tuple[list[str], np.ndarray]:
    """Files ``<stem>_seed-<k>``, ``<stem>_sample-<k>`` or ``<stem>_<k>``: stems and thumbnails (n, k, 768)."""
    files: dict[str, list[tuple[int, Path]]] = {}
    for file in sorted(path.iterdir()):
        match = _SAMPLE.match(file.stem)
        if match and file.suffix.lower() in IMAGE_SUFFIXES:
            files.setdefault(match["stem"], []).append((int(match["k"]), file))
    counts = {len(samples) for samples in files.values()}
    if len(counts) != 1:
        raise UserError(
            f"folder {str(path)!r} needs equally many <stem>_<k> pictures per stimulus, found {counts or 'none'}"
        )
    rows = [thumbnails(decode_image(file) for _, file in sorted(samples)) for samples in files.values()]
    return list(files), np.stack(rows)


def _within(published: np.ndarray, k: int, where: Any) -> np.ndarray:
    if published.min() < 0 or published.max() >= k:
        raise UserError(
            f"published sample {int(published.max())} is outside the {k} samples of {str(where)!r} (0 to {k - 1})"
        )
    return published
