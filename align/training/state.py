"""Training state for resuming: one safetensors file with every tensor and the step, replaced as a whole.

The learning rate and all randomness are functions of the step (see `align.seeding`), so nothing else is stored.
A process killed at any moment, also while writing, finds either the old state or the new one.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import nn

from align.errors import Damaged, UserError
from align.files import read_tensors, save_tensors

logger = logging.getLogger(__name__)
_FILE = "state.safetensors"


def save_state(folder: str | Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write modules, optimizer moments and ``step`` = the number of finished steps."""
    tensors = {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in moments.items()}
    tensors = {key: value.clone() for key, value in tensors.items()}  # tied weights are two entries
    save_tensors(Path(folder) / _FILE, tensors, {"step": str(step)})


def load_state(folder: str | Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> int:
    """Restore what `save_state` wrote and return the step; 0 and no change when nothing whole was stored yet."""
    path = Path(folder) / _FILE
    stored = _read(path)
    if stored is None:
        return 0
    tensors, metadata = stored
    for name, module in modules.items():
        own = {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{name}/")}
        missing = set(module.state_dict()) ^ set(own)
        if missing:
            raise UserError(f"{str(path)!r} is of another model ({sorted(missing)[0]!r} differs); delete it to restart")
        module.load_state_dict(own)
    state = optimizer.state_dict()
    state["state"] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, moment = key.split("/", 2)
            state["state"].setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict(state)
    return int(metadata["step"])


def load_finished_step(folder: str | Path) -> int:
    """The stored step; 0 when nothing was stored yet. A damaged state is removed and said in the log: 0."""
    stored = _read(Path(folder) / _FILE)
    return 0 if stored is None else int(stored[1]["step"])


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]] | None:
    """The file's content; a damaged file is removed."""
    if not path.is_file():
        return None
    try:
        return read_tensors(path)
    except Damaged as error:
        logger.warning("%s; this stage starts again", error)
        path.unlink()
        return None
