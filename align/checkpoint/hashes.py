"""Hashes of weights, and what is asked of their values."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.checkpoint.names import MODEL
from align.errors import UserError
from align.files import read_tensors

if TYPE_CHECKING:
    import torch


def tensors_hash(tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and values; independent of the order of the tensors and of metadata."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_hash(path: str | Path) -> str:
    """`tensors_hash` of a safetensors file, or of the weights in a run folder."""
    path = Path(path)
    return tensors_hash(read_tensors(path / MODEL if path.is_dir() else path)[0])


def require_numbers(tensors: dict[str, torch.Tensor], source: str | Path) -> None:
    """Raise `UserError` for the first tensor that holds NaN or infinity, or no real numbers at all."""
    import torch

    for name, value in tensors.items():
        if value.dtype.is_complex:
            raise UserError(f"{str(source)!r}: tensor {name!r} is of type {value.dtype}; real numbers are needed")
        numbers = value if not value.dtype.is_floating_point or value.element_size() > 1 else value.float()
        if value.dtype.is_floating_point and not bool(torch.isfinite(numbers).all()):
            raise UserError(f"{str(source)!r}: tensor {name!r} holds values that are not finite (NaN or infinity)")


def require_named(digest: str, meta: dict[str, Any], file: Path) -> None:
    """Raise `UserError` where the facts beside weights name others than those with this hash."""
    if meta.get("weights_hash", digest) != digest:
        raise UserError(f"{str(file)!r} holds other weights than its metadata names; train the run again")
