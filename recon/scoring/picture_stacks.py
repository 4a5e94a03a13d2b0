"""A stack of pictures, in a file or in memory, as a `OpenedPictures`: shapes and ranges are checked, never guessed."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from align.errors import UserError
from align.files import require_openable
from align.files.labels import tidy
from recon.scoring.embeddings import as_numpy
from recon.scoring.picture_sets import OpenedPictures, require_square

SUFFIXES = (".npy", ".pt", ".pth", ".safetensors")
_CHECKED = 2**24  # values looked at together when the range is checked
_SLACK = 1e-3  # beyond 0 and 1: rounding of half precision and of resizes; clipped
_OVERSHOOT = 0.25  # part of the range by which a bicubic or Lanczos resize, or a decoder, can pass its ends
_LISTED = 8  # rows that are spelled out
_KEYS = ("images", "reconstructions", "recons")  # taken first where a file holds several stacks
_Rows = Callable[[Any], np.ndarray]  # an index along the first axis to an array


def open_stack(source: Any, name: str) -> OpenedPictures:
    """Stack (n, H, W, 3) or (n, 3, H, W), or with samples (n, k, ...), from a path, an array or a torch tensor.

    ``.pt`` files are read with ``weights_only=True``: a tensor, a list of equal tensors, or a dict with one stack
    (MindEye's ``*_recons.pt``, ``all_images.pt``). A ``.safetensors`` may carry ``ids`` (JSON list) in its metadata.
    """
    ids: tuple[str, ...] | None = None
    if isinstance(source, Path):
        shape, kind, take, ids = _open_file(source)
    else:
        shape, kind, take = _of_array(_to_array(source, name))
    channels, samples, size = _layout(shape, name)
    _check_range(take, shape, kind, name)
    if ids is not None and (len(ids) != shape[0] or len(set(ids)) != len(ids)):
        raise UserError(
            f"{name!r} holds {shape[0]} stimuli and {len(set(ids))} different ids; give one id per stimulus"
        )

    def read(rows: Sequence[int], sample: int) -> np.ndarray:
        wanted = np.asarray(rows, dtype=int)
        order = np.argsort(wanted, kind="stable")
        picked = take((wanted[order], sample) if len(shape) == 5 else (wanted[order], None))
        pixels = np.empty_like(picked)
        pixels[order] = picked
        return pixels.transpose(0, 2, 3, 1) if channels == "first" else pixels

    return OpenedPictures(name, ids, shape[0], samples, size, read)


def _layout(shape: tuple[int, ...], name: str) -> tuple[str, int, int]:
    """Where the channels are, number of samples, side in px."""
    if len(shape) not in (4, 5) or 0 in shape:
        raise UserError(
            f"{name!r} has shape {shape}; a stack of RGB pictures is (n, H, W, 3), (n, 3, H, W) or (n, samples, ...)"
        )
    last, first = shape[-1], shape[-3]
    if 4 in (last, first) and 3 not in (last, first):
        raise UserError(f"{name!r} has shape {shape}, 4 channels: lay the alpha channel over a background, keep RGB")
    if (last == 3) == (first == 3):
        raise UserError(
            f"{name!r} has shape {shape}; the channel axis should have 3 entries (RGB), last or before H, W"
        )
    height, width = shape[-3:-1] if last == 3 else shape[-2:]
    return ("last" if last == 3 else "first"), (shape[1] if len(shape) == 5 else 1), require_square(height, width, name)


def _check_range(take: Any, shape: tuple[int, ...], kind: str, name: str) -> None:
    """Look at every value once, in pieces: [0, 1] for floats, more than 0 and 1 for bytes."""
    if kind not in ("uint8", "float16", "float32", "float64"):
        raise UserError(f"{name!r} holds {kind}; store uint8 (0 to 255) or float in [0, 1]")
    step = max(1, _CHECKED // int(np.prod(shape[1:])))
    low, high, broken = np.inf, -np.inf, list[int]()
    for start in range(0, shape[0], step):
        piece = take((np.arange(start, min(start + step, shape[0])), None))
        lowest, highest = float(np.min(piece)), float(np.max(piece))
        if not np.isfinite([lowest, highest]).all():
            bad = ~np.isfinite(piece.reshape(len(piece), -1)).all(axis=1)
            broken += (start + np.flatnonzero(bad)).tolist()
        low, high = min(low, lowest), max(high, highest)
    if broken:
        rest = f" and {len(broken) - _LISTED} more" if len(broken) > _LISTED else ""
        rows = f"{', '.join(map(str, broken[:_LISTED]))}{rest}"
        raise UserError(f"{name!r} holds NaN or infinity in {len(broken)} of {shape[0]} rows ({rows}); mend it")
    found = f"{name!r} holds values from {low:.4g} to {high:.4g}"
    if kind == "uint8":
        if 0 < high <= 1:  # all black is named as such
            raise UserError(f"{found} as uint8: floats in [0, 1] were cast to bytes; multiply by 255 before the cast")
    elif low < -_SLACK or high > 1 + _SLACK:
        raise UserError(f"{found}; floats should be in [0, 1]; {_remedy(low, high)}")
    elif 0 < high <= 1 / 255 + 1e-6:
        raise UserError(f"{found}; floats should be in [0, 1]; these were divided by 255 twice")


def _remedy(low: float, high: float) -> str:
    """What to do with values from ``low`` to ``high``: only what leads to the right numbers."""
    if low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT:
        return "a little beyond both ends is the overshoot of a resize or decoder: clip to [0, 1], x.clip(0, 1)"
    if -1 - _OVERSHOOT <= low <= -1 + _OVERSHOOT and 1 - _OVERSHOOT <= high <= 1 + _OVERSHOOT:
        return "pictures in [-1, 1] become so by ((x + 1) / 2).clip(0, 1)"
    if low >= -_OVERSHOOT * 255 and 100 < high <= 255 * (1 + _OVERSHOOT):
        return "divide 0 to 255 by 255 and clip to [0, 1], or store uint8"
    return (
        "these are neither [-1, 1] nor 0 to 255: undo what was done to the pixels (of pictures that were standardised "
        "for a network: x * std + mean), do not stretch them"
    )


def _to_array(source: Any, name: str) -> Any:
    """A numpy array of an in-memory source; torch tensors are shared, not copied; bfloat16 becomes float32."""
    if np.ma.is_masked(source):
        raise UserError(f"{name} hold masked values; fill or remove these pictures first")
    if isinstance(source, np.ndarray):
        return np.asarray(source)
    import torch

    if isinstance(source, torch.Tensor):
        return as_numpy(source)
    if isinstance(source, list | tuple) and source and all(isinstance(part, torch.Tensor) for part in source):
        return _to_array(_joined(list(source), name), name)
    if isinstance(source, list | tuple) and source and not any(isinstance(part, str | Path) for part in source):
        try:
            return np.asarray(source)
        except Exception as error:  # ragged lists, and containers that raise what they like
            line = " ".join(str(error).split())[:200]
            raise UserError(f"{name} are no stack of pictures of one size ({line})") from error
    raise UserError(
        f"{name} are a {type(source).__name__}; pass a path, an array (n, H, W, 3) or a tensor (n, 3, H, W)"
    )


def _of_array(array: Any) -> tuple[tuple[int, ...], str, _Rows]:
    def take(index: tuple[np.ndarray, int | None]) -> np.ndarray:
        rows, sample = index
        value: np.ndarray = np.asarray(array[rows] if sample is None else array[rows, sample])
        return value if value.dtype.isnative else value.astype(value.dtype.newbyteorder("="))

    return tuple(array.shape), array.dtype.name, take


def _open_file(path: Path) -> tuple[tuple[int, ...], str, _Rows, tuple[str, ...] | None]:
    if path.suffix == ".npy":
        return *_of_array(_map_npy(path)), None
    if path.suffix in (".pt", ".pth"):
        return *_of_array(_to_array(_from_pt(path), str(path))), None
    if path.suffix == ".safetensors":
        return _slices(path)
    raise UserError(f"{str(path)!r} is neither a folder nor one of {', '.join(SUFFIXES)}")


def _map_npy(path: Path) -> np.ndarray:
    try:
        return np.lib.format.open_memmap(path, mode="r")  # refuses objects
    except Exception as error:
        from align.data.reading.safe_load import load_array

        load_array(path)  # says in one line what is wrong with it
        raise UserError(f"{str(path)!r} cannot be mapped: {error}") from error


def _from_pt(path: Path) -> Any:
    """The stack in a torch file; nothing in it is run."""
    import pickle
    import warnings

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:  # written by torch < 1.6, which cannot be mapped
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever it likes on broken bytes
        if isinstance(error, pickle.UnpicklingError) and _is_pickle(path):
            raise UserError(
                f"{str(path)!r} holds Python objects beside tensors, which can run code, and is refused; save one "
                "tensor"
            ) from error
        raise UserError(f"{str(path)!r} is truncated or not a torch file; write or fetch it again") from error
    if isinstance(content, dict):
        stacks = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
        return stacks[_one_stack(stacks, path)]
    if isinstance(content, list | tuple):
        return _joined(list(content), str(path))
    return content


def _is_pickle(path: Path) -> bool:
    """Whether a file is a zip, as torch writes it, or starts like a pickle."""
    with path.open("rb") as file:
        return zipfile.is_zipfile(path) or file.read(1) == b"\x80"


def _joined(parts: list[Any], name: str) -> Any:
    """A list of pictures (3, H, W), or of stacks of one picture, as one tensor."""
    import torch

    if not parts or not all(isinstance(part, torch.Tensor) for part in parts):
        raise UserError(f"{name!r} holds a list that is not of tensors; save one tensor (n, 3, H, W)")
    for row, part in enumerate(parts):
        for what, value, first in (
            ("shape", tuple(part.shape), tuple(parts[0].shape)),
            ("type", part.dtype, parts[0].dtype),
        ):
            if value != first:
                raise UserError(f"{name!r}: picture {row} has {what} {value}, picture 0 {first}; bring all to one")
    return torch.stack(parts)


def _one_stack(stacks: dict[str, Any], path: Path) -> str:
    names = [name for name, value in stacks.items() if value.ndim in (4, 5)]
    chosen = [name for name in _KEYS if name in names] or names
    if len(chosen) != 1 and len(names) != 1:
        raise UserError(
            f"{str(path)!r} holds {len(names)} stacks of pictures ({', '.join(names[:5])}); save one tensor"
        )
    return chosen[0]


class _Shape:
    """A tensor of a safetensors file that is not read yet."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.ndim = len(shape)


def _slices(path: Path) -> tuple[tuple[int, ...], str, _Rows, tuple[str, ...] | None]:
    from safetensors import SafetensorError, safe_open

    require_openable(path)
    try:
        file = safe_open(str(path), framework="np")
        metadata = dict(file.metadata() or {})
        shapes = {key: _Shape(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - not a dict
        piece = file.get_slice(_one_stack(shapes, path))
        kind = {"U8": "uint8", "F16": "float16", "F32": "float32", "F64": "float64"}.get(str(piece.get_dtype()), "")
    except SafetensorError as error:
        raise UserError(f"{str(path)!r} is not a whole safetensors file: {error}") from error

    def take(index: tuple[np.ndarray, int | None]) -> np.ndarray:
        rows, sample = index
        parts = [piece[int(row) : int(row) + 1] for row in rows]
        value = np.concatenate(parts)
        return value if sample is None else value[:, sample]

    return tuple(piece.get_shape()), kind or f"type {piece.get_dtype()}", take, _stored_ids(metadata, path)


def _stored_ids(metadata: dict[str, str], path: Path) -> tuple[str, ...] | None:
    if "ids" not in metadata:
        return None
    try:
        ids = json.loads(metadata["ids"])
    except ValueError:
        ids = None
    if not isinstance(ids, list):
        raise UserError(f"the metadata 'ids' of {str(path)!r} is no JSON list; write json.dumps([...]) there")
    return tuple(tidy(str(item)) for item in ids)
