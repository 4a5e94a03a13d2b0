"""Processes that were launched together (torchrun, accelerate launch) and share the work of one command.

Whoever calls `wait`, `total`, `of_all` or `first_then_others` waits for all others to call it too; measures of pictures
(`recon.metrics`, `recon.scoring`) do, which is why every process of a launch scores the same pictures at the same time.
They talk over gloo, also where there are GPUs: what they exchange are small arrays, and a process may wait for days
while another writes a report. Without a launch every function here does nothing, and one process has all of the work.
All machines of a launch must see the same files.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from align.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch.distributed import Store

T = TypeVar("T")


class Left(UserError):
    """Another process of the launch has ended before its work was done."""


PATIENCE = timedelta(days=30)  # how long a process waits for the others
_store: Store | None = None


def launched() -> bool:
    """Whether a launcher started this process beside others (``WORLD_SIZE``)."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ) and _number("WORLD_SIZE") > 1


def refuse(command: str, shared: Sequence[str]) -> None:
    """Raise `UserError` in a process of a launch: every one of them would do the whole of ``command``.

    ``shared``: the commands whose work is shared.
    """
    if launched():
        raise UserError(
            f"{command} is the work of one process, and a launcher started {os.environ['WORLD_SIZE']}; start it "
            f"without one (several processes share: {', '.join(shared)})"
        )


def join() -> None:
    """Meet the other processes of the launch, and take the GPU of this one (``LOCAL_RANK``), where there are some.

    Raises `UserError` where the others cannot be reached.
    """
    global _store
    if _store is not None or not launched():
        return
    import torch
    from torch import distributed

    try:
        store, rank, size = next(distributed.rendezvous("env://", timeout=timedelta(minutes=10)))
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UserError(f"the processes of this launch do not find each other at {where}: {error}") from error
    _store = store
    if torch.cuda.is_available():
        local = _number("LOCAL_RANK") if "LOCAL_RANK" in os.environ else rank
        torch.cuda.set_device(local % torch.cuda.device_count())


def place() -> tuple[int, int]:
    """(rank, number of processes that share the command); (0, 1) without a launch."""
    if _store is None:
        return 0, 1
    from torch import distributed

    return distributed.get_rank(), distributed.get_world_size()


def is_first() -> bool:
    """Whether this process is the one that writes what is written once, and speaks."""
    return place()[0] == 0


def wait() -> None:
    """Return when all processes have come here."""
    if place()[1] > 1:
        from torch import distributed

        with _together():
            distributed.barrier()


@contextmanager
def first_then_others() -> Iterator[None]:
    """The first process runs the block before the others do: what it leaves on disk is there for them."""
    if not is_first():
        wait()
    try:
        yield
    finally:
        if is_first():
            wait()


def own_share(items: Sequence[T]) -> Sequence[T]:
    """The items that this process works on: a piece of the sequence, in order of rank; some may have none."""
    return share_of(items, place()[0])


def share_of(items: Sequence[T], rank: int) -> Sequence[T]:
    """The items that the process ``rank`` works on."""
    size = place()[1]
    return items[rank * len(items) // size : (rank + 1) * len(items) // size]


def rows_in(starts: Sequence[int], batch: int, n: int) -> int:
    """How many of n rows are in the batches that begin at ``starts``, one after the other."""
    return min(starts[-1] + batch, n) - starts[0] if starts else 0


def of_all(own: np.ndarray | None) -> np.ndarray:
    """The rows (n, ...) of all processes, in order of rank; every process gets them. None: this one has no row.

    Raises `UserError` where processes come with rows of different kinds, or one is gone.
    """
    size = place()[1]
    if size == 1:
        assert own is not None
        return own
    import numpy as np
    import torch
    from torch import distributed

    with _together():
        shapes = torch.full((8,), -1, dtype=torch.long)
        if own is not None and len(own):
            kind = [int.from_bytes(own.dtype.str.encode()[:7], "little"), *own.shape[1:]]
            shapes[: len(kind)] = torch.tensor(kind)
        found = [torch.empty_like(shapes) for _ in range(size)]
        distributed.all_gather(found, shapes)
        kinds = {tuple(kind.tolist()) for kind in found} - {(-1,) * 8}
        if len(kinds) != 1:
            raise UserError(
                "the processes of this launch are not at the same step; do all machines see the same files?"
            )
        kind, *shape = (value for value in kinds.pop() if value >= 0)
        dtype = np.dtype(kind.to_bytes(7, "little").rstrip(b"\0").decode())
        rows = np.empty((0, *shape), dtype) if own is None or not len(own) else np.ascontiguousarray(own)
        parts = rows_of_all(torch.from_numpy(rows), size)
    return np.concatenate([part.numpy() for part in parts])


def total(own: int) -> int:
    """The sum over all processes."""
    if place()[1] == 1:
        return own
    import numpy as np

    return int(of_all(np.array([own])).sum())


def rows_of_all(own: torch.Tensor, size: int) -> list[torch.Tensor]:
    """The rows (n, ...) of each of ``size`` processes, which may differ in number."""
    import torch
    from torch import distributed

    sizes = [torch.zeros(1, dtype=torch.long, device=own.device) for _ in range(size)]
    distributed.all_gather(sizes, torch.tensor([len(own)], device=own.device))
    counts = [int(count) for count in sizes]
    padded = own.new_zeros(max(counts), *own.shape[1:])
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in range(size)]
    distributed.all_gather(parts, padded)
    return [part[:count] for part, count in zip(parts, counts, strict=True)]


@contextmanager
def one_voice() -> Iterator[None]:
    """In the block the first process alone is heard; of a fault that several meet, one tells."""
    if place()[1] == 1:
        yield
        return
    out, err = sys.stdout, sys.stderr
    nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - progress bars write until the process ends
    if not is_first():
        sys.stdout = sys.stderr = nowhere
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        err = err if _is_news(error) else nowhere
        raise
    finally:
        sys.stdout, sys.stderr = out, err


def _is_news(error: BaseException) -> bool:
    """Whether no other process has told of this fault; that others have ended follows from a fault told before."""
    if _store is None:
        return True
    digest = hashlib.sha256(f"{type(error).__name__} {error}".encode(errors="replace")).hexdigest()
    try:
        faults, same = _store.add("faults", 1), _store.add(f"fault {digest}", 1)
    except RuntimeError:  # the store went with the process that held it
        return True
    return bool(faults == 1 if isinstance(error, Left | KeyboardInterrupt) else same == 1)


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise Left("another process of this launch has ended; the same command continues from here") from error


def _number(name: str) -> int:
    try:
        return int(os.environ.get(name, "1"))
    except ValueError:
        raise UserError(f"{name}={os.environ[name]!r} is no number; start the command by torchrun") from None
