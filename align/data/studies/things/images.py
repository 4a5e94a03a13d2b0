"""The pictures of THINGS-EEG2 and THINGS-MEG, and the one order in which signals, metadata and files must agree.

A folder holds ``training_images/`` (or ``train_images/``) and ``test_images/``, each with one folder per concept
(``00001_aardvark/aardvark_01b.jpg``). Row i of the signals belongs to file i of the sorted listing. That rule is
checked against everything else that tells an order: ``image_metadata.npy`` (a dict by ``np.save``: file names and
concepts of both splits) and, where a signal file lists its pictures, that list. Pictures are decoded when asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from align.data.reading.convert import open_container
from align.data.reading.picture_hashes import picture_hashes
from align.data.reading.safe_load import IMAGE_SUFFIXES, decode_image
from align.data.signals import Stimuli
from align.data.studies.things.block import Block
from align.data.studies.things.variants import texts
from align.errors import UserError

METADATA = "image_metadata.npy"
IN_ORDER = f"sorted folders, equal to {METADATA} in every row"
FOLDERS = {"train": ("training_images", "train_images"), "test": ("test_images",)}
LAYOUT = "the folder that holds training_images/ (or train_images/) and test_images/"


@dataclass(frozen=True)
class ThingsPictures:
    """The pictures of one split: ``names`` "00001_aardvark/aardvark_01b.jpg" in row order, and their files."""

    split: str
    names: tuple[str, ...]
    paths: tuple[Path, ...]

    @property
    def concepts(self) -> tuple[str, ...]:
        """The concept of every picture, "aardvark"."""
        return tuple(concept_of(name) for name in self.names)


def concept_of(name: str) -> str:
    """ "aardvark" of "00001_aardvark/aardvark_01b.jpg"."""
    folder = name.split("/")[0]
    number, _, concept = folder.partition("_")
    return concept if number.isdigit() and concept else folder


def find_pictures(root: Path, images: str | None) -> tuple[ThingsPictures, ThingsPictures, str]:
    """Training and test pictures, and a sentence about what their order rests on.

    They lie in ``images`` (``study.images``) where it is given, else in ``root`` or a folder of it.

    Raises
    ------
    UserError
        No such folder, no picture, a listing that differs from the metadata (the first differing row is named), a
        concept on both sides.
    """
    base = _base(root, images)
    train, test = (_listing(base, split) for split in FOLDERS)
    shared = sorted(set(train.concepts) & set(test.concepts))
    if shared:
        raise UserError(f"{str(base)!r}: concept {shared[0]!r} has training and test pictures; mend the folders")
    metadata = next(
        (path for path in (base / METADATA, root / METADATA, base.parent / METADATA) if path.is_file()), None
    )
    if metadata is None:
        return train, test, f"sorted folders; there is no {METADATA} to compare them with"
    content = open_container(metadata)
    if not isinstance(content, dict):
        raise UserError(f"{str(metadata)!r} holds no dict; expected train_img_files, train_img_concepts, test_...")
    for pictures in (train, test):
        _require_same_order(metadata, content, pictures)
    _require_disjoint(metadata, content)
    return train, test, IN_ORDER


def picture_bases(root: Path) -> list[Path]:
    """Folders in which pictures may lie: ``root`` and up to three below it, but for those called ``...images``."""
    found, level = [root], [root]
    for _ in range(3):
        below = sorted(child for folder in level if folder.is_dir() for child in folder.iterdir() if child.is_dir())
        level = [f for f in below if not f.name.startswith((".", "sub-")) and not f.name.lower().endswith("images")]
        found += level
    return found


def find_picture(name: str, bases: Sequence[Path], listed: Sequence[str] = ()) -> Path | None:
    """The file of "00001_aardvark/aardvark_01b.jpg" in one of the usual places below ``bases``, None where it is not.

    The folders of THINGS itself (``object_images/aardvark/``), those that the repacks sort (``training_images/``,
    ``test_images/``), the concepts themselves, and ``listed``.
    """
    concept, file = concept_of(name), name.rpartition("/")[2]
    own = f"{concept}/{file}"
    sorted_ones = [f"{folder}/{name}" for folders in FOLDERS.values() for folder in folders]
    tails = [*listed, f"object_images/{own}", f"images/{own}", f"Images/{own}", own, *sorted_ones]
    return next((base / tail for base in bases for tail in tails if (base / tail).is_file()), None)


def pictures_by_name(split: str, names: Sequence[str], root: Path, images: str | None) -> ThingsPictures:
    """Pictures that a signal file lists itself, wherever they lie (`find_picture`).

    Raises `UserError` naming the first that is nowhere.
    """
    bases = picture_bases(root if images is None else Path(images).expanduser())
    paths = []
    for name in names:
        path = find_picture(name, bases)
        if path is None:
            raise UserError(
                f"picture {name!r} of the signals is in none of the usual folders; give study.images=FOLDER"
            )
        paths.append(path)
    return ThingsPictures(split, tuple(names), tuple(paths))


def stimuli_of(train: ThingsPictures, test: ThingsPictures, cache_dir: str | Path) -> Stimuli:
    """Training pictures, then test pictures; ids such as "train/00001_aardvark/aardvark_01b.jpg"; groups = concepts.

    Their pixel hashes are kept in ``cache_dir``.
    """
    paths = train.paths + test.paths
    concepts = train.concepts + test.concepts
    _, groups = np.unique(concepts, return_inverse=True)
    return Stimuli(
        ids=tuple(f"{part.split}/{name}" for part in (train, test) for name in part.names),
        load=lambda i: decode_image(paths[i]),
        groups=groups.astype(np.int64),
        concepts=concepts,
        captions=("",) * len(paths),
        known_hashes=lambda: picture_hashes(paths, cache_dir),
    )


def require_pictures_of(block: Block, pictures: ThingsPictures) -> None:
    """Raise `UserError` unless the signals have one row per picture and list the same pictures in the same order."""
    if block.n_images != len(pictures.names):
        raise UserError(
            f"{str(block.path)!r} holds {block.n_images} pictures, the folder of {pictures.split} pictures "
            f"{len(pictures.names)}; both must be of the same pictures"
        )
    if block.images is not None:
        _require_equal(block.images, pictures.names, str(block.path), "the sorted folder")
    if block.labels is not None:
        numbers = {folder: i for i, folder in enumerate(dict.fromkeys(name.split("/")[0] for name in pictures.names))}
        expected = [str(numbers[name.split("/")[0]]) for name in pictures.names]
        _require_equal([str(label) for label in block.labels], expected, f"{block.path}, label", "the sorted folders")


def _base(root: Path, images: str | None) -> Path:
    found = sorted_folders(root, images)
    if found is not None:
        return found
    given = f"study.images={images!r}" if images is not None else f"study.root={str(root)!r}"
    raise UserError(f"{given} holds no pictures; give study.images=FOLDER, {LAYOUT}")


def sorted_folders(root: Path, images: str | None) -> Path | None:
    """The folder that holds ``training_images`` (or ``train_images``) and ``test_images``, None where none does."""
    places = picture_bases(root) if images is None else picture_bases(Path(images).expanduser())
    return next(
        (place for place in places if all(any((place / n).is_dir() for n in names) for names in FOLDERS.values())), None
    )


def _listing(base: Path, split: str) -> ThingsPictures:
    """Files of one split, sorted by concept folder, then by name."""
    folder = next(base / name for name in FOLDERS[split] if (base / name).is_dir())
    paths = []
    for concept in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = (path for path in concept.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        paths += sorted(path for path in files if not path.name.startswith("."))
    if not paths:
        raise UserError(f"{str(folder)!r} holds no pictures in folders such as 00001_aardvark; fetch them again")
    return ThingsPictures(split, tuple(f"{path.parent.name}/{path.name}" for path in paths), tuple(paths))


def _require_same_order(metadata: Path, content: dict[Any, Any], pictures: ThingsPictures) -> None:
    """Names of the metadata, row by row, are the sorted files; a missing or additional file is named as such."""
    concepts = _column(metadata, content, f"{pictures.split}_img_concepts")
    files = _column(metadata, content, f"{pictures.split}_img_files")
    if len(concepts) != len(files):
        raise UserError(f"{str(metadata)!r} lists {len(concepts)} concepts and {len(files)} {pictures.split} files")
    listed = [f"{concept}/{file}" for concept, file in zip(concepts, files, strict=True)]
    found, known = set(pictures.names), set(listed)
    for row, name in enumerate(listed):
        if name not in found:
            raise UserError(f"{pictures.split} picture {name!r}, row {row} of {METADATA}, is missing in the folder")
    for name in pictures.names:
        if name not in known:
            raise UserError(f"{pictures.split} picture {name!r} is in the folder, but not in {METADATA}; remove it")
    _require_equal(listed, pictures.names, str(metadata), "the sorted folder")


def _require_equal(listed: Sequence[str], expected: Sequence[str], source: str, reference: str) -> None:
    for row, (name, other) in enumerate(zip(listed, expected, strict=False)):
        if name != other:
            raise UserError(
                f"row {row} of {source} is {name!r}, of {reference} {other!r}: signals and pictures would be mixed up"
            )
    if len(listed) != len(expected):
        raise UserError(f"{source} lists {len(listed)} pictures, {reference} {len(expected)}")


def _require_disjoint(metadata: Path, content: dict[Any, Any]) -> None:
    """No concept of the whole THINGS list on both sides (its own numbers and names, where the metadata tell them)."""
    keys = [f"{split}_img_concepts_THINGS" for split in FOLDERS]
    if all(key in content for key in keys):
        train, test = (set(_column(metadata, content, key)) for key in keys)
        if train & test:
            raise UserError(f"{str(metadata)!r}: THINGS concept {min(train & test)!r} is in training and test")


def _column(metadata: Path, content: dict[Any, Any], key: str) -> list[str]:
    if key not in content:
        raise UserError(f"{str(metadata)!r} has no {key!r}; it holds: {', '.join(map(str, content)) or 'nothing'}")
    return texts(metadata, key, content[key])
