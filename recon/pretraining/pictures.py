"""The pool of training pictures: rendered scenes with captions, natural photographs, V4 training images; 64 x 64.

Twins of test images are kept out: test concepts of the simulated study are never rendered, and every photograph that
is a scene twin of a V4 test image of any session is dropped (`align.data.splits.scene_twins`).
"""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from align.data.reading.picture_files import PictureFiles
from align.data.studies.simulated.rendering import SIZE, TRAIN_CONCEPTS, picture, scene_of
from align.errors import UserError
from align.files.checksums import append_checksum, map_npy
from align.files.made_once import made_once
from recon.config import PicturesConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pool:
    """``images`` uint8 (n, 64, 64, 3); the first ``n_rendered`` are procedural; captions "" where there is none."""

    images: np.ndarray
    ids: tuple[str, ...]
    captions: tuple[str, ...]
    n_rendered: int
    photographs: tuple[np.ndarray, ...] = ()

    def original(self, row: int) -> np.ndarray:
        """Picture ``row`` at the resolution of its source, uint8 (H, W, 3)."""
        return self.photographs[row - self.n_rendered] if row >= self.n_rendered else np.asarray(self.images[row])

    def at(self, rows: Sequence[int] | np.ndarray, size: int) -> np.ndarray:
        """Pictures uint8 (B, size, size, 3), resized from their source where that is another size."""
        from PIL import Image

        if size == self.images.shape[1]:
            return np.array(self.images[list(rows)])
        resized = [Image.fromarray(self.original(row)).resize((size, size), Image.Resampling.BICUBIC) for row in rows]
        return np.stack([np.asarray(image) for image in resized])

    def sample(self, rng: np.random.Generator, n: int, share_photographs: float) -> np.ndarray:
        """Indices of a batch: rendered pictures first, then ``share_photographs`` of photographs."""
        n_photographs = round(n * share_photographs) if self.n_rendered < len(self.images) else 0
        rendered = rng.integers(0, self.n_rendered, n - n_photographs)
        photographs = rng.integers(self.n_rendered, max(self.n_rendered + 1, len(self.images)), n_photographs)
        return np.concatenate([rendered, photographs])


def rendered_ids(n: int) -> list[str]:
    """Ids of n procedural pictures over the training concepts; numbers from 1000, so no stimulus of the study."""
    return [f"{TRAIN_CONCEPTS[i % len(TRAIN_CONCEPTS)]}-{1000 + i // len(TRAIN_CONCEPTS)}" for i in range(n)]


def load_pool(config: PicturesConfig, cache_dir: Path) -> Pool:
    """The pool, drawn once and cached as .npy; raises `UserError` when a source is missing or unreadable."""
    photographs = read_photographs(config)  # first: rendering takes minutes
    ids = rendered_ids(config.rendered)
    cache = cache_dir / f"rendered_{config.rendered}.npy"

    def render() -> None:
        from tqdm import tqdm

        from align.files import atomic_path

        with atomic_path(cache) as temporary:
            np.save(temporary, np.stack([picture(i) for i in tqdm(ids, desc="render pictures")]))
            append_checksum(temporary, cache.name)

    rendered = made_once(cache, lambda: map_npy(cache), render, f"{len(ids)} rendered pictures")
    captions = [scene_of(i).caption for i in ids]
    images = (
        np.concatenate([rendered, *(_resize(image)[None] for _, image in photographs)]) if photographs else rendered
    )
    names = [name for name, _ in photographs]
    classes = _classes(config.classes)
    captions += [_caption(name, classes) for name in names]
    return Pool(images, tuple(ids + names), tuple(captions), len(ids), tuple(image for _, image in photographs))


def read_photographs(config: PicturesConfig) -> list[tuple[str, np.ndarray]]:
    """Photographs from every source, decoded, twins of V4 test images removed."""
    natural = [item for source in config.photographs for item in read_source(Path(source).expanduser())]
    if config.v4_root is None:
        return natural
    from align.data.splits import scene_twins, thumbnails
    from align.data.studies.cowley2023 import pretraining_images, test_images

    test = thumbnails(test_images(config.v4_root))
    twin = scene_twins(thumbnails(image for _, image in natural), test, [], [])
    log.info("%d of %d photographs are twins of V4 test images and were dropped", int(twin.sum()), len(natural))
    kept = [item for item, drop in zip(natural, twin, strict=True) if not drop]
    v4 = pretraining_images(config.v4_root)
    return kept + v4


def read_source(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(name, uint8 (H, W, 3)) of the pictures in a folder or a zip, sorted; raises `UserError` for unreadable ones."""
    return iter(PictureFiles(path, "pictures.photographs="))


def _resize(image: np.ndarray) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def _classes(path: str | None) -> dict[str, str]:
    """WordNet ids to names, from the columns ``wnid`` and ``name`` of a table; empty where there is none."""
    if path is None:
        return {}
    with Path(path).expanduser().open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"wnid", "name"} <= set(rows[0]):
        raise UserError(f"pictures.classes={path!r} has no columns wnid and name")
    return {row["wnid"]: row["name"] for row in rows}


def _caption(name: str, classes: dict[str, str]) -> str:
    """A folder that is a WordNet id of ``classes`` (``n02124075/n02124075_1.jpg``) or an ImageNet-style name
    (``n01440764_tench.jpg``) says what is shown; other photographs have no caption."""
    path = Path(name)
    known = classes.get(path.parent.name)
    if known is None:
        if not re.match(r"n\d+_", path.stem):
            return ""
        known = " ".join(word for word in path.stem.split("_")[1:] if not word.isdigit())
    return f"a photo of a {known}".lower() if known else ""
