"""Files of strangers to the material of an audit: folders and stacks of pictures, embeds, signals, tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from align import retrieval
from align.data.reading.safe_load import IMAGE_SUFFIXES, decode_image, load_array, require_finite
from align.data.signals import pixel_hash
from align.data.splits import thumbnails
from align.errors import UserError
from align.files.labels import tidy
from recon.audit import tables
from recon.audit.checks import Material, Pictures, Samples
from recon.audit.copies import Likeness, compared, likeness
from recon.scoring.embeddings import read_listing, read_matrix
from recon.scoring.opening import open_pair, open_pictures, paired
from recon.scoring.picture_sets import OpenedPictures


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
    sample_embeds: str | None = None
    chosen: Path | None = None
    scores: Path | None = None
    reported: float | None = None

    def seen(self, option: str) -> Path:
        """The pictures that were seen; `UserError` when ``option`` needs them and they are not given."""
        path = self.targets or self.test_images
        if path is None:
            raise UserError(f"{option} need the pictures that were seen: pass --targets or --test-images")
        return path


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
    if given.train_images is not None:
        material.train_pictures = read_pictures(given.train_images)
    test_images = given.test_images or given.targets
    if test_images is not None:
        material.test_pictures = read_pictures(test_images)
    if given.reconstructions is not None:
        told, truth = open_pair(given.reconstructions, given.seen("--reconstructions"))
        material.shown = (small(told), small(truth))
        ids = truth.ids or tuple(str(row) for row in range(truth.n))
        material.copied = beside_seen(ids, told, (truth.bytes8([row])[0] for row in range(truth.n)))
    if given.samples is not None:
        material.samples = _samples(given.samples, given)
    if given.sample_embeds is not None:
        material.samples = _embedded_samples(given.sample_embeds, material, given)


def read_pictures(path: Path) -> Pictures:
    """Pictures of a split: a folder of files of any size (ids = stems), or a stack as `open_pictures` takes it."""
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in IMAGE_SUFFIXES]
        files = [file for file in files if not file.name.startswith(".")]
        if not files:
            raise UserError(f"folder {str(path)!r} holds no picture; known endings: {', '.join(IMAGE_SUFFIXES)}")
        return picture_set([tidy(file.stem) for file in files], (decode_image(file) for file in files))
    stack = open_pictures(path)
    if stack.samples > 1:
        raise UserError(f"{str(path)!r} holds {stack.samples} pictures per stimulus; a split has one of each")
    return picture_set(stack.ids or [str(i) for i in range(stack.n)], (stack.bytes8([i])[0] for i in range(stack.n)))


def picture_set(ids: Sequence[str], images: Iterable[np.ndarray]) -> Pictures:
    """Hashes and thumbnails of pictures uint8 (H, W, 3), one at a time."""
    hashes, thumbs = [], []
    for image in images:
        hashes.append(pixel_hash(image))
        thumbs.append(thumbnails([image])[0])
    return Pictures(tuple(ids), tuple(hashes), np.stack(thumbs))


def small(pictures: OpenedPictures, sample: int = 0) -> np.ndarray:
    """Thumbnails (n, 768) of one sample of every stimulus."""
    return thumbnails(pictures.bytes8([row], sample)[0] for row in range(pictures.n))


def beside_seen(ids: Sequence[str], told: OpenedPictures, seen: Iterable[np.ndarray]) -> Likeness:
    """Every sample of the reconstructions beside the seen picture uint8 (H, W, 3) of its row."""
    pairs = [
        [likeness(told.bytes8([row], sample)[0], picture) for sample in range(told.samples)]
        for row, picture in enumerate(seen)
    ]
    return compared(ids, pairs)


def rowwise(samples: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Cosine (n, k) of samples (n, k, F) with one row (n, F) each."""
    return np.concatenate([retrieval.scores(rows[i : i + 1], samples[i]) for i in range(len(samples))])


def all_samples(told: OpenedPictures) -> np.ndarray:
    """Thumbnails (n, k, 768) of every sample."""
    return np.stack([small(told, k) for k in range(told.samples)], axis=1)


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


def _samples(path: Path, given: Given) -> Samples:
    """Samples as pictures; the published ones as numbers, or as pictures that are compared with every sample."""
    told, truth = open_pair(path, given.seen("--samples"))
    thumbs = all_samples(told)
    chosen = given.chosen or given.reconstructions
    if chosen is None:
        raise UserError("--samples need what was published: pass --chosen (numbers or pictures) or --reconstructions")
    if given.chosen is not None and (given.chosen.suffix.lower() == ".csv" or _is_list(given.chosen)):
        published = _numbers(given.chosen, truth.ids, truth.n, told.samples)
    else:
        shown = paired(open_pictures(chosen, known=truth.ids), truth)
        published = rowwise(thumbs, small(shown)).argmax(axis=1)
    return Samples(rowwise(thumbs, small(truth)), published)


def _embedded_samples(spec: str, material: Material, given: Given) -> Samples:
    """Samples (n, k, E) in the space of --images (n, E); --chosen gives their numbers."""
    flat, images = read_matrix(spec).astype(np.float64), material.images
    require_finite(flat, spec)
    if images is None or len(flat) != len(images) or flat.shape[1] % images.shape[1]:
        shape = "none" if images is None else images.shape
        raise UserError(f"--sample-embeds {spec!r} should be (n, k, E) beside --images (n, E), which are {shape}")
    if given.chosen is None:
        raise UserError("--sample-embeds need what was published: pass --chosen with the number of each sample")
    stack = flat.reshape(len(flat), -1, images.shape[1])
    published = _numbers(given.chosen, material.brain_ids, *stack.shape[:2])
    predicted = None if material.brain is None else rowwise(stack, material.brain)
    return Samples(rowwise(stack, images), published, predicted)


def _is_list(path: Path) -> bool:
    return path.suffix.lower() == ".npy" and load_array(path).ndim == 1


def _numbers(path: Path, ids: Sequence[str] | None, n: int, k: int) -> np.ndarray:
    """Which of k samples was published for each of n stimuli, from a table or an array (n,)."""
    if path.suffix.lower() == ".csv":
        published = tables.read_published(path, ids, n)
    else:
        published = load_array(path)
        if published.shape != (n,):
            raise UserError(f"{str(path)!r} has shape {published.shape}; one number for each of {n} stimuli is needed")
    wrong = published[~((published >= 0) & (published < k) & (published == np.floor(published)))]
    if len(wrong):
        raise UserError(f"{str(path)!r}: published sample {wrong[0]:g} is none of the {k} samples, 0 to {k - 1}")
    return published.astype(np.int64)
