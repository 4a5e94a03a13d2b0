"""Several processes on one batch: each computes its part, all see all embeds, so that every row has every negative.

The sum over processes of each one's gradient is the gradient of the loss of the whole batch: a process lets gradients
through its own rows only, and the loss is computed from all of them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import distributed, nn

from align.errors import UserError
from align.files.launched import place, rows_of_all

_alone = False


def alone() -> None:
    """From now on this process computes whole batches, whatever group it is in."""
    global _alone
    _alone = True


def world() -> tuple[int, int]:
    """(rank, number of processes that share a batch); (0, 1) without a process group, and where a command is shared."""
    if _alone or place()[1] > 1 or not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def wait_for_all() -> None:
    """Return when all processes have come here."""
    if world()[1] > 1:
        distributed.barrier()


def own_part(rows: np.ndarray) -> np.ndarray:
    """The rows of a batch that this process computes; parts differ by one row at most.

    Raises `UserError` when there are fewer rows than processes.
    """
    rank, size = world()
    if len(rows) < size:
        raise UserError(f"a batch of {len(rows)} rows cannot be shared by {size} processes; raise train.batch_size")
    return np.array_split(rows, size)[rank]


def all_rows(x: torch.Tensor) -> torch.Tensor:
    """The rows (B, ...) of all processes, in order of rank; gradients reach the own ones."""
    rank, size = world()
    if size == 1:
        return x
    rows = rows_of_all(x.detach(), size)
    rows[rank] = x
    return torch.cat(rows)


def sum_gradients(network: nn.Module, whole: tuple[str, ...]) -> None:
    """Make the gradients those of the whole batch. ``whole``: names of parameters whose gradients are that already."""
    if world()[1] == 1:
        return
    for name, parameter in network.named_parameters():
        if parameter.grad is not None and name not in whole:
            distributed.all_reduce(parameter.grad)
