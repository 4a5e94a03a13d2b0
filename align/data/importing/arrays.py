"""Signals and pictures that are already in memory: whatever holds them, as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from align.data.reading.safe_load import IMAGE_SUFFIXES, as_seen
from align.data.signals import pixel_hash
from align.errors import UserError
from align.files import no_file

Picture = np.ndarray | Path


def as_signals(x: Any, what: str = "signals") -> np.ndarray:
    """Numbers (n, C, T) or (n, V) of an array, a tensor on any device or nested lists; the type in native byte order.

    Strides may be negative, numbers of any float or whole type; nothing is copied where that can be avoided.
    Raises `UserError` for text, objects, complex or masked numbers, sparse matrices and other shapes.
    """
    if hasattr(x, "detach"):  # a tensor: gradients and devices stay behind
        x = x.detach().cpu()
        x = x.float() if "bfloat16" in str(x.dtype) else x
        x = x.resolve_conj().resolve_neg() if hasattr(x, "resolve_conj") else x
    if hasattr(x, "toarray"):
        raise UserError(f"{what} are a sparse matrix; pass x.toarray()")
    if np.ma.is_masked(x):
        raise UserError(f"{what} hold masked values; fill or remove these trials first")
    try:
        array = np.asarray(x)
    except Exception as error:  # ragged lists, and containers that raise what they like
        line = " ".join(str(error).split())[:200]
        raise UserError(f"{what} are no array of numbers ({line}); pass (n, ...), one trial a row") from error
    if array.dtype.kind not in "biuf":
        raise UserError(
            f"{what} hold {array.dtype}, no real numbers; pass floats (n, channels, samples) or (n, voxels)"
        )
    if array.ndim not in (2, 3) or 0 in array.shape[1:]:
        raise UserError(f"{what} have shape {array.shape}; pass (n, channels, samples) or (n, voxels)")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def as_pictures(images: Any, what: str = "images") -> tuple[list[str], dict[str, Picture]]:
    """Name of every picture given, and the distinct pictures by name.

    ``images``: an array (n, H, W, 3) uint8, a list or a mapping of arrays and paths, or a folder. Arrays of a list are
    called 00000.png and so on, equal ones by the first of them; files by their own name, or by their whole path where
    two would clash. Raises `UserError` for anything else, and for arrays none of which has a value above 1.
    """
    names, found = _named(images, what)
    arrays = [picture for picture in found.values() if isinstance(picture, np.ndarray)]
    if arrays and len(arrays) == len(found) and max(int(array.max()) for array in arrays) == 1:
        raise UserError(f"{what} hold no value but 0 and 1; a picture is uint8, 0 to 255: multiply by 255")
    return names, found


def _named(images: Any, what: str) -> tuple[list[str], dict[str, Picture]]:
    """Name of every picture, and the pictures by name."""
    if isinstance(images, str | Path):
        found = _of_folder(Path(images).expanduser(), what)
        return list(found), found
    if isinstance(images, Mapping):
        found = {str(name): as_picture(image, f"{what} {str(name)!r}") for name, image in images.items()}
        return list(found), found
    try:
        listed = list(images)
    except TypeError as error:
        raise UserError(f"{what}: pass an array (n, H, W, 3) uint8, a list of files, or a folder") from error
    if not listed:
        raise UserError(f"{what}: there are none")
    pictures = [as_picture(image, f"{what} {i}") for i, image in enumerate(listed)]
    names = _names(pictures)
    return names, dict(zip(names, pictures, strict=True))


def as_picture(image: Any, what: str) -> Picture:
    """A path, or uint8 (H, W, 3) of an array, a tensor or a PIL picture; raises `UserError` for anything else."""
    if isinstance(image, str | Path):
        path = Path(image).expanduser()
        if not path.is_file():
            raise UserError(f"{what}: {str(path)!r} {no_file(path)}")
        return path
    if hasattr(image, "detach"):
        image = image.detach().cpu().numpy()
    if hasattr(image, "convert"):
        image = as_seen(image, what)
    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise UserError(f"{what}: {array.dtype} {array.shape}; a picture is uint8 (H, W, 3), 0 to 255")
    return np.ascontiguousarray(array)


def _of_folder(folder: Path, what: str) -> dict[str, Picture]:
    if not folder.is_dir():
        raise UserError(f"{what}: {str(folder)!r} is no folder; pass a folder, a list of files or an array")
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not files:
        raise UserError(f"{what}: {str(folder)!r} holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
    return {path.relative_to(folder).as_posix(): path for path in files}


def _names(pictures: Sequence[Picture]) -> list[str]:
    """The file name, or a number; the whole path where two files have one name. Equal pictures share a name."""
    files = list(dict.fromkeys(picture for picture in pictures if isinstance(picture, Path)))
    clash = len({path.name for path in files}) < len(files)
    names, first = [], dict[str, str]()
    for i, picture in enumerate(pictures):
        if isinstance(picture, np.ndarray):
            names.append(first.setdefault(pixel_hash(picture), f"{i:05d}.png"))
        elif clash:
            names.append(picture.resolve().as_posix().replace(":", "").lstrip("/"))
        else:
            names.append(picture.name)
    return names
