"""Weights of pretrained encoders: found in a file, a folder or on the Hugging Face hub, read without running code.

Electrode positions of REVE come as ``positions.json`` (name: [x, y, z]) beside the weights, else from the hub's
brain-bzh/reve-positions.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from align.errors import UserError
from align.files import read_json, write_json
from align.vision.weights import read_state_dict

FILES = ("model.safetensors", "pytorch_model.bin")  # what a folder or a hub repository is searched for, in this order
POSITIONS = "positions.json"


def load(model: nn.Module, source: str, skip: str = "", rows: tuple[str, ...] = ()) -> None:
    """Fill ``model`` from ``source``, every tensor of it but those whose name starts with ``skip``.

    ``rows``: tensors (1, n, E) that may be longer in the file; the first rows are taken. What the file holds beyond
    the model (heads, mask tokens) is left. Raises `UserError` for tensors that are missing or of another shape.
    """
    path = find(source)
    found = read_state_dict(path)
    mapping = getattr(model, "mapping", None) or {}
    found = {mapping.get(name, name): value for name, value in found.items()}
    state = {}
    for name, own in model.state_dict().items():
        if skip and name.startswith(skip):
            state[name] = own
            continue
        if name not in found:
            raise UserError(f"{str(path)!r} has no tensor {name!r}: it is for another model, or set encoder.options")
        value = found[name]
        if name in rows and value.ndim == own.ndim and value.shape[1] > own.shape[1]:
            value = value[:, : own.shape[1]]
        if value.shape != own.shape:
            raise UserError(
                f"tensor {name!r} in {str(path)!r} has shape {tuple(value.shape)}, the model's has {tuple(own.shape)};"
                " set encoder.options to the sizes of the weights"
            )
        state[name] = value
    model.load_state_dict(state)


def electrode_positions(source: str | None, names: list[str]) -> list[list[float]]:
    """x, y, z of every electrode, from the file beside the weights or from the hub; case does not matter."""
    folder = None if source is None else Path(source) if Path(source).is_dir() else Path(source).parent
    path = None if folder is None else folder / POSITIONS
    if path is None or not path.is_file():
        path = _download("brain-bzh/reve-positions", (POSITIONS,), None)
    table = read_json(path)
    if not isinstance(table, dict):
        raise UserError(f"{str(path)!r} is not a table of electrode positions, name: [x, y, z]")
    exact = {str(name).upper(): value for name, value in table.items()}
    found = [exact.get(name.upper()) for name in names]
    for name, value in zip(names, found, strict=True):
        if not _is_point(value):
            raise UserError(f"{str(path)!r} has no position for {name!r}; take the others with preprocess.channels")
    return [[float(part) for part in value] for value in found]  # type: ignore[union-attr]


def _is_point(value: Any) -> bool:
    numbers = isinstance(value, list) and len(value) == 3 and all(isinstance(part, (int, float)) for part in value)
    return numbers and all(math.isfinite(part) for part in value)


@contextmanager
def empty_position_bank() -> Iterator[None]:
    """REVE fetches a table of positions whenever it is made; here it finds one of a single electrode on the disk."""
    key, before = "REVE_POSITIONS_PATH", os.environ.get("REVE_POSITIONS_PATH")
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "reve_positions.json", {"Cz": [0.0, 0.0, 0.0]})
        os.environ[key] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ[key]
            else:
                os.environ[key] = before


def find(source: str) -> Path:
    """The file of weights that ``encoder.pretrained`` names, fetched from the hub where need be."""
    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        for name in FILES:
            if (path / name).is_file():
                return path / name
        raise UserError(f"encoder.pretrained: folder {source!r} holds neither {' nor '.join(FILES)}")
    repository, _, revision = source.partition("@")
    parts = repository.split("/")
    if len(parts) != 2 or not all(parts) or parts[0] in (".", "..", "~"):
        raise UserError(f"encoder.pretrained={source!r} is no file, no folder and no hub name such as owner/model")
    return _download(repository, FILES, revision or None)


def _download(repository: str, names: tuple[str, ...], revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in names:
        try:
            return Path(hf_hub_download(repository, name, revision=revision))
        except Exception as error:  # the hub client has many
            if _is_gate(error):  # as brain-bzh/reve-base
                raise UserError(
                    f"{repository} is given to those who accept its terms: do so at "
                    f"https://huggingface.co/{repository}, then run: hf auth login; or pass encoder.pretrained=FOLDER"
                ) from error
            if isinstance(error, LocalEntryNotFoundError):  # no network, and not fetched before
                raise UserError(
                    f"{repository} is not available offline; fetch it once with the network, or pass "
                    f"encoder.pretrained=FOLDER that holds {name}"
                ) from error
            if not isinstance(error, EntryNotFoundError):
                reason = " ".join(str(error).split())[:100]
                raise UserError(f"{repository} cannot be fetched ({reason}); pass encoder.pretrained=FOLDER") from error
    raise UserError(f"{repository} holds no {' and no '.join(names)}; pass encoder.pretrained=FILE")


def _is_gate(error: BaseException | None) -> bool:
    """Whether the hub has the repository and refuses it: terms not accepted (401, 403), or not yet granted (403)."""
    from huggingface_hub.errors import GatedRepoError

    while error is not None:  # without the file in the cache, the client says that it is not there, because of a 403
        if isinstance(error, GatedRepoError) or getattr(getattr(error, "response", None), "status_code", None) == 403:
            return True
        error = error.__cause__
    return False
