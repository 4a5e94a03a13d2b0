"""Picture files of strangers as hashes and thumbnails: folders of files, stacks in arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from align import retrieval
from align.data.safe_load import IMAGE_SUFFIXES, decode_image, load_array, require_finite
from align.data.signals import pixel_hash
from align.data.splits import thumbnails
from align.errors import UserError
from recon.audit.checks import PictureSet


def read_pictures(path: str | Path) -> PictureSet:
    """A folder of picture files (ids = stems) or a stack, array file or .pt, of (n, H, W, 3) or (n, 3, H, W).

    Stacks are uint8 or float in [0, 1]; their ids are row numbers. Raises `UserError` otherwise.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise UserError(f"folder {str(path)!r} holds no picture; known endings: {', '.join(IMAGE_SUFFIXES)}")
        ids = [file.stem for file in files]
        if len(set(ids)) < len(ids):
            raise UserError(f"folder {str(path)!r} holds two pictures of one stem; keep one of each")
        return picture_set(ids, (decode_image(file) for file in files))
    stack = as_pixels(read_stack(path), path)
    if stack.ndim != 4:
        raise UserError(f"{str(path)!r} has shape {stack.shape}; a stack of pictures is (n, H, W, 3) or (n, 3, H, W)")
    return picture_set([str(i) for i in range(len(stack))], stack)


def picture_set(ids: Sequence[str], images: Iterable[np.ndarray]) -> PictureSet:
    """Hashes and thumbnails of pictures uint8 (H, W, 3), one at a time."""
    hashes, thumbs = [], []
    for image in images:
        hashes.append(pixel_hash(image))
        thumbs.append(thumbnails([image])[0])
    return PictureSet(tuple(ids), tuple(hashes), np.stack(thumbs))


def paired(estimate: PictureSet, targets: PictureSet, where: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Thumbnails of reconstructions and of their targets, matched by file stem."""
    place = {name: i for i, name in enumerate(targets.ids)}
    strange = [name for name in estimate.ids if name not in place]
    if strange:
        raise UserError(f"{str(where)!r}: no target is called {strange[0]!r}; pictures are paired by file stem or row")
    if len(estimate.ids) < 3:
        raise UserError(f"{str(where)!r} holds {len(estimate.ids)} pictures; 3 or more are needed")
    assert estimate.thumbs is not None and targets.thumbs is not None
    return estimate.thumbs, targets.thumbs[[place[name] for name in estimate.ids]]


def rowwise(samples: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Cosine (n, k) of samples (n, k, F) with one row (n, F) each."""
    return np.concatenate([retrieval.scores(rows[i : i + 1], samples[i]) for i in range(len(samples))])


def read_stack(path: Path) -> np.ndarray:
    """An array of any shape from an array file or a ``.pt`` that holds one tensor."""
    if path.suffix.lower() not in (".pt", ".pth"):
        array = load_array(path)
    else:
        import torch

        if not path.is_file():
            raise UserError(f"file {str(path)!r} does not exist")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds on foreign or malicious files
            raise UserError(
                f"{str(path)!r} is no file of plain tensors, or needs code to be run; save as .npy"
            ) from error
        if not isinstance(content, torch.Tensor):
            raise UserError(f"{str(path)!r} holds a {type(content).__name__}; one tensor is needed")
        array = content.float().numpy() if content.is_floating_point() else content.numpy()
    require_finite(array, str(path))
    return array


def as_pixels(stack: np.ndarray, path: Path) -> np.ndarray:
    """uint8 (n, H, W, 3) from uint8 or float in [0, 1], channels last or second."""
    if stack.ndim == 4 and stack.shape[-1] != 3 and stack.shape[1] == 3:
        stack = stack.transpose(0, 2, 3, 1)
    if stack.ndim != 4 or stack.shape[-1] != 3:
        raise UserError(f"{str(path)!r} has shape {stack.shape}; pictures are (n, H, W, 3) or (n, 3, H, W)")
    if stack.dtype == np.uint8:
        return stack
    if stack.dtype.kind != "f" or stack.min() < 0 or stack.max() > 1:
        raise UserError(
            f"{str(path)!r} is {stack.dtype} between {stack.min():g} and {stack.max():g}; "
            "store uint8, or float in [0, 1]"
        )
    return np.round(stack * 255).astype(np.uint8)
