"""Where weights come from: local files, read strictly, or a hub, whose many errors end in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from align.config import BackboneConfig
from align.errors import UserError
from align.files import no_file, read_tensors


def local_weights(config: BackboneConfig, folder: bool | None = None) -> Path | None:
    """``backbone.weights`` as an existing path of the right kind (``folder`` None = either), or None."""
    if config.weights is None:
        return None
    path = Path(config.weights).expanduser()
    if not path.exists():
        raise UserError(f"backbone.weights={config.weights!r} {no_file(path)}")
    if folder is not None and path.is_dir() != folder:
        kind = "a folder with config.json and model.safetensors" if folder else "a state dict, .safetensors or .pth"
        raise UserError(f"backbone.weights={config.weights!r} does not fit {config.name}; pass {kind}")
    return path


def local_state_dict(config: BackboneConfig, inside: str | None = None) -> dict[str, torch.Tensor] | None:
    """The state dict at ``backbone.weights``: a file, or file ``inside`` of a folder; None where none is given."""
    path = local_weights(config, folder=None if inside else False)
    if path is not None and inside and path.is_dir():
        if not (path / inside).is_file():
            raise UserError(f"backbone.weights={config.weights!r} holds no {inside}; pass that file or its folder")
        path /= inside
    return None if path is None else read_state_dict(path)


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Plain tensors of a ``.safetensors`` or ``.pth`` file; raises `UserError` for anything else."""
    if path.suffix == ".safetensors":
        return read_tensors(path)[0]
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and tensor readers fail in as many ways as strangers' files do
        raise UserError(f"{str(path)!r} is not a readable state dict of plain tensors; pass .safetensors") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{str(path)!r} holds no state dict of plain tensors")
    return state


def load_strict(model: nn.Module, state: dict[str, torch.Tensor], config: BackboneConfig) -> None:
    """Every tensor must be there, with its shape, and no other; half precision is accepted."""
    check_fit(model, state, config)
    model.load_state_dict(state, strict=False)


def check_fit(model: nn.Module, state: dict[str, torch.Tensor], config: BackboneConfig) -> None:
    """Raise `UserError` for the first tensor that is missing, unknown or of another shape."""
    own = model.state_dict()
    needed = {name for name in own if not name.endswith("num_batches_tracked")}
    for fault, names in (("lack", needed - set(state)), ("hold the unknown", set(state) - set(own))):
        if names:
            raise UserError(f"weights of {config.name} {fault} {sorted(names)[0]!r} ({len(names)} such tensors)")
    for name in sorted(set(state)):
        if state[name].shape != own[name].shape:
            found, due = tuple(state[name].shape), tuple(own[name].shape)
            raise UserError(f"weights of {config.name}: {name!r} has shape {found}, expected {due}")


def hub_file(repository: str, name: str, revision: str | None) -> Path:
    """A file of a repository on the hub, from the cache or fetched; raises `OSError` where neither works."""
    from transformers.utils import cached_file

    path = cached_file(repository, name, revision=revision or "main")
    if path is None:
        raise OSError(f"{repository} has no {name}")
    return Path(path)


@contextmanager
def fetching(config: BackboneConfig) -> Iterator[None]:
    """Turn the many errors of hubs and loaders into one line that says what is missing and the way out."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # each hub client has its own exceptions
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:200]
        hub = f"from its hub at revision {config.revision}" if config.revision else "from its hub"
        place = f"in backbone.weights={config.weights!r}" if config.weights else hub
        hint = "check the path" if config.weights else "offline, pass backbone.weights=FILE or DIR"
        raise UserError(f"cannot load the weights of {config.name} {place} ({reason}); {hint}") from error
