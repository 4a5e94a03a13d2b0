"""A folder of picture files as a `OpenedPictures`: the stem is the id, further samples follow a rule of names.

k samples per stimulus are recognised in three ways, each stimulus having the same number:

* a subfolder per stimulus, its name the id, the pictures inside in natural order (ATM writes 10);
* ``STEM_seed-3.png``, what `recon generate` writes, and its ``index.csv`` where there is one;
* ``STEM_0.png``, only where STEM is an id of the targets, or a number when the targets are a stack.

A stem that is itself an id of the targets is never taken apart, and no stem of the targets is.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from align.data.names import listed_file
from align.data.reading.safe_load import IMAGE_SUFFIXES, decode_image, has_alpha, seen_size
from align.errors import UserError
from align.files.labels import tidy
from recon.drawing.folders import listed_picture
from recon.scoring.picture_sets import OpenedPictures, require_square

HELD = 2**30  # bytes of decoded pictures kept per set; beyond it files are decoded again whenever they are read
_SUFFIX = "|".join(re.escape(suffix) for suffix in IMAGE_SUFFIXES)
_SEED = re.compile(rf"(.+?)(?:{_SUFFIX})?_seed-(\d+)", re.IGNORECASE)  # of a picture "a.png": a.png_seed-3.png
_NUMBER = re.compile(r"(.+)_(\d+)")


def open_folder(folder: Path, known: Sequence[str] | None = None) -> OpenedPictures:
    """The pictures of ``folder``; headers are read here, pixels when asked for. See the rule of names above.

    Raises `UserError` for no pictures, unequal numbers of samples, transparency, sizes that differ, pictures that
    are not square, more than 8 bits, a corrupt file.
    """
    files = _files(folder, known)
    counts = {stimulus: len(paths) for stimulus, paths in files.items()}
    k = max(counts.values())
    for stimulus, count in counts.items():
        if count != k:
            raise UserError(
                f"{str(folder)!r} holds {count} pictures of {stimulus!r} but {k} of others; make them equal"
            )
    size = _common_size([path for paths in files.values() for path in paths], folder)
    listed = list(files.values())
    held: dict[Path, np.ndarray] = {}
    hold = len(listed) * k * size * size * 3 <= HELD

    def read(rows: Sequence[int], sample: int) -> np.ndarray:
        pixels = []
        for row in rows:
            path = listed[row][sample]
            value = held[path] if path in held else decode_image(path)
            if hold:
                held[path] = value
            pixels.append(value)
        return np.stack(pixels)

    return OpenedPictures(str(folder), tuple(files), len(files), k, size, read)


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which ``2`` comes before ``10``."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts if part]


def _files(folder: Path, known: Sequence[str] | None) -> dict[str, list[Path]]:
    """Id to the pictures of its samples, both in natural order."""
    pictures = [path for path in folder.iterdir() if _is_picture(path)]
    folders = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__"))]
    nested = [path for path in folders if any(_is_picture(p) for p in path.iterdir())]
    if pictures and nested:
        raise UserError(f"{str(folder)!r} holds pictures and folders of pictures ({nested[0].name!r}); keep one kind")
    if nested:
        nested.sort(key=lambda path: natural(path.name))
        return {
            tidy(path.name): sorted(filter(_is_picture, path.iterdir()), key=lambda p: natural(p.name))
            for path in nested
        }
    if not pictures:
        raise UserError(f"{str(folder)!r} holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
    pictures.sort(key=lambda path: natural(path.name))
    _refuse_twins(pictures, folder)
    indexed = _index(folder)
    if indexed:
        return indexed
    found: dict[str, list[Path]] = {}
    for path, stimulus in zip(pictures, _stimuli([tidy(path.stem) for path in pictures], known), strict=True):
        found.setdefault(stimulus, []).append(path)
    return found


def _stimuli(stems: list[str], known: Sequence[str] | None) -> list[str]:
    """Id of each stem. ``known``: ids of the targets; None where they are a stack, empty where these are they."""
    seeded = [_SEED.fullmatch(stem) for stem in stems]
    numbered = [_NUMBER.fullmatch(stem) for stem in stems]
    if known is None:
        for matches in (seeded, numbered):
            if all(match and (matches is seeded or match[1].isdecimal()) for match in matches):
                return [match[1] for match in matches if match]
        return stems
    ids = set(known)
    told = [matches for matches in (seeded, numbered) if any(match and match[1] in ids for match in matches)]
    names = []
    for stem, *matches in zip(stems, *told, strict=True):
        tried = [stem, *(match[1] for match in matches if match)]
        names.append(next((name for name in tried if name in ids), tried[-1]))
    return names


def _index(folder: Path) -> dict[str, list[Path]]:
    """What the index.csv of `recon generate` says: ids as they were, samples by seed. {} without such a file."""
    path = listed_file(folder, "index.csv", f"folder {str(folder)!r}")
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, restval=""))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{str(path)!r} is no CSV in UTF-8; mend it, or remove it to pair by file names") from error
    if not rows or not {"stimulus_id", "file", "seed"} <= set(rows[0]):
        return {}
    found: dict[str, list[Path]] = {}
    for number, row in enumerate(rows, 1):
        listed_file(folder, row["file"], f"{str(path)!r}, row {number}")
    for row in sorted(rows, key=lambda row: natural(row["seed"])):
        found.setdefault(tidy(row["stimulus_id"]), []).append(listed_picture(folder, row))
    return dict(sorted(found.items(), key=lambda item: natural(item[0])))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _refuse_twins(pictures: list[Path], folder: Path) -> None:
    seen: dict[str, str] = {}
    for path in pictures:
        stem = tidy(path.stem)
        if stem in seen:
            raise UserError(f"{str(folder)!r} holds {seen[stem]!r} and {path.name!r}: one id, two pictures")
        seen[stem] = path.name


def _common_size(paths: list[Path], folder: Path) -> int:
    """Side of all pictures as they are seen, from their headers; refuses more than 8 bits, sizes that differ and, where
    there is an alpha channel, transparency."""
    from PIL import Image

    first: tuple[str, tuple[int, int]] | None = None
    for path in paths:
        try:
            with Image.open(path) as picture:
                size, mode, alpha = seen_size(picture), picture.mode, has_alpha(picture)
        except FileNotFoundError as error:
            raise UserError(f"picture {str(path)!r} of index.csv does not exist") from error
        except Exception as error:  # PIL raises whatever it likes on broken bytes
            raise UserError(f"picture {str(path)!r} is corrupt or no picture; replace the file") from error
        if alpha:
            decode_image(path)
        if mode.startswith(("I", "F")):
            raise UserError(f"picture {str(path)!r} has more than 8 bits per channel; save every picture as 8-bit RGB")
        first = first or (path.name, size)
        if size != first[1]:
            raise UserError(
                f"{str(folder)!r}: {path.name!r} is {size[0]} x {size[1]} px, {first[0]!r} is {first[1][0]} x "
                f"{first[1][1]} px; bring the set to one size"
            )
    assert first is not None
    return require_square(first[1][1], first[1][0], str(folder))
